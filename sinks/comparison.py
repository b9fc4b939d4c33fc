"""The copies of one window side by side: raw copy, lake and warehouse, call for call.

Nothing that was stored about a copy is believed: every hash is computed again from the values of the row and of its
participants, so a row that somebody altered in place is found although it kept its ``row_hash``. Memory holds one
batch; what has to be joined lies in local files, and joining them is DuckDB's work, in bounded memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from sinks.copies import CALL_COLUMNS, REJECT_COLUMNS, WindowCopy
from sinks.parquet import Lake
from sinks.row_times import TIMES
from sinks.scratch import scratch_folder
from sinks.scratch_database import quoted, sorting_connection
from sinks.spool import BATCH_ROWS, Spool
from sinks.warehouse import Warehouse
from transforms.errors import DataError
from transforms.schema import CALL_PARTICIPANTS, CALLS, PARTITION_COLUMN, REJECTED_ROWS, Column, Pii, Table

IDS_NAMED = 10
"""How many call ids of a difference are named."""

_EXAMPLES = 3


class Place(StrEnum):
    """Where calls are counted."""

    API = "api"
    RAW = "raw"
    LAKE = "lake"
    WAREHOUSE = "warehouse"
    LEDGER = "ledger"


class Kind(StrEnum):
    """How a place differs."""

    MISSING = "missing"
    """It lacks rows that it should have."""
    EXTRA = "extra"
    """It has rows that it should not have."""
    ALTERED = "altered"
    """It has rows whose values are not those that were written."""
    DOUBLED = "doubled"
    """It has rows more than once."""
    OUTDATED = "outdated"
    """It holds what was certified, but the raw copy now makes other rows: the code or a setting has changed since."""
    COUNT = "count"
    """The number of calls is another one."""
    UNREADABLE = "unreadable"
    """It cannot be read; the message says why."""
    NOT_COMPLETE = "not_complete"
    """There is no certificate to compare with: the window was not exported to its end."""


@dataclass(frozen=True)
class Difference:
    """What is wrong in one place: which table, how, in how many rows, and the ids of up to ``IDS_NAMED`` of them."""

    place: Place
    table: str
    kind: Kind
    count: int
    call_ids: tuple[str, ...] = ()
    message: str | None = None


@dataclass(frozen=True)
class ColumnDifference:
    """A column in which rows would change: how many, and some of the values where they tell nothing of a person."""

    column: str
    rows: int
    examples: tuple[dict[str, str | None], ...]


@dataclass(frozen=True)
class TableDifference:
    """What the warehouse's table would become by the raw copy: rows it would gain, lose and change, and where."""

    table: str
    added: int
    removed: int
    changed: int
    columns: tuple[ColumnDifference, ...]


