"""What the warehouse really holds of calls: their values read back, and hashed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from sinks.copies import entries_of_calls, recomputed_row_hashes
from sinks.scratch import scratch_folder
from sinks.scratch_database import sorting_connection
from sinks.spool import BATCH_ROWS
from sinks.warehouse import Warehouse
from transforms.schema import CALL_PARTICIPANTS, CALLS, Table

_CALL_COLUMNS = (*CALLS.hashed_columns, "row_hash")


def recomputed_hashes(
    connection: sa.Connection, warehouse: Warehouse, wanted: sa.FromClause, *conditions: sa.ColumnElement[bool]
) -> Iterator[tuple[str, str]]:
    """Yield, for each wanted call, the ``row_hash`` it has and the one that its values in the database make.

    ``wanted`` is anything with a column ``call_id`` that names each call once, such as a temporary table.
    ``conditions`` may be on its columns and on those of ``calls``. What ``connection``'s transaction has written is
    seen. A call that is not there is left out. The order is any. Memory is bounded by a batch: what has to be joined
    lies in local files. Other statements may be executed on ``connection`` between two of the pairs.

    Raises ``DataError`` for a value that is not of its column's type, and ``StorageError`` when temporary files cannot
    be written.
    """
    calls, participants = warehouse.tables[CALLS.name], warehouse.tables[CALL_PARTICIPANTS.name]
    of_call = calls.join(wanted, calls.c.call_id == wanted.c.call_id)
    rows = sa.select(*(calls.c[name] for name in _CALL_COLUMNS)).select_from(of_call).where(*conditions)
    of_entry = of_call.join(participants, participants.c.call_id == calls.c.call_id)
    entries = sa.select(participants).select_from(of_entry).where(*conditions)
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        paths = {table.name: str(Path(folder) / f"{table.name}.parquet") for table in (CALLS, CALL_PARTICIPANTS)}
        for table, query in ((CALLS, rows), (CALL_PARTICIPANTS, entries)):
            _write(paths[table.name], warehouse.fetch(connection, table, query), table, query)
        with sorting_connection() as sorter:
            for batch in entries_of_calls(sorter, paths[CALLS.name], paths[CALL_PARTICIPANTS.name], BATCH_ROWS):
                stored: list[Any] = batch["row_hash"].to_pylist()
                recomputed: list[Any] = recomputed_row_hashes(batch).to_pylist()
                yield from zip(stored, recomputed, strict=True)


def _write(path: str, batches: Iterator[pa.Table], table: Table, query: sa.Select[tuple[object, ...]]) -> None:
    names = [column.name for column in query.selected_columns]
    schema = pa.schema([table.arrow_schema.field(name).with_nullable(True) for name in names])
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for batch in batches:
            writer.write_table(batch.cast(schema))
