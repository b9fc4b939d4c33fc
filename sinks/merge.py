"""One window into the warehouse: stage its rows, then replace what is inside the window, within one transaction.

The staged rows are compared with the warehouse's by ``row_hash`` once, into a table of differences; every later
statement follows that table. So a row that has not changed is read and never written, which is why doing a window
again is lossless and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType

import pyarrow as pa
import sqlalchemy as sa

from sinks.backend import COLLIDED, MISFIT
from sinks.readback import recomputed_hashes
from sinks.staged_tables import (
    DIFFERENCES,
    INSERTED,
    RESTORED,
    STAGED_COLUMNS,
    TIMES_COLUMNS,
    UPDATED,
    VANISHED,
    temporary_tables,
)
from sinks.warehouse import Warehouse
from sinks.window_rows import WindowCounts, window_counts
from transforms.columns import Column
from transforms.errors import DataError
from transforms.rejects import RejectReason
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, REJECTED_ROWS, Table


@dataclass(frozen=True)
class Changes:
    """What ``StagedWindow.replace`` did, in calls and rejected rows.

    ``left`` holds instants of other windows whose certificate does not hold any more: a call of theirs starts in this
    window now, or they have set a row aside for a call that is gone here. ``to_confirm`` holds the starts, in other
    windows, of calls of which this window has begun to serve an earlier row: they may have left there.
    """

    inserted: int
    updated: int
    restored: int
    vanished: int
    unchanged: int
    rejects_added: int
    rejects_removed: int
    left: tuple[datetime, ...] = ()
    to_confirm: tuple[datetime, ...] = ()

    def __add__(self, later: Changes) -> Changes:
        """Return what both did, one after the other; ``unchanged`` is the later one's."""
        summed = ("inserted", "updated", "restored", "vanished", "rejects_added", "rejects_removed")
        sums = {name: getattr(self, name) + getattr(later, name) for name in summed}
        return replace(later, **sums)

    @property
    def calls_changed(self) -> int:
        """How many calls are not as they were before."""
        return self.inserted + self.updated + self.restored + self.vanished


@dataclass(frozen=True)
class Losses:
    """What the warehouse would lose of a window by what was staged.

    ``live`` calls are in the window now, of which ``vanishing`` were not staged. ``unreadable`` ones were not staged
    either, but a rejected row has their id: they are still served. ``emptied`` says, by column, in how many calls a
    value would become null or unknown. ``rows_without_id`` counts staged rejects that could be any call of the window.
    """

    live: int
    vanishing: int
    unreadable: int
    rows_without_id: int
    emptied: Mapping[str, int]


