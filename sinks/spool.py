"""One window on its way: what was read lies in local files until the whole of it can be published.

Memory holds one batch. Sorting, and finding out which of several versions of a call came last, is DuckDB's work, in
bounded memory with the rest on disk.
"""

from __future__ import annotations

import atexit
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sinks.raw import RawWriter
from sinks.scratch import explained, scratch_folder
from transforms.calls import Normalised
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

BATCH_ROWS = 4_000
"""Rows normalised, staged and written at a time: the unit that memory depends on."""

_SORT_MEMORY = "128MB"
_ROW_ORDER = {
    CALLS.name: "started_at, call_id",
    CALL_PARTICIPANTS.name: "started_at, call_id, position",
    REJECTED_ROWS.name: "reject_id",
}

Normalise = Callable[[list[JsonValue], Counter[str]], Normalised]


class Spool:
    """Collects the rows of one window; a context manager that leaves nothing behind.

    ``normalise`` turns a batch of rows into frames; the counter it gets numbers equal rejects over the batches. After
    ``seal`` the numbers are final and ``batches`` gives each table's rows, of every call the version that came last.
    """

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._pending: list[JsonValue] = []
        self._pending_ids: set[str] = set()
        self._reject_occurrences: Counter[str] = Counter()
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._path = Path(self._folder.name)
        self._batch = 0
        self._sorter: duckdb.DuckDBPyConnection | None = None
        self._superseded = False
        self.raw = RawWriter(self._path / "raw.jsonl.zst")
        self.calls = 0
        self.rejected = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.raw.__exit__()
        if self._sorter is not None:
            self._sorter.close()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where files on their way to storage may be made."""
        return self._path

    def add(self, rows: Iterable[JsonValue]) -> None:
        """Take rows in the order they were served; a call that comes again replaces what came before."""
        rows = list(rows)
        with explained():
            self.raw.add(rows)
        for row in rows:
            call_id = row.get("id") if isinstance(row, dict) else None
            if isinstance(call_id, str):
                if call_id in self._pending_ids:
                    self._flush()
                self._pending_ids.add(call_id)
            self._pending.append(row)
            if len(self._pending) >= BATCH_ROWS:
                self._flush()

    def seal(self) -> None:
        """Finish: ``calls`` and ``rejected`` are then the distinct calls and the rejects that were read."""
        self._flush()
        with explained():
            self.raw.__exit__()
        self._sorter = sorting_connection()
        if self._files(CALLS):
            rows, distinct = self._fetch_one(f"SELECT count(*), count(DISTINCT call_id) FROM {self._source(CALLS)}")  # noqa: S608
            self.calls = distinct
            if rows != distinct:
                self._sorter.execute(
                    "CREATE TEMP TABLE last_version AS SELECT call_id, max(batch) AS batch "  # noqa: S608
                    f"FROM {self._source(CALLS)} GROUP BY call_id"
                )
                self._superseded = True

    def batches(self, table: Table) -> Iterator[pa.Table]:
        """Yield the rows of ``table``, sorted, at most ``BATCH_ROWS`` at a time, in the columns that were spooled."""
        if self._sorter is None:
            raise RuntimeError("the spool is not sealed")
        if not self._files(table):
            return
        latest = ""
        if self._superseded and table is not REJECTED_ROWS:
            latest = "SEMI JOIN last_version USING (call_id, batch)"
        reader = self._sorter.sql(
            f"SELECT * EXCLUDE (batch) FROM {self._source(table)} {latest} ORDER BY {_ROW_ORDER[table.name]}"  # noqa: S608
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            names = batch.schema.names
            schema = pa.schema([field for field in table.arrow_schema if field.name in names])
            yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)

    def _flush(self) -> None:
        if not self._pending:
            return
        normalised = self._normalise(self._pending, self._reject_occurrences)
        self.rejected += len(normalised.rejects)
        self._write(CALLS, normalised.calls)
        self._write(CALL_PARTICIPANTS, normalised.participants)
        self._write(REJECTED_ROWS, normalised.rejects)
        self._batch += 1
        self._pending = []
        self._pending_ids = set()

    def _write(self, table: Table, frame: pd.DataFrame) -> None:
        if frame.empty:
            return
        arrow = pa.Table.from_pandas(frame, preserve_index=False)
        batch = pa.array([self._batch] * len(frame), pa.int64())
        with explained():
            pq.write_table(
                arrow.append_column("batch", batch),
                self._path / f"{table.name}-{self._batch:06d}.parquet",
                compression="lz4",
            )

    def _files(self, table: Table) -> list[Path]:
        return sorted(self._path.glob(f"{table.name}-*.parquet"))

    def _source(self, table: Table) -> str:
        return f"read_parquet('{self._path}/{table.name}-*.parquet')"

    def _fetch_one(self, query: str) -> tuple[int, ...]:
        if self._sorter is None:
            raise RuntimeError("the spool is not sealed")
        [row] = self._sorter.execute(query).fetchall()
        return tuple(row)


def sorting_connection() -> duckdb.DuckDBPyConnection:
    """Return a connection, to be closed, for sorting and joining files in memory that is bounded for the process."""
    return _sorter().cursor()


@cache
def _sorter() -> duckdb.DuckDBPyConnection:
    """The process's one in-memory DuckDB: its memory limit holds for all windows together."""
    overflow = str(scratch_folder() / "overflow")
    connection = duckdb.connect(config={"memory_limit": _SORT_MEMORY, "threads": "1", "temp_directory": overflow})
    atexit.register(connection.close)
    return connection
