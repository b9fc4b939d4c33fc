"""Whether a read of a window is believed: what it would take away from what is published, and what it lacks itself.

A source in trouble gives answers that parse: a field under another name, a day that is nearly empty, another portal's
calls, a count that is wrong. Each read is judged before anything of it is published.

- *Held*: it would take most of what is there away. Nothing is published before somebody has looked at it.
- *Disputed*: it does not prove that it is all. What came is published, and no call is taken for gone.
- *Proven*: everything else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import datetime

from sinks.raw import Verdict
from sinks.spool import Spool
from sinks.window_changes import Losses
from transforms.schema import CALLS

FEWEST_LOST = 10
FEWEST_ROWS_COMPARABLE = 3
LARGEST_SHARE_LOST = 0.25
"""Of a window's or a day's calls: that many, and more than this share of them, do not go at once by themselves."""

_FIELD_NAME = re.compile(r"[a-z]\w*")
"""A word in a column's ``source``, which names one field or several."""

_HELD = "Held: nothing was changed."
_ACCEPT_VANISHED = (
    f"{_HELD} If they are really gone: callhistory backfill --accept-vanished with this day as --from and --to"
)

NEEDED_FIELDS = {column.source: column for column in CALLS.columns if column.needed}
"""Fields that every call needs, with their columns."""


@dataclass(frozen=True)
class DayLosses:
    """The calls of a local day: ``live`` now, and ``gone``, marked as vanished since the run began."""

    live: int = 0
    gone: int = 0


@dataclass(frozen=True)
class Beliefs:
    """What somebody has looked at and believes: that calls are gone, and that these fields are.

    ``missing_since`` is when needed fields were first found missing, by runs before.
    """

    vanished: bool = False
    missing_fields: frozenset[str] = frozenset()
    missing_since: Mapping[str, datetime] = dataclass_field(default_factory=dict)


@dataclass(frozen=True)
class RowsRead:
    """A window's rows as they came: how many, when, and what could be made of them.

    ``usable`` says in how many rows each needed field could be used, ``unread`` in how many calls any field says what
    cannot be read, ``rejected`` how many rows are no calls for want of a field; ``most_of_one_id`` is how many rows one
    id has. ``dispute`` is why rows and the API's count do not prove each other; null when they do.
    """

    rows: int
    usable: Mapping[str, int]
    unread: Mapping[str, int]
    rejected: Mapping[str, int]
    most_of_one_id: int
    read_at: datetime
    dispute: str | None = None

    @classmethod
    def of(cls, spool: Spool, read_at: datetime, dispute: str | None) -> RowsRead:
        """Return what a sealed spool holds."""
        return cls(
            spool.rows, spool.usable, spool.unread, spool.rejected_fields, spool.most_of_one_id, read_at, dispute
        )

    def since(self, field: str, beliefs: Beliefs) -> str:
        """Return in words since when a field is doubted."""
        return f"since {beliefs.missing_since.get(field, self.read_at):%Y-%m-%d %H:%M} UTC"

    def lacks(self, field: str, beliefs: Beliefs) -> str:
        """Return in words that a field can be used in few rows or in none, and since when that is so."""
        usable = self.usable.get(field, 0)
        which = f"in {usable} of {self.rows} rows" if usable else f"in none of {self.rows} rows"
        return f"the field {field}, which every call needs, can be used {which} ({self.since(field, beliefs)})"


@dataclass(frozen=True)
class Judgement:
    """How far a read is believed, and why not further.

    ``missing_fields`` could be used in no row, or would be lost by most calls, believed or not.
    """

    verdict: Verdict
    reason: str | None = None
    missing_fields: tuple[str, ...] = ()


def missing_fields(read: RowsRead) -> tuple[str, ...]:
    """Return the needed fields that could be used in no row of a read that has rows."""
    return tuple(field for field in NEEDED_FIELDS if read.rows and not read.usable.get(field))


def judge(read: RowsRead, losses: Losses, day: DayLosses, beliefs: Beliefs) -> Judgement:
    """Judge a read by what the warehouse would lose by it."""
    missing, unread = missing_fields(read), _unread_fields(read, losses)
    unbelieved = [field for field in missing if field not in beliefs.missing_fields]
    held = (
        _field_taken_away(read, losses, unbelieved, beliefs)
        or _field_not_understood(read, losses, unread, beliefs)
        or _calls_taken_away(losses, day, beliefs)
    )
    missing += tuple(unread)
    if held is not None:
        return Judgement(Verdict.HELD, held, missing)
    disputes = [
        *_never_usable(read, unbelieved, beliefs),
        *_rarely_calls(read, unbelieved),
        *_not_certain(losses),
        *([read.dispute] if read.dispute else []),
    ]
    if disputes:
        return Judgement(Verdict.DISPUTED, "; ".join(disputes), missing)
    return Judgement(Verdict.PROVEN, missing_fields=missing)


