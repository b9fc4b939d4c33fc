"""The views that sum ``call_facts``: by day, hour, quarter of an hour, number and campaign."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from sinks.views.declaration import Relations, View, is_so, total, whole
from sinks.views.portable import quarter_hour, weekday
from transforms.metrics import CALLS_COUNT, COUNTS, FACTS, RATIOS, TOTALS, ratio_description
from transforms.schema import CALLS

CALL_DATE = CALLS["call_date"].description
_FLAGS = tuple(fact.name for fact in FACTS)
_SECONDS = tuple(dict.fromkeys(of.column for of in TOTALS))
METRICS = dict(COUNTS) | {ratio.name: ratio_description(ratio) for ratio in RATIOS}
"""What every aggregate has beside its grain: counts, then ratios."""


def counts_of(facts: sa.FromClause) -> dict[str, sa.ColumnElement[int]]:
    """Return ``COUNTS`` of a group of rows of ``call_facts``."""
    counts: dict[str, sa.ColumnElement[int]] = {CALLS_COUNT: whole(sa.func.count())}
    counts |= {fact.count_name: total(facts.c[fact.name]) for fact in FACTS}
    for of in TOTALS:
        counts[of.name] = total(sa.case((facts.c[of.fact] == 1, facts.c[of.column]), else_=0))
    return counts


def with_ratios(
    grain: Sequence[str], counted: sa.FromClause, more: Mapping[str, sa.ColumnElement[Any]] | None = None
) -> sa.Select[Any]:
    """Return the rows of ``counted``, which has ``grain`` and ``COUNTS``, with the ratios and ``more``."""
    ratios = [ratio.of(dict(counted.c.items())).label(ratio.name) for ratio in RATIOS]
    named = [column.label(name) for name, column in (more or {}).items()]
    return sa.select(*(counted.c[name] for name in (*grain, *COUNTS)), *ratios, *named)


def _by(facts: sa.FromClause, grain: Mapping[str, sa.ColumnElement[Any]], *conditions: sa.ColumnElement[bool]) -> Any:
    keys = [column.label(name) for name, column in grain.items()]
    counts = [column.label(name) for name, column in counts_of(facts).items()]
    counted = sa.select(*keys, *counts).where(*conditions).group_by(*grain.values()).subquery("counted")
    return with_ratios(list(grain), counted)


def daily_metrics(relations: Relations) -> View:
    """Return the view with a row for each day that the ledger or a call has."""
    facts, completeness = relations["call_facts"], relations["completeness"]
    of_calls = sa.select(
        facts.c.call_date,
        sa.literal(1).label(CALLS_COUNT),
        *(facts.c[name] for name in (*_FLAGS, *_SECONDS)),
        sa.case((facts.c.inbound == 1, facts.c.customer_number_e164)).label("caller"),
    )
    # A day without calls is a row that counts nothing: without a join, a condition on the day reaches the calls.
    of_days = sa.select(
        completeness.c.call_date,
        sa.literal(0),
        *(sa.literal(0) for _ in _FLAGS),
        *(sa.cast(sa.null(), sa.Integer) for _ in _SECONDS),
        sa.cast(sa.null(), sa.String(32)),
    )
    rows = sa.union_all(of_calls, of_days).subquery("call_rows")
    counts = counts_of(rows) | {CALLS_COUNT: total(rows.c[CALLS_COUNT])}
    customers = whole(sa.func.count(sa.distinct(rows.c.caller)))
    counted = (
        sa.select(
            rows.c.call_date, *(column.label(name) for name, column in counts.items()), customers.label("customers")
        )
        .group_by(rows.c.call_date)
        .subquery("counted")
    )
    query = with_ratios(
        ["call_date"],
        counted,
        {
            "customers": counted.c.customers,
            "is_complete": is_so(completeness.c.is_complete.is_(sa.true())),
            "is_settled": is_so(completeness.c.is_settled.is_(sa.true())),
        },
    ).select_from(counted.outerjoin(completeness, completeness.c.call_date == counted.c.call_date))
    columns = {
        "call_date": "The local day.",
        **METRICS,
        "customers": "Different numbers (E.164) that called in.",
        "is_complete": "Whether the day is proven complete; false where the ledger does not have it.",
        "is_settled": "Whether it is complete, and will not be read again.",
    }
    return View("daily_metrics", "All metrics of each local day, also of one without calls.", query, columns)


def hourly_metrics(relations: Relations) -> View:
    """Return the view with a row for each local hour that has calls."""
    facts = relations["call_facts"]
    by_hour = _by(facts, {n: facts.c[n] for n in ("call_date", "call_hour")}).subquery("by_hour")
    query = sa.select(
        by_hour.c.call_date,
        by_hour.c.call_hour,
        weekday(by_hour.c.call_date).label("weekday"),
        *(by_hour.c[name] for name in METRICS),
    )
    columns = {
        "call_date": CALL_DATE,
        "call_hour": CALLS["call_hour"].description,
        "weekday": "Day of the week, 1 (Monday) to 7.",
        **METRICS,
    }
    return View("hourly_metrics", "All metrics of each local hour with calls.", query, columns)


def interval_metrics(relations: Relations) -> View:
    """Return the view with a row for each local quarter of an hour that has calls."""
    facts = relations["call_facts"]
    rows = sa.select(
        quarter_hour(facts.c.started_at_local).label("interval_start_local"),
        *(facts.c[name] for name in ("call_date", *_FLAGS, *_SECONDS)),
    ).subquery("call_rows")
    query = _by(rows, {n: rows.c[n] for n in ("interval_start_local", "call_date")})
    columns = {"interval_start_local": "Local time at which the 15 minutes begin.", "call_date": CALL_DATE, **METRICS}
    return View("interval_metrics", "All metrics of each 15 local minutes with calls.", query, columns)


def number_daily(relations: Relations) -> View:
    """Return the view with a row for each day and line of ours; calls whose line is not known have one with null."""
    facts = relations["call_facts"]
    query = _by(facts, {n: facts.c[n] for n in ("call_date", "stringee_number")})
    columns = {"call_date": CALL_DATE, "stringee_number": CALLS["stringee_number"].description, **METRICS}
    return View("number_daily", "All metrics of each local day and number of ours.", query, columns)


def campaign_daily(relations: Relations) -> View:
    """Return the view with a row for each day and campaign."""
    facts = relations["call_facts"]
    grain = {n: facts.c[n] for n in ("call_date", "campaign_name")}
    query = _by(facts, grain, facts.c.campaign_name.is_not(None))
    columns = {"call_date": CALL_DATE, "campaign_name": CALLS["campaign_name"].description, **METRICS}
    return View("campaign_daily", "All metrics of each local day and campaign.", query, columns)
