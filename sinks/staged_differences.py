"""How the rows that are staged for a window differ from those that the warehouse holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import sqlalchemy as sa

from sinks.staged_tables import DIFFERENCES, INSERTED, RESTORED, UPDATED, VANISHED
from sinks.warehouse import Warehouse
from sinks.window_changes import Losses
from sinks.window_rows import row_count
from transforms.columns import Column
from transforms.rejects import RejectReason
from transforms.schema import CALLS, REJECTED_ROWS


class StagedDifferences:
    """The calls that a staged window adds, changes or no longer has: ``find`` fills the temporary ``table``."""

    def __init__(
        self,
        warehouse: Warehouse,
        connection: sa.Connection,
        staged: Mapping[str, sa.Table],
        table: sa.Table,
        window: tuple[datetime, datetime],
        *,
        has_rejects: bool,
    ) -> None:
        self._table = table
        self._backend, self._tables = warehouse.backend, warehouse.tables
        self._connection, self._staged = connection, staged
        self._start, self._end = window
        self._has_rejects = has_rejects

    def find(self) -> None:
        """Compare the staged calls with the warehouse's, and fill the table."""
        calls, staged = self._tables[CALLS.name], self._staged[CALLS.name]
        same_call = staged.c.call_id == calls.c.call_id
        kind = sa.case(
            (calls.c.call_id.is_(None), INSERTED), (calls.c.deleted_at.is_not(None), RESTORED), else_=UPDATED
        )
        self._fill(
            sa.select(staged.c.call_id, kind, calls.c.started_at)
            .select_from(staged.outerjoin(calls, same_call))
            .where(
                calls.c.call_id.is_(None) | calls.c.deleted_at.is_not(None) | (calls.c.row_hash != staged.c.row_hash)
            )
        )
        self._fill(
            sa.select(calls.c.call_id, sa.literal(VANISHED), calls.c.started_at)
            .select_from(calls.outerjoin(staged, same_call))
            .where(
                calls.c.started_at >= self._start,
                calls.c.started_at < self._end,
                calls.c.deleted_at.is_(None),
                staged.c.call_id.is_(None),
            )
        )
        self._backend.loaded(self._connection, self._table)

    def losses(self, certified_at: datetime | None) -> Losses:
        """Return what the warehouse would lose; a call that is served, but rejected, is forgotten as a difference."""
        calls, rejects = self._tables[CALLS.name], self._staged[REJECTED_ROWS.name]
        found = self.kinds()
        in_window = (calls.c.started_at >= self._start, calls.c.started_at < self._end, calls.c.deleted_at.is_(None))
        not_staged = found.get(VANISHED, 0)
        if not_staged:
            is_rejected = sa.exists().where(rejects.c.call_id == self._table.c.call_id)
            self.forget_vanished(is_rejected.correlate(self._table))
        vanishing = row_count(self._connection, self._table, self._table.c.kind == VANISHED) if not_staged else 0
        return Losses(
            live=row_count(self._connection, calls, *in_window),
            vanishing=vanishing,
            unreadable=not_staged - vanishing,
            rows_without_id=self._rows_without_id(certified_at) if self._has_rejects else 0,
            emptied=self._emptied() if found.get(UPDATED) else {},
        )

    def _fill(self, found: sa.Select[tuple[object, ...]]) -> None:
        self._connection.execute(sa.insert(self._table).from_select(list(DIFFERENCES.column_names), found))

    def kinds(self) -> dict[str, int]:
        """Return how many calls differ in each way."""
        kind = self._table.c.kind
        return dict(self._connection.execute(sa.select(kind, sa.func.count()).group_by(kind)).tuples().all())

    def windows_left(self) -> tuple[datetime, ...]:
        """Return where calls that are in this window now were before, in other windows."""
        previous = self._table.c.previous_started_at
        query = (
            sa.select(previous)
            .distinct()
            .where(self._table.c.kind == UPDATED, (previous < self._start) | (previous >= self._end))
            .order_by(previous)
        )
        return tuple(self._connection.execute(query).scalars())

    def forget_vanished(self, *conditions: sa.ColumnElement[bool]) -> None:
        """Forget the calls that would vanish and meet ``conditions``: they stay as they are."""
        self._connection.execute(sa.delete(self._table).where(self._table.c.kind == VANISHED, *conditions))

    def _rows_without_id(self, certified_at: datetime | None) -> int:
        """Count the staged rejects that could be any call: not those that a proven read had beside all of its calls."""
        rejects, staged = self._tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        known = sa.exists().where(
            rejects.c.window_start == staged.c.window_start,
            rejects.c.reject_id == staged.c.reject_id,
            rejects.c.first_seen_at <= sa.literal(certified_at, rejects.c.first_seen_at.type),
        )
        return row_count(self._connection, staged, staged.c.call_id.is_(None), ~known.correlate(staged))

    def _emptied(self) -> dict[str, int]:
        calls, staged = self._tables[CALLS.name], self._staged[CALLS.name]
        columns = [CALLS[name] for name in CALLS.hashed_columns if CALLS[name].may_be_unknown]
        emptied = [
            sa.func.coalesce(sa.func.sum(sa.case((_says(calls, c) & ~_says(staged, c), 1), else_=0)), 0)
            for c in columns
        ]
        query = (
            sa.select(*emptied)
            .select_from(self._table)
            .join(calls, calls.c.call_id == self._table.c.call_id)
            .join(staged, staged.c.call_id == self._table.c.call_id)
            .where(self._table.c.kind == UPDATED)
        )
        counts = self._connection.execute(query).one()
        return {column.name: int(count) for column, count in zip(columns, counts, strict=True) if count}

    def windows_that_set_aside_what_vanished(self) -> tuple[datetime, ...]:
        """Return the other windows that have set a row aside, because its call was here, where it is not any more."""
        rejects = self._tables[REJECTED_ROWS.name]
        query = (
            sa.select(rejects.c.window_start)
            .distinct()
            .join(self._table, self._table.c.call_id == rejects.c.call_id)
            .where(
                self._table.c.kind == VANISHED,
                rejects.c.reason == RejectReason.DUPLICATE_ID.value,
                (rejects.c.window_start < self._start) | (rejects.c.window_start >= self._end),
            )
        )
        return tuple(self._connection.execute(query).scalars())

    def starts_newly_set_aside(self) -> tuple[datetime, ...]:
        """Return the starts, in other windows, of the calls of which a row is set aside here for the first time."""
        if not self._has_rejects:
            return ()
        calls = self._tables[CALLS.name]
        rejects, staged = self._tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        known = sa.exists().where(
            rejects.c.window_start == staged.c.window_start, rejects.c.reject_id == staged.c.reject_id
        )
        query = (
            sa.select(calls.c.started_at)
            .distinct()
            .join(staged, staged.c.call_id == calls.c.call_id)
            .where(
                staged.c.reason == RejectReason.DUPLICATE_ID.value,
                (calls.c.started_at < self._start) | (calls.c.started_at >= self._end),
                calls.c.deleted_at.is_(None),
                ~known,
            )
        )
        return tuple(self._connection.execute(query).scalars())


def _says(table: sa.FromClause, column: Column) -> sa.ColumnElement[bool]:
    value = table.c[column.name]
    return value.is_not(None) if column.unknown is None else value != column.unknown