def _field_taken_away(read: RowsRead, losses: Losses, missing: Collection[str], beliefs: Beliefs) -> str | None:
    for field, column in NEEDED_FIELDS.items():
        if not losses.live or field in beliefs.missing_fields:
            continue
        emptied = losses.emptied.get(column.name, 0)
        if field in missing and (emptied or not column.may_be_unknown):
            return f"{read.lacks(field, beliefs)}; {losses.live} calls are here that had it. {_accept_field(field)}"
        if _is_mass(emptied, losses.live):
            return (
                f"{read.lacks(field, beliefs)}; {emptied} of the {losses.live} calls that are here would lose it. "
                f"{_accept_field(field)}"
            )
    return None


def _unread_fields(read: RowsRead, losses: Losses) -> dict[str, int]:
    """Return the fields that say in most rows what cannot be read, with how many calls would lose a value by that."""
    found = {}
    for column in CALLS.columns:
        emptied = losses.emptied.get(column.name, 0)
        fields = [
            field for field in _FIELD_NAME.findall(column.source) if _is_mass(read.unread.get(field, 0), read.rows)
        ]
        if fields and not column.needed and _is_mass(emptied, losses.live):
            found[fields[0]] = emptied
    return found


def _field_not_understood(read: RowsRead, losses: Losses, unread: Mapping[str, int], beliefs: Beliefs) -> str | None:
    for field, emptied in unread.items():
        if field not in beliefs.missing_fields:
            return (
                f"the field {field} says in {read.unread[field]} of {read.rows} rows what cannot be read "
                f"({read.since(field, beliefs)}); {emptied} of the {losses.live} calls that are here would lose it. "
                f"{_accept_field(field)}"
            )
    return None


def _calls_taken_away(losses: Losses, day: DayLosses, beliefs: Beliefs) -> str | None:
    if beliefs.vanished or losses.rows_without_id:
        return None
    if _is_mass(losses.vanishing, losses.live):
        return (
            f"{losses.vanishing} of the {losses.live} calls of this window are not served any more. {_ACCEPT_VANISHED}"
        )
    gone = losses.vanishing + day.gone
    if losses.vanishing and _is_mass(gone, day.live + day.gone):
        return f"{gone} of the {day.live + day.gone} calls of this day are not served any more. {_ACCEPT_VANISHED}"
    return None


def _accept_field(field: str) -> str:
    return f"{_HELD} If it is to stay so: callhistory drift accept {field}, then callhistory export"


def _never_usable(read: RowsRead, missing: Collection[str], beliefs: Beliefs) -> list[str]:
    """Return what a read lacks that has nothing to be compared with.

    A row or two may be odd by themselves, and some calls may well have no status.
    """
    return [
        read.lacks(field, beliefs)
        for field in missing
        if read.rows >= (FEWEST_LOST if NEEDED_FIELDS[field].may_be_unknown else FEWEST_ROWS_COMPARABLE)
    ]


def _rarely_calls(read: RowsRead, missing: Collection[str]) -> list[str]:
    """Return why so many rows are no calls that it is not for the rows; what is missing from all is said already."""
    found = [
        f"{count} of {read.rows} rows are no calls{f', for what stands in their field {field}' if field else ''} "
        "(callhistory rejects list)"
        for field, count in read.rejected.items()
        if field not in missing and _is_mass(count, read.rows)
    ]
    if _is_mass(read.most_of_one_id, read.rows):
        found.append(f"{read.most_of_one_id} of {read.rows} rows have the same id")
    return found


def _not_certain(losses: Losses) -> list[str]:
    found = []
    if losses.unreadable:
        found.append(
            f"{losses.unreadable} calls are kept as they were: they are served, but their rows are rejected now"
        )
    if losses.vanishing and losses.rows_without_id:
        found.append(
            f"{losses.vanishing} calls are kept that may be among {losses.rows_without_id} new rows without a usable id"
        )
    return found


def _is_mass(lost: int, of: int) -> bool:
    return lost >= FEWEST_LOST and lost > LARGEST_SHARE_LOST * of
