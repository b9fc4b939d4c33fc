"""The quarantine: what lies there, why, and from which windows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores
from transforms.schema import REJECTED_ROWS


@dataclass(frozen=True)
class RejectGroup:
    """The rejected rows of one window that have the same reason; ``payloads`` only where they were asked for."""

    call_date: date
    window_start: datetime
    reason: str
    field: str | None
    rows: int
    first_seen_at: datetime
    payloads: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the group as JSON can hold it."""
        shown = {"payloads": list(self.payloads)} if self.payloads else {}
        return {
            "call_date": self.call_date.isoformat(),
            "window_start": self.window_start.isoformat(),
            "reason": self.reason,
            "field": self.field,
            "rows": self.rows,
            "first_seen_at": self.first_seen_at.isoformat(),
        } | shown


def list_rejects(
    stores: Stores, first: date | None = None, last: date | None = None, *, with_payloads: int = 0
) -> list[RejectGroup]:
    """Return the quarantine of the local days from ``first`` to ``last``, by window, reason and field.

    ``with_payloads`` adds up to so many payloads to each group; they are customers' data.
    """
    t = stores.warehouse.tables[REJECTED_ROWS.name]
    key = (t.c.call_date, t.c.window_start, t.c.reason, t.c.field)
    query = (
        sa.select(*key, sa.func.count(), sa.func.min(t.c.first_seen_at))
        .where(*_between(t, first, last))
        .group_by(*key)
        .order_by(t.c.window_start, t.c.reason)
    )
    groups = []
    with stores.warehouse.reading() as connection:
        for call_date, window_start, reason, field, rows, first_seen_at in connection.execute(query).all():
            payloads: tuple[str, ...] = ()
            if with_payloads:
                same = (t.c.window_start == window_start, t.c.reason == reason)
                in_group = sa.select(t.c.payload).where(*same).order_by(t.c.reject_id).limit(with_payloads)
                payloads = tuple(connection.execute(in_group).scalars())
            groups.append(RejectGroup(call_date, window_start, reason, field, rows, first_seen_at, payloads))
    return groups


def count_rejects(stores: Stores, first: date | None = None, last: date | None = None) -> int:
    """Return how many rows lie in the quarantine of these days."""
    t = stores.warehouse.tables[REJECTED_ROWS.name]
    with stores.warehouse.reading() as connection:
        query = sa.select(sa.func.count()).select_from(t).where(*_between(t, first, last))
        return connection.execute(query).scalar_one()


def _between(t: sa.Table, first: date | None, last: date | None) -> list[sa.ColumnElement[bool]]:
    conditions = []
    if first is not None:
        conditions.append(t.c.call_date >= first)
    if last is not None:
        conditions.append(t.c.call_date <= last)
    return conditions
