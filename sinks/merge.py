"""One window into the warehouse: stage its rows, then replace what is inside the window, within one transaction.

The staged rows are compared with the warehouse's by ``row_hash`` once, into a table of differences; every later
statement follows that table. So a row that has not changed is read and never written, which is why doing a window
again is lossless and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from types import TracebackType

import pyarrow as pa
import sqlalchemy as sa

from sinks.backend import COLLIDED, MISFIT
from sinks.bookkeeping import TIMES
from sinks.certificate import content_hash
from sinks.warehouse import Warehouse
from transforms.errors import DataError
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    EXPORT_WINDOWS,
    LATE_CHANGES,
    REJECTED_ROWS,
    Column,
    Table,
)
from transforms.types import INSTANT, TEXT

_HASHES_PER_FETCH = 10_000
_PREFIX = "callhistory_staged_"

INSERTED, UPDATED, RESTORED, VANISHED = "inserted", "updated", "restored", "vanished"

STAGED_COLUMNS = {
    CALLS.name: (*CALLS.source_columns, "row_hash"),
    CALL_PARTICIPANTS.name: CALL_PARTICIPANTS.column_names,
    REJECTED_ROWS.name: tuple(name for name in REJECTED_ROWS.column_names if name != "first_seen_at"),
}
"""The columns of a batch, by table: all but those that the warehouse fills in itself."""

TIMES_COLUMNS = ("call_id", *TIMES)
"""The columns that ``StagedWindow.times`` answers with."""

_DIFFERENCES = Table(
    "differences",
    "Calls that the staged window adds, changes or no longer has.",
    (
        CALLS["call_id"],
        Column("kind", TEXT, "What happens to the call.", nullable=False, max_length=16),
        Column("previous_started_at", INSTANT, "When the call started as the warehouse had it; null for a new one."),
    ),
)


@cache
def _temporary_tables() -> tuple[dict[str, sa.Table], sa.Table]:
    """Return the tables that rows are staged in, by the table they go to, and that of the differences.

    Made once: SQLAlchemy compiles a statement again for every new table object in it.
    """
    metadata = sa.MetaData()

    def temporary(table: Table, names: Iterable[str]) -> sa.Table:
        columns = [table[name].sql_column() for name in names]
        for column in columns:
            column.comment = None
        return sa.Table(_PREFIX + table.name, metadata, *columns, prefixes=["TEMPORARY"])

    staged = {t.name: temporary(t, STAGED_COLUMNS[t.name]) for t in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS)}
    return staged, temporary(_DIFFERENCES, _DIFFERENCES.column_names)


@dataclass(frozen=True)
class Changes:
    """What ``StagedWindow.replace`` did, in calls and rejected rows.

    ``moved`` holds the old starts, outside of the window, of calls that started elsewhere until now: the windows
    they lay in have one call less.
    """

    inserted: int
    updated: int
    restored: int
    vanished: int
    unchanged: int
    rejects_added: int
    rejects_removed: int
    moved: tuple[datetime, ...] = ()

    @property
    def calls_changed(self) -> int:
        """How many calls are not as they were before."""
        return self.inserted + self.updated + self.restored + self.vanished


@dataclass(frozen=True)
class WindowCounts:
    """What the warehouse holds of a window: ``calls`` not deleted, and their ``content_hash``."""

    calls: int
    content_hash: str


def window_counts(
    connection: sa.Connection, calls: sa.Table, window_start: datetime, window_end: datetime
) -> WindowCounts:
    """Count and hash the calls of ``[window_start, window_end)`` that are not deleted, in constant memory."""
    count = 0

    def hashes(rows: Iterable[str]) -> Iterable[str]:
        nonlocal count
        for count, row_hash in enumerate(rows, start=1):  # noqa: B007
            yield row_hash

    query = sa.select(calls.c.row_hash).where(
        calls.c.started_at >= window_start, calls.c.started_at < window_end, calls.c.deleted_at.is_(None)
    )
    with connection.execute(query, execution_options={"yield_per": _HASHES_PER_FETCH}) as result:
        digest = content_hash(hashes(result.scalars()))
    return WindowCounts(count, digest)


def moved_calls(warehouse: Warehouse) -> list[tuple[datetime, ...]]:
    """Return, of every call whose start was once another one, all starts that it has had."""
    calls, versions = warehouse.tables[CALLS.name], warehouse.tables[CALL_VERSIONS.name]
    query = (
        sa.select(versions.c.call_id, versions.c.started_at, calls.c.started_at)
        .join(calls, calls.c.call_id == versions.c.call_id)
        .where(versions.c.started_at != calls.c.started_at)
    )
    starts: dict[str, set[datetime]] = {}
    with warehouse.reading() as connection:
        for call_id, *instants in connection.execute(query).tuples():
            starts.setdefault(call_id, set()).update(instants)
    return [tuple(sorted(of_call)) for of_call in starts.values()]


def forget_window(
    warehouse: Warehouse, connection: sa.Connection, window_start: datetime, window_end: datetime
) -> None:
    """Remove the calls of ``[window_start, window_end)``, what they were before, and what was counted of them."""
    tables = warehouse.tables
    calls, participants = tables[CALLS.name], tables[CALL_PARTICIPANTS.name]
    in_window = (calls.c.started_at >= window_start, calls.c.started_at < window_end)
    of_window = participants.c.call_id.in_(sa.select(calls.c.call_id).where(*in_window))
    connection.execute(sa.delete(participants).where(of_window))
    for table in (participants, calls, tables[CALL_VERSIONS.name]):
        inside = (table.c.started_at >= window_start, table.c.started_at < window_end)
        connection.execute(sa.delete(table).where(*inside))
    late_changes, ledger = tables[LATE_CHANGES.name], tables[EXPORT_WINDOWS.name]
    connection.execute(sa.delete(late_changes).where(late_changes.c.window_start == window_start))
    connection.execute(sa.update(ledger).where(ledger.c.window_start == window_start).values(late_changes=0))


class StagedWindow:
    """The rows of one window in temporary tables, which nobody else sees; a context inside of a transaction."""

    def __init__(self, warehouse: Warehouse, connection: sa.Connection) -> None:
        self._warehouse = warehouse
        self._backend = warehouse.backend
        self._connection = connection
        self._staged, self._differences = _temporary_tables()
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

    def replace(self, window_start: datetime, window_end: datetime, now: datetime) -> Changes:
        """Make ``[window_start, window_end)`` in the warehouse what was staged, as of ``now``.

        A new call is inserted; one whose ``row_hash`` differs, or that was deleted, is overwritten after its old row
        went to ``call_versions``; one that is in the window and was not staged is marked deleted likewise. An equal
        one is not touched. Participants follow their call. Rejected rows of the window become the staged ones.
        """
        for table in self._staged.values():
            self._backend.loaded(self._connection, table)
        staged_calls = self._count(self._staged[CALLS.name])
        self._find_differences(window_start, window_end)
        found = dict(self._connection.execute(self._kinds()).tuples().all())
        written = sum(found.get(kind, 0) for kind in (INSERTED, UPDATED, RESTORED))
        moved = self._moved(window_start, window_end) if found.get(UPDATED) else ()
        if found.keys() - {INSERTED}:
            self._keep_versions(now)
        if found.get(UPDATED) or found.get(RESTORED):
            self._update_calls(window_start, now)
        if found.get(VANISHED):
            self._mark_vanished(now)
        if found.get(INSERTED):
            self._insert_calls(window_start, now)
        if written:
            self._replace_participants()
        rejects_added, rejects_removed = self._replace_rejects(window_start, window_end, now)
        return Changes(
            inserted=found.get(INSERTED, 0),
            updated=found.get(UPDATED, 0),
            restored=found.get(RESTORED, 0),
            vanished=found.get(VANISHED, 0),
            unchanged=staged_calls - written,
            rejects_added=rejects_added,
            rejects_removed=rejects_removed,
            moved=moved,
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
        self._connection.execute(sa.insert(self._differences).from_select(list(_DIFFERENCES.column_names), found))

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

    def _replace_rejects(self, window_start: datetime, window_end: datetime, now: datetime) -> tuple[int, int]:
        rejects, staged = self._warehouse.tables[REJECTED_ROWS.name], self._staged[REJECTED_ROWS.name]
        same_row = (rejects.c.window_start == staged.c.window_start) & (rejects.c.reject_id == staged.c.reject_id)
        # All starts inside the window: with another CALLHISTORY_WINDOW, the row may stand under another start.
        gone = (
            rejects.c.window_start >= window_start,
            rejects.c.window_start < window_end,
            ~sa.exists().where(same_row).correlate(rejects),
        )
        removed = self._count(rejects, *gone)
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