class Comparison:
    """The copies of the window ``[start, end)`` of a local day; a context manager that leaves nothing behind.

    Add each copy once, in any order, then ask for ``counts`` and ``differences``.
    """

    def __init__(self, call_date: date, start: datetime, end: datetime) -> None:
        self._call_date, self._start, self._end = call_date, start, end
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._connection = sorting_connection()
        self._copies: dict[str, WindowCopy] = {}

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        for copy in self._copies.values():
            copy.close()
        self._folder.cleanup()

    def counts(self, place: Place) -> tuple[int, str, int] | None:
        """Return a copy's calls, their content hash and its rejected rows, counted afresh; null if it was not added."""
        copy = self._copies.get(place)
        return None if copy is None else (copy.calls, copy.content_hash, copy.rejected)

    def add_raw(self, spool: Spool) -> None:
        """Add what a sealed spool of the raw rows holds."""
        copy = self._new(Place.RAW)
        for table in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS):
            for batch in spool.batches(table):
                copy.add(table, batch)
        copy.seal(self._connection)

    def add_lake(self, lake: Lake) -> None:
        """Add what the day's files hold of the window. Raises ``DataError`` for a file that cannot be read."""
        copy = self._new(Place.LAKE)
        for table in (CALLS, CALL_PARTICIPANTS):
            try:
                for batch in lake.rows_between(table, self._call_date, self._start, self._end):
                    day = pa.repeat(pa.scalar(self._call_date, pa.date32()), batch.num_rows)
                    copy.add(table, batch.append_column(PARTITION_COLUMN, day))
            except (OSError, KeyError, ValueError) as error:  # what Arrow raises on a file that is none of ours
                del self._copies[Place.LAKE]
                copy.close()
                raise DataError(f"{Lake.file_name(table, self._call_date)} is damaged") from error
        copy.seal(self._connection)

    def add_warehouse(self, warehouse: Warehouse) -> None:
        """Add the window's rows of the warehouse; those of calls marked deleted are looked at on their own.

        Raises ``DataError`` for a value that is not of its column's type.
        """
        current, deleted = self._new(Place.WAREHOUSE), self._new("deleted")
        calls, participants, rejects = (warehouse.tables[t.name] for t in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS))
        in_window = (calls.c.started_at >= self._start, calls.c.started_at < self._end)
        entries = sa.select(participants).join(calls, calls.c.call_id == participants.c.call_id).where(*in_window)
        orphans = sa.select(participants).where(
            participants.c.started_at >= self._start,
            participants.c.started_at < self._end,
            ~sa.exists().where(calls.c.call_id == participants.c.call_id),
        )
        quarantine = sa.select(*(rejects.c[name] for name in REJECT_COLUMNS)).where(
            rejects.c.window_start >= self._start, rejects.c.window_start < self._end
        )
        rows = sa.select(*(calls.c[name] for name in CALL_COLUMNS)).where(*in_window)
        is_deleted = calls.c.deleted_at.is_not(None)
        with warehouse.reading() as connection:
            for copy, condition in ((current, ~is_deleted), (deleted, is_deleted)):
                for table, query in ((CALLS, rows), (CALL_PARTICIPANTS, entries)):
                    for batch in warehouse.fetch(connection, table, query.where(condition)):
                        copy.add(table, batch)
            for batch in warehouse.fetch(connection, CALL_PARTICIPANTS, orphans):
                current.add(CALL_PARTICIPANTS, batch)
            for batch in warehouse.fetch(connection, REJECTED_ROWS, quarantine):
                current.add(REJECTED_ROWS, batch)
        for copy in (current, deleted):
            copy.seal(self._connection)

    def differences(self, certified: dict[Place, tuple[int | None, str | None]]) -> list[Difference]:
        """Return where lake and warehouse differ from the raw copy, from each other, and from what they say themselves.

        ``certified`` has, for lake and warehouse, the count and the content hash of the certificate. Without a raw
        copy, the one that is as certified is what the other is compared with.
        """
        found: list[Difference] = []
        intact = {
            place
            for place in (Place.LAKE, Place.WAREHOUSE)
            if place in self._copies
            and certified[place] == (self._copies[place].calls, self._copies[place].content_hash)
        }
        reference = next(
            (p for p in (Place.RAW, *sorted(intact), Place.LAKE, Place.WAREHOUSE) if p in self._copies), None
        )
        for place in (Place.LAKE, Place.WAREHOUSE):
            if place in self._copies:
                found += self._self_contradictions(place)
                if place is reference:
                    found += self._wrong_hashes(place, place)
                if reference is not None and place is not reference:
                    found += self._against(place, reference, is_as_certified=place in intact)
        if "deleted" in self._copies:
            found += self._wrong_hashes(Place.WAREHOUSE, "deleted")
        if Place.RAW in self._copies and Place.WAREHOUSE in self._copies:
            found += self._rejects()
        if not found and Place.LAKE in self._copies and Place.WAREHOUSE in self._copies:
            found += self._query(
                Place.WAREHOUSE,
                CALLS,
                Kind.ALTERED,
                f"{Place.WAREHOUSE}_hashes AS w JOIN {Place.LAKE}_hashes AS l "
                "ON w.call_id = l.call_id AND w.bookkeeping <> l.bookkeeping",
                "w.call_id",
                f"another {', '.join(TIMES)} than in the lake",
            )
        return found

    def table_differences(self) -> list[TableDifference]:
        """Return how calls and participants in the warehouse differ from what the raw copy makes."""
        found = []
        for table, names in ((CALLS, CALLS.value_columns), (CALL_PARTICIPANTS, CALL_PARTICIPANTS.column_names)):
            now, then = f"{Place.WAREHOUSE}_{table.name}", f"{Place.RAW}_{table.name}"
            key = ", ".join(table.key)
            both = f"{now} AS n JOIN {then} AS t USING ({key})"
            changes = {name: f'n."{name}" IS DISTINCT FROM t."{name}"' for name in names if name not in table.key}
            [(added,)] = self._fetch(f"SELECT count(*) FROM {then} ANTI JOIN {now} USING ({key})")  # noqa: S608
            [(removed,)] = self._fetch(f"SELECT count(*) FROM {now} ANTI JOIN {then} USING ({key})")  # noqa: S608
            counts = ", ".join(
                f"count(*) FILTER (WHERE {change})" for change in (" OR ".join(changes.values()), *changes.values())
            )
            [(changed, *of_columns)] = self._fetch(f"SELECT {counts} FROM {both}")  # noqa: S608
            columns = tuple(
                ColumnDifference(name, count, self._examples(table[name], both, changes[name]))
                for name, count in zip(changes, of_columns, strict=True)
                if count
            )
            if added or removed or changed:
                found.append(TableDifference(table.name, added, removed, changed, columns))
        return found

    def _examples(self, column: Column, both: str, changed: str) -> tuple[dict[str, str | None], ...]:
        if column.pii is not Pii.NONE:
            return ()
        values = f'n."{column.name}"::VARCHAR, t."{column.name}"::VARCHAR'
        query = f"SELECT call_id, {values} FROM {both} WHERE {changed} ORDER BY call_id LIMIT {_EXAMPLES}"  # noqa: S608
        rows = self._fetch(query)
        return tuple({"call_id": row[0], "now": row[1], "then": row[2]} for row in rows)

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def missing_ids(self, ids: Iterable[str], place: Place) -> tuple[list[str], list[str]]:
        """Return which of ``ids`` the place's copy lacks, and which of its calls are not among ``ids``; sorted."""
        path = Path(self._folder.name) / "ids.parquet"
        schema = pa.schema([("call_id", pa.string())])
        with pq.ParquetWriter(path, schema) as writer:
            for call_id in _chunks(ids):
                writer.write_table(pa.table({"call_id": pa.array(call_id, pa.string())}))
        self._connection.execute(f"CREATE OR REPLACE TEMP VIEW given AS FROM read_parquet({quoted(str(path))})")
        given, held = "given", f"{place}_hashes"

        def only_in(one: str, other: str) -> list[str]:
            query = f"SELECT DISTINCT call_id FROM {one} ANTI JOIN {other} USING (call_id) ORDER BY call_id"  # noqa: S608
            return [row[0] for row in self._fetch(query)]

        return only_in(given, held), only_in(held, given)

    def _new(self, name: str) -> WindowCopy:
        copy = self._copies[name] = WindowCopy(Path(self._folder.name), name)
        return copy

    def _self_contradictions(self, place: Place) -> list[Difference]:
        hashes = f"{place}_hashes"
        doubled = f"(SELECT call_id FROM {hashes} GROUP BY call_id HAVING count(*) > 1)"  # noqa: S608
        orphans = f"(SELECT DISTINCT call_id FROM {place}_{CALL_PARTICIPANTS.name}) ANTI JOIN {hashes} USING (call_id)"  # noqa: S608
        return [
            *self._query(place, CALLS, Kind.DOUBLED, doubled),
            *self._query(place, CALL_PARTICIPANTS, Kind.EXTRA, orphans, message="of calls that are not there"),
        ]

    def _wrong_hashes(self, place: Place, copy: str) -> list[Difference]:
        return self._query(place, CALLS, Kind.ALTERED, f"{copy}_hashes WHERE stored IS DISTINCT FROM recomputed")

    def _against(self, place: Place, reference: Place, *, is_as_certified: bool) -> list[Difference]:
        held, wanted = f"{place}_hashes", f"{reference}_hashes"
        both = f"{held} AS h JOIN {wanted} AS w USING (call_id)"
        is_outdated = is_as_certified and reference is Place.RAW
        other_set = Kind.OUTDATED if is_outdated else None
        found = [
            *self._query(place, CALLS, other_set or Kind.MISSING, f"{wanted} ANTI JOIN {held} USING (call_id)"),
            *self._query(place, CALLS, other_set or Kind.EXTRA, f"{held} ANTI JOIN {wanted} USING (call_id)"),
        ]
        for table, condition in (
            (CALLS, "(h.source <> w.source OR h.stored IS DISTINCT FROM w.stored AND h.participants = w.participants)"),
            (CALL_PARTICIPANTS, "h.participants <> w.participants"),
        ):
            if is_outdated:
                # A row that was altered in place would not have the certified content.
                found += self._query(
                    place, table, Kind.OUTDATED, f"{both} WHERE {condition} AND h.recomputed <> w.recomputed"
                )
                condition += " AND h.recomputed = w.recomputed"
            found += self._query(place, table, Kind.ALTERED, f"{both} WHERE {condition}")
        return found

    def _rejects(self) -> list[Difference]:
        held, wanted = (f"{p}_{REJECTED_ROWS.name}" for p in (Place.WAREHOUSE, Place.RAW))
        named = "coalesce(call_id, 'reject ' || reject_id)"
        altered = f"{held} AS h JOIN {wanted} AS w USING (reject_id) WHERE h.payload IS DISTINCT FROM w.payload"
        return [
            *self._query(
                Place.WAREHOUSE, REJECTED_ROWS, Kind.MISSING, f"{wanted} ANTI JOIN {held} USING (reject_id)", named
            ),
            *self._query(
                Place.WAREHOUSE, REJECTED_ROWS, Kind.EXTRA, f"{held} ANTI JOIN {wanted} USING (reject_id)", named
            ),
            *self._query(
                Place.WAREHOUSE, REJECTED_ROWS, Kind.ALTERED, altered, "coalesce(w.call_id, 'reject ' || reject_id)"
            ),
        ]

    def _query(
        self,
        place: Place,
        table: Table,
        kind: Kind,
        source: str,
        call_id: str = "call_id",
        message: str | None = None,
    ) -> list[Difference]:
        query = f"SELECT count(*), min({call_id}, {IDS_NAMED}) FROM {source}"  # noqa: S608
        [(count, call_ids)] = self._fetch(query)
        return [Difference(place, table.name, kind, count, tuple(call_ids), message)] if count else []


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    for call_id in ids:
        chunk.append(call_id)
        if len(chunk) == BATCH_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
