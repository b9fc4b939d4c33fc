"""Every metric, declared once: its rule or formula, its unit, what to know before using it, and where it comes from.

The columns of the views, their comments and the dictionary follow from here. A rule is applied to one call only, in
``call_facts``; all else is a sum of such columns, or a ratio of two sums. The definitions are those of Amazon Connect,
Genesys Cloud and Google CCAI, as named with each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

GENESYS = "Genesys Cloud"
AMAZON_CONNECT = "Amazon Connect"
GOOGLE_CCAI = "Google CCAI"
CALL_CENTRE_HELPER = "Call Centre Helper"


Columns = Mapping[str, sa.ColumnElement[Any]]
Rule = Callable[["CallRow"], sa.ColumnElement[bool]]


@dataclass(frozen=True)
class CallRow:
    """What the rule of a fact may look at: the columns of ``calls``, and the parameters."""

    columns: Columns
    parameter: Callable[[str], sa.ColumnElement[int]]

    def __getitem__(self, name: str) -> sa.ColumnElement[Any]:
        return self.columns[name]

    @property
    def waited_seconds(self) -> sa.ColumnElement[int]:
        """Seconds in a queue, 0 where nothing is known of one."""
        return sa.func.coalesce(self["queue_seconds"], 0)

    def is_direction(self, *words: str) -> sa.ColumnElement[bool]:
        """Whether the direction is one of these."""
        return self["direction"].in_(words)

    def is_status(self, *words: str) -> sa.ColumnElement[bool]:
        """Whether the status is one of these."""
        return self["status"].in_(words)


@dataclass(frozen=True)
class Fact:
    """A column of ``call_facts`` that is 1 where ``rule`` holds for a call, else 0; ``count`` is its sum's name."""

    name: str
    description: str
    rule: Rule
    count: str = ""
    source: str = ""

    @property
    def count_name(self) -> str:
        """The name of its sum."""
        return self.count or self.name


def _inbound(c: CallRow) -> sa.ColumnElement[bool]:
    return c.is_direction("inbound")


def _answered(c: CallRow) -> sa.ColumnElement[bool]:
    return sa.and_(_inbound(c), c.is_status("answered"))


def _missed(c: CallRow) -> sa.ColumnElement[bool]:
    return sa.and_(_inbound(c), c.is_status("missed"))


def _queued(c: CallRow) -> sa.ColumnElement[bool]:
    return c.waited_seconds > 0


def _abandoned(c: CallRow) -> sa.ColumnElement[bool]:
    return sa.and_(_missed(c), _queued(c))


def _in_time(c: CallRow) -> sa.ColumnElement[bool]:
    return c.waited_seconds <= c.parameter("service_level_seconds")


def _has_voicemail(c: CallRow) -> sa.ColumnElement[bool]:
    return c["has_voicemail"].is_(sa.true())


