"""What has changed in the shape of the source's rows, and since when: from ``source_fields``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.export.doubts import NEEDED_FIELDS, Beliefs
from pipelines.windows import ONE_DAY, local_date
from sinks.state import State
from transforms.calls import KNOWN_FIELDS
from transforms.errors import SettingsError
from transforms.field_types import NULL
from transforms.json_text import JsonValue
from transforms.schema import SOURCE_FIELDS

_ACCEPTED, _MISSING = "accepted_fields", "missing_fields"
"""What is remembered: needed fields, with when their absence was accepted, and since when they are missing."""


class DriftKind(StrEnum):
    """How a field has changed."""

    NEW_FIELD = "new_field"
    """It is one that has no column, kept in ``extra``; or one that the first days did not have."""
    TYPE_CHANGED = "type_changed"
    """It has values of a JSON type that it did not have before; what cannot be read is kept in ``extra``."""
    DISAPPEARED = "disappeared"
    """No row of the newest closed day has it."""


@dataclass(frozen=True)
class Drift:
    """One change of one field: the JSON types that are new (or that it had), those before, and since which local day.

    ``rows`` counts the rows with these types; ``first_seen_at`` is when the first of them was read.
    """

    kind: DriftKind
    field: str
    json_types: tuple[str, ...]
    before: tuple[str, ...]
    since: date
    rows: int
    first_seen_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON can hold it."""
        return {
            "kind": self.kind.value,
            "field": self.field,
            "json_types": list(self.json_types),
            "before": list(self.before),
            "since": self.since.isoformat(),
            "rows": self.rows,
            "first_seen_at": self.first_seen_at.isoformat(),
        }


@dataclass(frozen=True)
class _Seen:
    """A field with values of one JSON type: on which days, in how many rows, and when that was read first."""

    json_type: str
    first: date
    last: date
    rows: int
    first_seen_at: datetime


def read_drift(stores: Stores, now: datetime) -> list[Drift]:
    """Return every change of the source's fields that the warehouse knows of, oldest first."""
    t = stores.warehouse.tables[SOURCE_FIELDS.name]
    of_types = sa.select(
        t.c.field,
        t.c.json_type,
        sa.func.min(t.c.call_date),
        sa.func.max(t.c.call_date),
        sa.func.sum(t.c.row_count),
        sa.func.min(t.c.first_seen_at),
    ).group_by(t.c.field, t.c.json_type)
    closed_days = sa.select(sa.func.max(t.c.call_date)).where(t.c.call_date < local_date(now, stores.timezone))
    fields: dict[str, list[_Seen]] = {}
    with stores.warehouse.reading() as connection:
        for field, json_type, first, last, rows, first_seen_at in connection.execute(of_types).tuples():
            fields.setdefault(field, []).append(_Seen(json_type, first, last, int(rows), first_seen_at))
        newest = connection.scalar(closed_days)
    first_day = min((seen.first for of_field in fields.values() for seen in of_field), default=date.max)
    found = [drift for field, seen in fields.items() for drift in _of_field(field, seen, first_day, newest)]
    return sorted(found, key=lambda drift: (drift.since, drift.field, drift.kind))


def new_drift(stores: Stores, now: datetime, began_at: datetime, days: Collection[date]) -> list[Drift]:
    """Return the changes that a run found, which began at ``began_at`` and exported ``days``."""
    return [
        drift
        for drift in read_drift(stores, now)
        if (drift.since in days if drift.kind is DriftKind.DISAPPEARED else drift.first_seen_at >= began_at)
    ]


def read_beliefs(state: State, *, accepts_vanished: bool = False) -> Beliefs:
    """Return what somebody has accepted of the source, and since when needed fields are missing."""
    missing_since = {field: datetime.fromisoformat(since) for field, since in _remembered(state, _MISSING).items()}
    return Beliefs(accepts_vanished, frozenset(_remembered(state, _ACCEPTED)), missing_since)


def accept_field(state: State, field: str, now: datetime) -> None:
    """Believe from now on that the source does not serve ``field``, until it does again.

    Of a field that no call needs, it believes that it says what cannot be read. Raises ``SettingsError`` for a field
    that has no column: what becomes of it is never doubted.
    """
    if field not in KNOWN_FIELDS | NEEDED_FIELDS.keys():
        raise SettingsError(
            f"{field[:60]!r} is no field that has a column. The line that told of a held window names its field: "
            "callhistory status shows it"
        )
    state.set(_ACCEPTED, {**_remembered(state, _ACCEPTED), field: now.isoformat()})


def note_missing_fields(state: State, beliefs: Beliefs, missing: Collection[str], now: datetime) -> None:
    """Keep since when needed fields are missing, of a run that began with ``beliefs`` and read rows.

    A needed field that is back is forgotten, and doubted again when it goes. Another one stays accepted: whether it
    can be read again does not show in a day in which it never could.
    """
    since: dict[str, JsonValue] = {f: beliefs.missing_since.get(f, now).isoformat() for f in missing}
    if since.keys() != beliefs.missing_since.keys():
        state.set(_MISSING, since)
    back = {field for field in beliefs.missing_fields if field in NEEDED_FIELDS and field not in missing}
    if back:
        accepted = _remembered(state, _ACCEPTED)
        state.set(_ACCEPTED, {field: at for field, at in accepted.items() if field not in back})


def _remembered(state: State, name: str) -> dict[str, str]:
    remembered = state.get(name)
    return {k: v for k, v in remembered.items() if isinstance(v, str)} if isinstance(remembered, dict) else {}


def _of_field(field: str, seen: list[_Seen], first_day: date, newest: date | None) -> list[Drift]:
    found = []
    first, last = min(s.first for s in seen), max(s.last for s in seen)
    valued = sorted((s for s in seen if s.json_type != NULL), key=lambda s: (s.first, s.json_type)) or seen
    original = [s for s in valued if s.first == valued[0].first]
    if field not in KNOWN_FIELDS or first > first_day:
        found.append(_drift(DriftKind.NEW_FIELD, field, original, [], first))
    for later in valued[len(original) :]:
        before = [s for s in valued if s.first < later.first]
        found.append(_drift(DriftKind.TYPE_CHANGED, field, [later], before, later.first))
    if newest is not None and last < newest:
        found.append(_drift(DriftKind.DISAPPEARED, field, valued, [], last + ONE_DAY))
    return found


def _drift(kind: DriftKind, field: str, seen: list[_Seen], before: list[_Seen], since: date) -> Drift:
    return Drift(
        kind,
        field,
        tuple(s.json_type for s in seen),
        tuple(s.json_type for s in before),
        since,
        sum(s.rows for s in seen),
        min(s.first_seen_at for s in seen),
    )
