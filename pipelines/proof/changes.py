"""What became different, late or gone since an instant: why yesterday's number is another one today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from itertools import groupby, pairwise
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores
from transforms.schema import CALL_VERSIONS, CALLS, LATE_CHANGES

COMPARED = (*CALLS.hashed_columns, "deleted_at")
"""The columns in which two states of a call can differ."""

_ROWS_PER_FETCH = 2_000


class ChangeKind(StrEnum):
    """What became of a call."""

    DIFFERENT = "different"
    LATE = "late"
    """It came after its day had been read to the end."""
    GONE = "gone"
    BACK = "back"
    """It had been gone."""


@dataclass(frozen=True)
class CallChange:
    """One change of one call: when it was read, and which columns have another value than before."""

    call_id: str
    call_date: date
    kind: ChangeKind
    changed_at: datetime
    fields: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the change as JSON can hold it; it holds no value of a call but its id and its day."""
        return {
            "call_id": self.call_id,
            "call_date": self.call_date.isoformat(),
            "kind": self.kind.value,
            "changed_at": self.changed_at.isoformat(),
            "fields": list(self.fields),
        }


def changed_columns(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns in which two states of a call differ."""
    return tuple(name for name in COMPARED if old[name] != new[name])


def changes_since(stores: Stores, since: datetime) -> Iterator[CallChange]:
    """Yield each change that was read at ``since`` or later: first those of calls that were there, then the late ones.

    A call that changed twice is there twice. Memory is bounded by a batch.
    """
    yield from _of_known_calls(stores, since)
    yield from _late(stores, since)


def counted_by_day(changes: list[CallChange]) -> dict[date, Counter[ChangeKind]]:
    """Return how many changes of each kind each local day has, the newest day first."""
    found: dict[date, Counter[ChangeKind]] = {}
    for change in changes:
        found.setdefault(change.call_date, Counter())[change.kind] += 1
    return dict(sorted(found.items(), reverse=True))


def counted_by_field(changes: list[CallChange]) -> Counter[str]:
    """Return in how many changes each column got another value."""
    return Counter(name for change in changes if change.kind is ChangeKind.DIFFERENT for name in change.fields)


def _of_known_calls(stores: Stores, since: datetime) -> Iterator[CallChange]:
    v, c = (stores.warehouse.tables[table.name] for table in (CALL_VERSIONS, CALLS))
    query = (
        sa.select(
            *(v.c[name].label(f"was_{name}") for name in COMPARED),
            v.c.superseded_at,
            *(c.c[name].label(f"is_{name}") for name in COMPARED),
        )
        .join(c, c.c.call_id == v.c.call_id)
        .where(v.c.superseded_at >= since)
        .order_by(v.c.call_id, v.c.superseded_at)
    )
    with (
        stores.warehouse.reading() as connection,
        connection.execute(query, execution_options={"yield_per": _ROWS_PER_FETCH}) as result,
    ):
        for call_id, group in groupby(result.mappings(), key=lambda row: str(row["was_call_id"])):
            rows = list(group)
            states = [_state(row, "was_") for row in rows] + [_state(rows[-1], "is_")]
            for (old, new), row in zip(pairwise(states), rows, strict=True):
                fields = changed_columns(old, new)
                yield CallChange(call_id, new["call_date"], _kind(old, new), row["superseded_at"], fields)


def _state(row: Mapping[Any, Any], prefix: str) -> dict[str, Any]:
    return {name: row[f"{prefix}{name}"] for name in COMPARED}


def _kind(old: Mapping[str, Any], new: Mapping[str, Any]) -> ChangeKind:
    if new["deleted_at"] is not None and old["deleted_at"] is None:
        return ChangeKind.GONE
    return ChangeKind.BACK if new["deleted_at"] is None and old["deleted_at"] is not None else ChangeKind.DIFFERENT


def _late(stores: Stores, since: datetime) -> Iterator[CallChange]:
    c, late = (stores.warehouse.tables[table.name] for table in (CALLS, LATE_CHANGES))
    # What a re-read of a closed window finds new is stamped with the same instant in both tables.
    came_late = sa.exists().where(
        late.c.call_date == c.c.call_date, late.c.found_at == c.c.first_seen_at, late.c.inserted > 0
    )
    query = (
        sa.select(c.c.call_id, c.c.call_date, c.c.first_seen_at)
        .where(c.c.first_seen_at >= since, came_late)
        .order_by(c.c.call_id)
    )
    with (
        stores.warehouse.reading() as connection,
        connection.execute(query, execution_options={"yield_per": _ROWS_PER_FETCH}) as result,
    ):
        for row in result.mappings():
            yield CallChange(row["call_id"], row["call_date"], ChangeKind.LATE, row["first_seen_at"])