FACTS = (
    Fact("inbound", "Calls from outside.", _inbound),
    Fact("outbound", "Calls to outside.", lambda c: c.is_direction("outbound")),
    Fact("internal", "Calls between agents.", lambda c: c.is_direction("internal")),
    Fact(
        "offered",
        "Inbound calls that were answered or missed, or waited in a queue.",
        lambda c: sa.and_(_inbound(c), sa.or_(c.is_status("answered", "missed"), _queued(c))),
    ),
    Fact("answered", "Inbound calls that were answered.", _answered),
    Fact("missed", "Inbound calls that were missed, which can include an agent who did not pick up.", _missed),
    Fact(
        "abandoned",
        "Inbound calls that were missed after waiting in a queue.",
        _abandoned,
        source=AMAZON_CONNECT,
    ),
    Fact(
        "missed_without_queue",
        "Inbound calls that were missed and did not wait in a queue.",
        lambda c: sa.and_(_missed(c), c.waited_seconds == 0),
    ),
    Fact(
        "short_abandoned",
        "Abandoned calls whose caller waited less than short_abandon_seconds.",
        lambda c: sa.and_(_abandoned(c), c.waited_seconds < c.parameter("short_abandon_seconds")),
        source=GOOGLE_CCAI,
    ),
    Fact(
        "answered_in_time",
        "Inbound calls that were answered after waiting at most service_level_seconds.",
        lambda c: sa.and_(_answered(c), _in_time(c)),
        source=GENESYS,
    ),
    Fact(
        "abandoned_in_time",
        "Abandoned calls whose caller waited at most service_level_seconds.",
        lambda c: sa.and_(_abandoned(c), _in_time(c)),
    ),
    Fact(
        "stopped_in_ivr",
        "Inbound calls that ended in the voice menu.",
        lambda c: sa.and_(_inbound(c), c.is_status("stopped_at_ivr")),
    ),
    Fact(
        "stopped_in_survey",
        "Inbound calls that ended in the survey's voice menu.",
        lambda c: sa.and_(_inbound(c), c.is_status("stopped_at_survey_ivr")),
    ),
    Fact(
        "voicemail",
        "Inbound calls that left a voicemail.",
        lambda c: sa.and_(_inbound(c), _has_voicemail(c)),
        count="voicemails",
    ),
    Fact(
        "outbound_answered",
        "Outbound calls that were answered.",
        lambda c: sa.and_(c.is_direction("outbound"), c.is_status("answered")),
    ),
    Fact(
        "offered_other",
        "Offered calls that were neither answered nor missed: offered = answered + missed + offered_other.",
        lambda c: sa.and_(_inbound(c), _queued(c), sa.not_(c.is_status("answered", "missed"))),
    ),
    Fact(
        "missed_with_voicemail",
        "Inbound calls that were missed and left a voicemail.",
        lambda c: sa.and_(_missed(c), _has_voicemail(c)),
    ),
    Fact(
        "unknown_direction",
        "Calls of an unknown direction: calls = inbound + outbound + internal + unknown_direction.",
        lambda c: sa.not_(c.is_direction("inbound", "outbound", "internal")),
    ),
    Fact(
        "unknown_status",
        "Calls of an unknown status.",
        lambda c: sa.not_(c.is_status("answered", "missed", "stopped_at_ivr", "stopped_at_survey_ivr")),
    ),
    Fact(
        "answered_without_talk",
        "Inbound calls that were answered, of which the portal says no talk time.",
        lambda c: sa.and_(_answered(c), c["talk_seconds"].is_(None)),
    ),
)


@dataclass(frozen=True)
class Total:
    """A sum of seconds over the calls of which ``fact`` is 1; null counts as 0."""

    name: str
    fact: str
    column: str
    description: str


TOTALS = (
    Total("answered_queue_seconds", "answered", "queue_seconds", "Time that answered inbound calls waited in a queue."),
    Total("answered_talk_seconds", "answered", "talk_seconds", "Talk time of answered inbound calls."),
    Total("answered_hold_seconds", "answered", "hold_seconds", "Hold time of answered inbound calls."),
    Total("answered_acw_seconds", "answered", "acw_seconds", "After-call work of answered inbound calls."),
    Total("answered_handle_seconds", "answered", "handle_seconds", "Handle time of answered inbound calls."),
    Total("outbound_talk_seconds", "outbound_answered", "talk_seconds", "Talk time of answered outbound calls."),
    Total("outbound_handle_seconds", "outbound_answered", "handle_seconds", "Handle time of answered outbound calls."),
)

CALLS_COUNT = "calls"
COUNTS: Mapping[str, str] = {
    CALLS_COUNT: "Calls of any direction.",
    **{fact.count_name: fact.description for fact in FACTS},
    **{total.name: total.description for total in TOTALS},
}
"""The counts of every aggregate, in their order, and what each counts."""


@dataclass(frozen=True)
class Ratio:
    """A quotient of counts, ``null`` where its denominator is 0: ``numerator`` / (``denominator`` - ``less``)."""

    name: str
    numerator: tuple[str, ...]
    denominator: tuple[str, ...]
    description: str
    less: tuple[str, ...] = ()
    unit: str = "ratio"
    source: str = ""
    caveat: str = ""

    @property
    def formula(self) -> str:
        """The formula, in the names of the counts."""
        numerator = " + ".join(self.numerator)
        denominator = " - ".join([" + ".join(self.denominator), *self.less])
        return f"{_in_brackets(numerator)} / {_in_brackets(denominator)}"

    def of(self, counts: Columns) -> sa.ColumnElement[Any]:
        """Return the ratio of ``counts`` as SQL: a double."""
        numerator = sum((counts[name] for name in self.numerator[1:]), counts[self.numerator[0]])
        denominator = sum((counts[name] for name in self.denominator[1:]), counts[self.denominator[0]])
        for name in self.less:
            denominator = denominator - counts[name]
        return sa.cast(numerator, sa.Double) / sa.func.nullif(sa.cast(denominator, sa.Double), 0)


