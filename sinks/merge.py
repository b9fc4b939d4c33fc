"""One window into the warehouse: stage its rows, then replace what is inside the window, within one transaction.

The staged rows are compared with the warehouse's by ``row_hash`` once, into a table of differences; every later
statement follows that table. So a row that has not changed is read and never written, which is why doing a window
again is lossless and changes nothing.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from types import TracebackType

import pyarrow as pa
import sqlalchemy as sa

from sinks.backend import COLLIDED, MISFIT
from sinks.readback import recomputed_hashes
from sinks.staged_differences import StagedDifferences
from sinks.staged_tables import (
    INSERTED,
    RESTORED,
    STAGED_COLUMNS,
    TIMES_COLUMNS,
    UPDATED,
    VANISHED,
    temporary_tables,
)
from sinks.warehouse import Warehouse
from sinks.window_changes import Changes, Losses
from sinks.window_rows import WindowCounts, row_count, window_counts
from transforms.errors import DataError
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, REJECTED_ROWS, Table


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
        self._rows_staged: Counter[str] = Counter()

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
            self._rows_staged[table.name] += batch.num_rows

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
        altered = altered or self._altered_derived_values()
        if altered:
            raise DataError(
                f"the {self._backend.label} does not hold what was written to it, in {altered} calls: "
                "look for a trigger or a rule on its tables that changes values"
            )

    def _altered_derived_values(self) -> int:
        """Count the written calls whose derived values are not those that were staged: no hash covers them."""
        calls, staged = self._warehouse.tables[CALLS.name], self._staged[CALLS.name]
        written = self._differences.join(calls, calls.c.call_id == self._differences.c.call_id).join(
            staged, staged.c.call_id == self._differences.c.call_id
        )
        is_altered = sa.or_(*(calls.c[name].is_distinct_from(staged.c[name]) for name in CALLS.derived_columns))
        return row_count(self._connection, written, self._differences.c.kind != VANISHED, is_altered)

    def clear(self) -> None:
        """Forget what was staged."""
        for table in self._staged.values():
            self._connection.execute(sa.delete(table))
        self._rows_staged.clear()

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
        self._window = (window_start, window_end)
        self._found = StagedDifferences(
            self._warehouse,
            self._connection,
            self._staged,
            self._differences,
            self._window,
            has_rejects=self._rows_staged[REJECTED_ROWS.name] > 0,
        )
        self._found.find()
        return self._found.losses(certified_at)

    def replace(self, now: datetime, *, believes_gone: bool = True) -> Changes:
        """Make the window in the warehouse what was staged and compared, as of ``now``.

        A new call is inserted; one whose ``row_hash`` differs, or that was deleted, is overwritten after its old row
        went to ``call_versions``; one that is in the window and was not staged is marked deleted likewise. An equal
        one is not touched. Participants follow their call. Rejected rows of the window become the staged ones.

        Without ``believes_gone`` no call is marked deleted, and no rejected row is removed.
        """
        window_start, window_end = self._window
        if not believes_gone:
            self._found.forget_vanished()
        found = self._found.kinds()
        written = sum(found.get(kind, 0) for kind in (INSERTED, UPDATED, RESTORED))
        left = self._found.windows_left() if found.get(UPDATED) else ()
        if found.keys() - {INSERTED}:
            self._keep_versions(now)
        if found.get(UPDATED) or found.get(RESTORED):
            self._update_calls(window_start, now)
        if found.get(VANISHED):
            self._mark_vanished(now)
            left += self._found.windows_that_set_aside_what_vanished()
        if found.get(INSERTED):
            self._insert_calls(window_start, now)
        if found.get(UPDATED) or found.get(RESTORED):
            self._delete_participants()
        if written:
            self._insert_participants()
        to_confirm = self._found.starts_newly_set_aside()
        rejects_added, rejects_removed = self._replace_rejects(window_start, window_end, now, believes_gone)
        return Changes(
            inserted=found.get(INSERTED, 0),
            updated=found.get(UPDATED, 0),
            restored=found.get(RESTORED, 0),
            vanished=found.get(VANISHED, 0),
            unchanged=self._rows_staged[CALLS.name] - written,
            rejects_added=rejects_added,
            rejects_removed=rejects_removed,
            left=left,
            to_confirm=to_confirm,
        )

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

    def _delete_participants(self) -> None:
        participants = self._warehouse.tables[CALL_PARTICIPANTS.name]
        self._connection.execute(
            self._backend.delete_matching(
                participants,
                participants.c.call_id == self._differences.c.call_id,
                self._differences.c.kind.in_((UPDATED, RESTORED)),
            )
        )

    def _insert_participants(self) -> None:
        participants = self._warehouse.tables[CALL_PARTICIPANTS.name]
        staged = self._staged[CALL_PARTICIPANTS.name]
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
        removed = row_count(self._connection, rejects, *gone) if believes_gone else 0
        if removed:
            self._connection.execute(sa.delete(rejects).where(*gone))
        joined = staged.outerjoin(rejects, same_row)
        added = row_count(self._connection, joined, rejects.c.reject_id.is_(None))
        if added:
            new_rows = (
                sa.select(*staged.c, sa.literal(now, rejects.c.first_seen_at.type))
                .select_from(joined)
                .where(rejects.c.reject_id.is_(None))
            )
            names = [*(column.name for column in staged.c), "first_seen_at"]
            self._connection.execute(sa.insert(rejects).from_select(names, new_rows))
        return added, removed
