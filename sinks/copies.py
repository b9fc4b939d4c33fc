"""One place's copy of a window in local files, with hashes computed again from the values it holds."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.content_hash import content_hash
from sinks.row_times import TIMES
from sinks.scratch_database import quoted
from sinks.spool import BATCH_ROWS
from transforms.call_hashes import call_hashes
from transforms.hashing import row_hashes, text_digests
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

CALL_COLUMNS = (*CALLS.value_columns, "row_hash", *TIMES)
REJECT_COLUMNS = ("reject_id", "call_id", "payload")
_STORED_COLUMNS = {
    CALLS.name: CALL_COLUMNS,
    CALL_PARTICIPANTS.name: CALL_PARTICIPANTS.column_names,
    REJECTED_ROWS.name: REJECT_COLUMNS,
}
_HASHES = pa.schema(
    [(name, pa.string()) for name in ("call_id", "stored", "recomputed", "source", "participants", "bookkeeping")]
)


@dataclass
class WindowCopy:
    """The rows of one place in local files, one per table."""

    folder: Path
    name: str
    calls: int = 0
    content_hash: str = ""
    rejected: int = 0
    _writers: dict[str, pq.ParquetWriter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for table in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS):
            self._writers[table.name] = pq.ParquetWriter(self.path(table.name), _schema(table), compression="lz4")

    def path(self, what: str) -> str:
        """Return where the rows of a table lie, or the hashes of the calls."""
        return str(self.folder / f"{self.name}-{what}.parquet")

    def add(self, table: Table, batch: pa.Table) -> None:
        """Append rows; a column that this place does not have is null."""
        schema = _schema(table)
        for column in schema:
            if column.name not in batch.column_names:
                batch = batch.append_column(column, pa.nulls(batch.num_rows, column.type))
        self._writers[table.name].write_table(batch.select(schema.names).cast(schema))
        self.rejected += batch.num_rows if table is REJECTED_ROWS else 0

    def close(self) -> None:
        """Finish the files; nothing can be added then."""
        for writer in self._writers.values():
            writer.close()

    def seal(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Compute the hashes of all calls; ``calls`` and ``content_hash`` are final then."""
        self.close()
        calls, participants = self.path(CALLS.name), self.path(CALL_PARTICIPANTS.name)
        batches = entries_of_calls(connection, calls, participants, BATCH_ROWS)

        def rows() -> Iterator[str]:
            with pq.ParquetWriter(self.path("hashes"), _HASHES, compression="lz4") as writer:
                for batch in batches:
                    hashes = _hashes(batch)
                    writer.write_table(hashes)
                    self.calls += hashes.num_rows
                    row_hash: list[Any] = hashes["recomputed"].to_pylist()
                    yield from row_hash

        self.content_hash = content_hash(rows())
        for what in ("hashes", *_STORED_COLUMNS):
            connection.execute(f"CREATE TEMP VIEW {self.name}_{what} AS FROM read_parquet({quoted(self.path(what))})")


def _schema(table: Table) -> pa.Schema:
    return pa.schema([pa.field(name, table.arrow_schema.field(name).type) for name in _STORED_COLUMNS[table.name]])


def entries_of_calls(
    connection: duckdb.DuckDBPyConnection, calls: str, participants: str, batch_rows: int
) -> Iterator[pa.Table]:
    """Yield the calls of a Parquet file, each with its participants of another one in the list ``entries``."""
    reader = connection.sql(
        f"SELECT c.*, coalesce(p.entries, []) AS entries FROM read_parquet({quoted(calls)}) AS c LEFT JOIN "  # noqa: S608
        f"(SELECT call_id, list(p ORDER BY position) AS entries FROM read_parquet({quoted(participants)}) AS p "
        "GROUP BY call_id) AS p USING (call_id)"
    ).to_arrow_reader(batch_rows)
    for batch in reader:
        yield pa.Table.from_batches([batch])


def recomputed_row_hashes(rows: pa.Table) -> pa.Array[Any]:
    """Return the ``row_hash`` that the values of calls make, each with its participants in the list ``entries``."""
    schema = CALLS.arrow_schema
    calls = {name: rows[name].cast(schema.field(name).type).combine_chunks() for name in CALLS.hashed_columns}
    entries, offsets = _entries(rows)
    return call_hashes(calls, entries, offsets)


def _entries(rows: pa.Table) -> tuple[dict[str, Any], pa.Array[Any]]:
    """Return the columns of all participants, and where those of each call begin."""
    entries: Any = rows["entries"].combine_chunks()
    offsets = pa.array([0, *itertools.accumulate(entries.value_lengths().to_pylist())], pa.int32())
    flat = pa.Table.from_struct_array(entries.flatten()).select(list(CALL_PARTICIPANTS.column_names))
    flat = flat.cast(
        pa.schema([CALL_PARTICIPANTS.arrow_schema.field(n).with_nullable(True) for n in flat.column_names])
    )
    return {name: flat[name].combine_chunks() for name in flat.column_names}, offsets


def _hashes(rows: pa.Table) -> pa.Table:
    """Return ``_HASHES`` of calls, each with its participants in the list column ``entries``."""
    calls = rows.select(list(CALL_COLUMNS)).cast(_schema(CALLS))
    columns: dict[str, Any] = {name: calls[name].combine_chunks() for name in CALL_COLUMNS}
    of_entries, offsets = _entries(rows)
    source = [columns[name] for name in CALLS.value_columns]
    return pa.table(
        [
            columns["call_id"],
            columns["row_hash"],
            recomputed_row_hashes(rows),
            text_digests(source),
            row_hashes([columns["call_id"]], list(of_entries.values()), offsets),
            text_digests([columns[name] for name in TIMES]),
        ],
        schema=_HASHES,
    )