def _in_brackets(formula: str) -> str:
    return f"({formula})" if " " in formula else formula


_VARIANT = "five usual variants give different values for the same calls: say which one it is"
RATIOS = (
    Ratio(
        "service_level",
        ("answered_in_time",),
        ("answered", "abandoned"),
        "Share of answered and abandoned calls that were answered within service_level_seconds.",
        source=GENESYS,
        caveat=_VARIANT,
    ),
    Ratio(
        "service_level_abandons_ignored",
        ("answered_in_time",),
        ("answered",),
        "Service level in which abandoned calls do not count.",
        source=CALL_CENTRE_HELPER,
        caveat=_VARIANT,
    ),
    Ratio(
        "service_level_abandons_in_time_met",
        ("answered_in_time", "abandoned_in_time"),
        ("answered", "abandoned"),
        "Service level in which calls abandoned within service_level_seconds count as met.",
        source=CALL_CENTRE_HELPER,
        caveat=_VARIANT,
    ),
    Ratio(
        "service_level_short_abandons_ignored",
        ("answered_in_time",),
        ("answered", "abandoned"),
        "Service level in which short abandons do not count.",
        less=("short_abandoned",),
        source=GOOGLE_CCAI,
        caveat=_VARIANT,
    ),
    Ratio(
        "service_level_of_offered",
        ("answered_in_time",),
        ("offered",),
        "Service level of all offered calls.",
        source=CALL_CENTRE_HELPER,
        caveat=_VARIANT,
    ),
    Ratio(
        "abandonment_rate",
        ("abandoned",),
        ("offered",),
        "Share of offered calls that were abandoned.",
        source=AMAZON_CONNECT,
    ),
    Ratio(
        "asa_seconds",
        ("answered_queue_seconds",),
        ("answered",),
        "Average speed of answer: average wait of answered inbound calls.",
        unit="seconds",
        source=AMAZON_CONNECT,
    ),
    Ratio(
        "aht_seconds",
        ("answered_handle_seconds",),
        ("answered",),
        "Average handle time of answered inbound calls.",
        unit="seconds",
        source=AMAZON_CONNECT,
        caveat="whether the portal's talk time includes hold is not published: talk_includes_hold says what is assumed",
    ),
    Ratio(
        "acw_average_seconds",
        ("answered_acw_seconds",),
        ("answered",),
        "Average after-call work of answered inbound calls.",
        unit="seconds",
        source=AMAZON_CONNECT,
    ),
    Ratio(
        "hold_share",
        ("answered_hold_seconds",),
        ("answered_talk_seconds",),
        "Hold time of answered inbound calls, as a share of their talk time.",
    ),
    Ratio(
        "voicemail_rate",
        ("missed_with_voicemail",),
        ("missed",),
        "Share of missed inbound calls that left a voicemail.",
    ),
    Ratio(
        "ivr_containment",
        ("stopped_in_ivr",),
        ("inbound",),
        "Share of inbound calls that ended in the voice menu.",
        caveat="a proxy: it also counts callers who hung up",
    ),
    Ratio(
        "outbound_connect_rate",
        ("outbound_answered",),
        ("outbound",),
        "Share of outbound calls that were answered.",
    ),
)


def ratio_description(ratio: Ratio) -> str:
    """Return what a reader of a ratio's column is told: what it is, its formula, its source, what to know."""
    told = [ratio.description, f"Formula: {ratio.formula}; null where the denominator is 0."]
    if ratio.source:
        told.append(f"As {ratio.source} defines it.")
    if ratio.caveat:
        told.append(f"{ratio.caveat[0].upper()}{ratio.caveat[1:]}.")
    return " ".join(told)