class StagedWindow:
    """The rows of one window in temporary tables, which nobody else sees; a context inside of a transaction.

    ``add`` all rows, ``compare`` them with the warehouse's, then ``replace`` those.
    """

    def __init__(self, warehouse: Warehouse, connection: sa.Connection) -> None:
        self._warehouse = warehouse
        self._backend = warehouse.backend
        self._connection = connection
        self._staged, self._differences = temporary_tables()
        self._temporary = (*self._staged.values(), self._differences)

    def __enter__(self) -> StagedWindow:
        for table in self._temporary:
            self._backend.drop_leftover(self._connection, table)
            self._backend.create_table(self._connection, table)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error the connection may be unusable; rolling back, or the next window on it, clears up.
        if kind is None:
            for table in self._temporary:
                self._backend.drop_temporary(self._connection, table)

    def add(self, table: Table, batch: pa.Table) -> None:
        """Stage ``batch``, which has the columns ``STAGED_COLUMNS[table.name]``, in any order.

        May be called many times. Raises ``DataError`` for a column that is missing or of another type, a key that was
        staged before, or a value that the table cannot hold.
        """
        names = list(STAGED_COLUMNS[table.name])
        schema = pa.schema([table.arrow_schema.field(name) for name in names])
        try:
            batch = batch.select(names).cast(schema)
        except (KeyError, ValueError, pa.ArrowInvalid) as error:
            raise DataError(f"a batch for table {table.name} does not have that table's columns") from error
        if batch.num_rows:
            try:
                self._backend.load(self._connection, self._staged[table.name], batch)
            except (sa.exc.DBAPIError, self._backend.driver_error) as error:
                if self._backend.failure(getattr(error, "orig", error)) not in (COLLIDED, MISFIT):
                    raise
                raise DataError(f"table {table.name}: a row comes twice, lacks a value, or has one too long") from error

    def times(self, first_start: datetime, last_start: datetime) -> pa.Table:
        """Return ``TIMES_COLUMNS`` of the calls, not deleted, that start in the closed interval; after ``replace``."""
        calls = self._warehouse.tables[CALLS.name]
        query = sa.select(*(calls.c[name] for name in TIMES_COLUMNS)).where(
            calls.c.started_at >= first_start, calls.c.started_at <= last_start, calls.c.deleted_at.is_(None)
        )
        schema = pa.schema([CALLS.arrow_schema.field(name) for name in TIMES_COLUMNS])
        columns = list(zip(*self._connection.execute(query).tuples(), strict=True)) or [()] * len(schema)
        return pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)

    def counts(self, window_start: datetime, window_end: datetime) -> WindowCounts:
        """Return what the warehouse holds of the window; after ``replace``, what it is about to hold."""
        return window_counts(self._connection, self._warehouse.tables[CALLS.name], window_start, window_end)

    def check_written(self) -> None:
        """Read the calls back that ``replace`` has written: the hash beside their values proves nothing.

        Raises ``DataError`` when one is not what was written.
        """
        kind = self._differences.c.kind
        written = recomputed_hashes(self._connection, self._warehouse, self._differences, kind != VANISHED)
        altered = sum(stored != recomputed for stored, recomputed in written)
        if altered:
            raise DataError(
                f"the {self._backend.label} does not hold what was written to it, in {altered} calls: "
                "look for a trigger or a rule on its tables that changes values"
            )

    def clear(self) -> None:
        """Forget what was staged."""
        for table in self._staged.values():
            self._connection.execute(sa.delete(table))

    def ids_that_start_later(self, window_end: datetime) -> list[str]:
        """Return the staged ids whose call starts after the window, in the warehouse: there it has its later row."""
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        query = (
            sa.select(staged.c.call_id)
            .join(calls, calls.c.call_id == staged.c.call_id)
            .where(calls.c.started_at >= window_end, calls.c.deleted_at.is_(None))
        )
        return list(self._connection.execute(query).scalars())

    def compare(self, window_start: datetime, window_end: datetime, certified_at: datetime | None = None) -> Losses:
        """Find out how the staged window differs from the warehouse's, and return what that one would lose.

        ``certified_at`` is when the window was last proven complete. Nothing is changed; ``replace`` follows what is
        found here.
        """
        for table in self._staged.values():
            self._backend.loaded(self._connection, table)
        calls, rejects = self._warehouse.tables[CALLS.name], self._staged[REJECTED_ROWS.name]
        self._window = (window_start, window_end)
        self._find_differences(*self._window)
        in_window = (calls.c.started_at >= window_start, calls.c.started_at < window_end, calls.c.deleted_at.is_(None))
        not_staged = self._count(self._differences, self._differences.c.kind == VANISHED)
        if not_staged:
            is_rejected = sa.exists().where(rejects.c.call_id == self._differences.c.call_id)
            self._drop_differences(is_rejected.correlate(self._differences))
        vanishing = self._count(self._differences, self._differences.c.kind == VANISHED) if not_staged else 0
        return Losses(
            live=self._count(calls, *in_window),
            vanishing=vanishing,
            unreadable=not_staged - vanishing,
            rows_without_id=self._rows_without_id(certified_at),
            emptied=self._emptied(),
        )

    def replace(self, now: datetime, *, believes_gone: bool = True) -> Changes:
        """Make the window in the warehouse what was staged and compared, as of ``now``.

        A new call is inserted; one whose ``row_hash`` differs, or that was deleted, is overwritten after its old row
        went to ``call_versions``; one that is in the window and was not staged is marked deleted likewise. An equal
        one is not touched. Participants follow their call. Rejected rows of the window become the staged ones.

        Without ``believes_gone`` no call is marked deleted, and no rejected row is removed.
        """
        window_start, window_end = self._window
        if not believes_gone:
            self._drop_differences()
        staged_calls = self._count(self._staged[CALLS.name])
        found = dict(self._connection.execute(self._kinds()).tuples().all())
        written = sum(found.get(kind, 0) for kind in (INSERTED, UPDATED, RESTORED))
        left = self._moved(window_start, window_end) if found.get(UPDATED) else ()
        if found.keys() - {INSERTED}:
            self._keep_versions(now)
        if found.get(UPDATED) or found.get(RESTORED):
            self._update_calls(window_start, now)
        if found.get(VANISHED):
            self._mark_vanished(now)
            left += self._set_aside_for_vanished(window_start, window_end)
        if found.get(INSERTED):
            self._insert_calls(window_start, now)
        if written:
            self._replace_participants()
        to_confirm = self._newly_set_aside(window_start, window_end)
        rejects_added, rejects_removed = self._replace_rejects(window_start, window_end, now, believes_gone)
        return Changes(
            inserted=found.get(INSERTED, 0),
            updated=found.get(UPDATED, 0),
            restored=found.get(RESTORED, 0),
            vanished=found.get(VANISHED, 0),
            unchanged=staged_calls - written,
            rejects_added=rejects_added,
            rejects_removed=rejects_removed,
            left=left,
            to_confirm=to_confirm,
        )

    def _count(self, source: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> int:
        return self._connection.execute(sa.select(sa.func.count()).select_from(source).where(*conditions)).scalar_one()

    def _find_differences(self, window_start: datetime, window_end: datetime) -> None:
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        same_call = staged.c.call_id == calls.c.call_id
        kind = sa.case(
            (calls.c.call_id.is_(None), INSERTED), (calls.c.deleted_at.is_not(None), RESTORED), else_=UPDATED
        )
        self._fill_differences(
            sa.select(staged.c.call_id, kind, calls.c.started_at)
            .select_from(staged.outerjoin(calls, same_call))
            .where(
                calls.c.call_id.is_(None) | calls.c.deleted_at.is_not(None) | (calls.c.row_hash != staged.c.row_hash)
            )
        )
        self._fill_differences(
            sa.select(calls.c.call_id, sa.literal(VANISHED), calls.c.started_at)
            .select_from(calls.outerjoin(staged, same_call))
            .where(
                calls.c.started_at >= window_start,
                calls.c.started_at < window_end,
                calls.c.deleted_at.is_(None),
                staged.c.call_id.is_(None),
            )
        )
        self._backend.loaded(self._connection, self._differences)

    def _fill_differences(self, found: sa.Select[tuple[object, ...]]) -> None:
        self._connection.execute(sa.insert(self._differences).from_select(list(DIFFERENCES.column_names), found))

    def _kinds(self) -> sa.Select[tuple[str, int]]:
        kind = self._differences.c.kind
        return sa.select(kind, sa.func.count()).group_by(kind)

    def _moved(self, window_start: datetime, window_end: datetime) -> tuple[datetime, ...]:
        previous = self._differences.c.previous_started_at
        query = (
            sa.select(previous)
            .distinct()
            .where(self._differences.c.kind == UPDATED, (previous < window_start) | (previous >= window_end))
            .order_by(previous)
        )
        return tuple(self._connection.execute(query).scalars())

    def _drop_differences(self, *conditions: sa.ColumnElement[bool]) -> None:
        """Forget the calls that would vanish and meet ``conditions``: they stay as they are."""
        differences = self._differences
        self._connection.execute(sa.delete(differences).where(differences.c.kind == VANISHED, *conditions))

    def _rows_without_id(self, certified_at: datetime | None) -> int:
        """Count the staged rejects that could be any call: not those that a proven read had beside all of its calls."""
        rejects, staged = self._warehouse.tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        known = sa.exists().where(
            rejects.c.window_start == staged.c.window_start,
            rejects.c.reject_id == staged.c.reject_id,
            rejects.c.first_seen_at <= sa.literal(certified_at, rejects.c.first_seen_at.type),
        )
        return self._count(staged, staged.c.call_id.is_(None), ~known.correlate(staged))

    def _emptied(self) -> dict[str, int]:
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        columns = [CALLS[name] for name in CALLS.source_columns if CALLS[name].may_be_unknown]
        emptied = [
            sa.func.coalesce(sa.func.sum(sa.case((_says(calls, c) & ~_says(staged, c), 1), else_=0)), 0)
            for c in columns
        ]
        query = (
            sa.select(*emptied)
            .select_from(self._differences)
            .join(calls, calls.c.call_id == self._differences.c.call_id)
            .join(staged, staged.c.call_id == self._differences.c.call_id)
            .where(self._differences.c.kind == UPDATED)
        )
        counts = self._connection.execute(query).one()
        return {column.name: int(count) for column, count in zip(columns, counts, strict=True)}

    def _set_aside_for_vanished(self, window_start: datetime, window_end: datetime) -> tuple[datetime, ...]:
        """Return the other windows that have set a row aside, because its call was here, where it is not any more."""
        rejects = self._warehouse.tables[REJECTED_ROWS.name]
        query = (
            sa.select(rejects.c.window_start)
            .distinct()
            .join(self._differences, self._differences.c.call_id == rejects.c.call_id)
            .where(
                self._differences.c.kind == VANISHED,
                rejects.c.reason == RejectReason.DUPLICATE_ID.value,
                (rejects.c.window_start < window_start) | (rejects.c.window_start >= window_end),
            )
        )
        return tuple(self._connection.execute(query).scalars())

    def _newly_set_aside(self, window_start: datetime, window_end: datetime) -> tuple[datetime, ...]:
        """Return the starts, in other windows, of the calls of which a row is set aside here for the first time."""
        calls = self._warehouse.tables[CALLS.name]
        rejects, staged = self._warehouse.tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        known = sa.exists().where(
            rejects.c.window_start == staged.c.window_start, rejects.c.reject_id == staged.c.reject_id
        )
        query = (
            sa.select(calls.c.started_at)
            .distinct()
            .join(staged, staged.c.call_id == calls.c.call_id)
            .where(
                staged.c.reason == RejectReason.DUPLICATE_ID.value,
                (calls.c.started_at < window_start) | (calls.c.started_at >= window_end),
                calls.c.deleted_at.is_(None),
                ~known,
            )
        )
        return tuple(self._connection.execute(query).scalars())

    def _keep_versions(self, now: datetime) -> None:
        calls, versions = self._warehouse.tables[CALLS.name], self._warehouse.tables[CALL_VERSIONS.name]
        old_rows = (
            sa.select(*(calls.c[name] for name in CALLS.column_names), sa.literal(now, versions.c.superseded_at.type))
            .join(self._differences, self._differences.c.call_id == calls.c.call_id)
            .where(self._differences.c.kind != INSERTED)
        )
        self._connection.execute(sa.insert(versions).from_select([*CALLS.column_names, "superseded_at"], old_rows))

    def _update_calls(self, window_start: datetime, now: datetime) -> None:
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        values: dict[str, object] = {name: staged.c[name] for name in STAGED_COLUMNS[CALLS.name] if name != "call_id"}
        values |= {"window_start": window_start, "updated_at": now, "deleted_at": None}
        self._connection.execute(
            sa.update(calls)
            .values(values)
            .where(
                calls.c.call_id == staged.c.call_id,
                staged.c.call_id == self._differences.c.call_id,
                self._differences.c.kind.in_((UPDATED, RESTORED)),
            )
        )

    def _mark_vanished(self, now: datetime) -> None:
        calls = self._warehouse.tables[CALLS.name]
        self._connection.execute(
            sa.update(calls)
            .values(updated_at=now, deleted_at=now)
            .where(calls.c.call_id == self._differences.c.call_id, self._differences.c.kind == VANISHED)
        )

    def _insert_calls(self, window_start: datetime, now: datetime) -> None:
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        names = STAGED_COLUMNS[CALLS.name]
        instants = {"window_start": window_start, "first_seen_at": now, "updated_at": now}
        new_rows = (
            sa.select(
                *(staged.c[name] for name in names), *(sa.literal(v, calls.c[n].type) for n, v in instants.items())
            )
            .join(self._differences, self._differences.c.call_id == staged.c.call_id)
            .where(self._differences.c.kind == INSERTED)
        )
        self._connection.execute(sa.insert(calls).from_select([*names, *instants], new_rows))

    def _replace_participants(self) -> None:
        participants = self._warehouse.tables[CALL_PARTICIPANTS.name]
        staged = self._staged[CALL_PARTICIPANTS.name]
        self._connection.execute(
            self._backend.delete_matching(
                participants,
                participants.c.call_id == self._differences.c.call_id,
                self._differences.c.kind.in_((UPDATED, RESTORED)),
            )
        )
        new_rows = (
            sa.select(*staged.c)
            .join(self._differences, self._differences.c.call_id == staged.c.call_id)
            .where(self._differences.c.kind != VANISHED)
        )
        self._connection.execute(sa.insert(participants).from_select([column.name for column in staged.c], new_rows))

    def _replace_rejects(
        self, window_start: datetime, window_end: datetime, now: datetime, believes_gone: bool
    ) -> tuple[int, int]:
        rejects, staged = self._warehouse.tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        same_row = (rejects.c.window_start == staged.c.window_start) & (rejects.c.reject_id == staged.c.reject_id)
        # All starts inside the window: with another CALLHISTORY_WINDOW, the row may stand under another start.
        gone = (
            rejects.c.window_start >= window_start,
            rejects.c.window_start < window_end,
            ~sa.exists().where(same_row).correlate(rejects),
        )
        removed = self._count(rejects, *gone) if believes_gone else 0
        if removed:
            self._connection.execute(sa.delete(rejects).where(*gone))
        joined = staged.outerjoin(rejects, same_row)
        added = self._count(joined, rejects.c.reject_id.is_(None))
        if added:
            new_rows = (
                sa.select(*staged.c, sa.literal(now, rejects.c.first_seen_at.type))
                .select_from(joined)
                .where(rejects.c.reject_id.is_(None))
            )
            names = [*(column.name for column in staged.c), "first_seen_at"]
            self._connection.execute(sa.insert(rejects).from_select(names, new_rows))
        return added, removed


def _says(table: sa.FromClause, column: Column) -> sa.ColumnElement[bool]:
    value = table.c[column.name]
    return value.is_not(None) if column.unknown is None else value != column.unknown
