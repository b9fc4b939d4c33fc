"""The Parquet lake: one file per table and local day, sorted by ``started_at``, swapped in atomically."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sinks.content_hash import MultisetHash, content_hash
from sinks.scratch import explained
from sinks.storage import Storage
from transforms.local_time import with_derived_columns
from transforms.schema import CALL_PARTICIPANTS, CALLS, PARTITION_COLUMN, Table

_DAY = re.compile(rf"/{PARTITION_COLUMN}=(\d{{4}}-\d\d-\d\d)/")
ROW_GROUP_ROWS = 8_192
"""Row groups have this size however the rows arrived: equal rows give equal bytes."""

_CONTENT_HASH, _PARTICIPANTS = _FACTS = ("callhistory.content_hash", "callhistory.participants")
"""What a file says of itself, in its footer: the hash of its day's calls, and how many participants these have."""


class Lake:
    """The tables of calls as Parquet files below ``storage``; local times are those of ``zone``."""

    def __init__(self, storage: Storage, zone: ZoneInfo) -> None:
        self.storage = storage
        self.zone = zone

    @staticmethod
    def file_name(table: Table, call_date: date) -> str:
        """Return the name of a day's file, below the lake's root."""
        return f"{table.name}/call_date={call_date}/{table.name}.parquet"

    def call_dates(self, table: Table) -> list[date]:
        """Return the local days that have a file, in order."""
        found = map(_DAY.search, self.storage.names(table.name, f"/{table.name}.parquet"))
        return sorted(date.fromisoformat(day[1]) for day in found if day)

    def lacks_columns(self, table: Table, call_date: date) -> bool:
        """Tell whether a day's file was written before a column was added; false for one that cannot be read."""
        try:
            with self.read(table, call_date) as file:
                return file is not None and not set(table.lake_schema.names) <= set(file.schema_arrow.names)
        except (OSError, ValueError):  # what Arrow raises on a file that is none of ours
            return False

    @contextmanager
    def read(self, table: Table, call_date: date) -> Iterator[pq.ParquetFile | None]:
        """Open a day's file; null when there is none, which is a day without calls."""
        name = self.file_name(table, call_date)
        if not self.storage.exists(name):
            yield None
            return
        with self.storage.open(name) as stream, pq.ParquetFile(stream) as file:
            yield file

    def window_counts(self, call_date: date, start: datetime, end: datetime) -> tuple[int, str]:
        """Return how many calls of ``[start, end)`` the lake has, and their content hash, read from the file."""
        rows = 0

        def row_hashes(file: pq.ParquetFile | None) -> Iterator[str]:
            nonlocal rows
            for batch in _batches(file, ["started_at", "row_hash"]):
                inside: list[Any] = batch.filter(_is_inside(batch, start, end))["row_hash"].to_pylist()
                rows += len(inside)
                yield from inside

        with self.read(CALLS, call_date) as file:
            digest = content_hash(row_hashes(file))
        return rows, digest

    def rows(self, table: Table, call_date: date) -> Iterator[pa.Table]:
        """Yield the rows of a day's file in batches, with the columns of today; none where there is no file."""
        with self.read(table, call_date) as file:
            for batch in _batches(file, None):
                yield with_derived_columns(batch, self.zone) if table is CALLS else batch

    def rows_between(self, table: Table, call_date: date, start: datetime, end: datetime) -> Iterator[pa.Table]:
        """Yield those rows that start in ``[start, end)``."""
        for batch in self.rows(table, call_date):
            yield batch.filter(_is_inside(batch, start, end))

    def is_as_certified(self, call_date: date, calls: int, content_hash: str) -> bool:
        """Tell whether a day's files hold the ``calls`` of that ``content_hash``, by what the files say of themselves.

        Their ends alone are read. A file of version 0.1.0 says only how many rows it has. A file that cannot be read is
        not as certified.
        """
        try:
            facts = [self._facts(table, call_date) for table in (CALLS, CALL_PARTICIPANTS)]
        except (OSError, ValueError):  # what Arrow raises on a file that is none of ours
            return False
        (held, of_calls), (participants, of_participants) = facts
        if held != calls or any(
            of.get(_CONTENT_HASH, content_hash) != content_hash for of in (of_calls, of_participants)
        ):
            return False
        return participants == int(of_calls.get(_PARTICIPANTS, participants))

    def has_rows(self, call_date: date, calls: int) -> bool:
        """Tell whether a day's file is there and has that many calls; false for one that cannot be read."""
        try:
            return self._facts(CALLS, call_date)[0] == calls
        except (OSError, ValueError):
            return False

    def _facts(self, table: Table, call_date: date) -> tuple[int, dict[str, str]]:
        with self.read(table, call_date) as file:
            if file is None:
                return 0, {}
            metadata = file.metadata.metadata or {}
            named = {name: metadata[name.encode()].decode() for name in _FACTS if name.encode() in metadata}
            return file.metadata.num_rows, named


class LakeWriter:
    """Makes the new file of one table and day, in which the rows of ``[start, end)`` are replaced by those written.

    Rows outside of the window are taken over from the file there is. ``write`` takes rows in ascending order of
    ``started_at``; ``finish`` completes the file; ``publish`` swaps it in, or removes it when nothing is left, and
    tells whether the lake has changed. Until then nothing that a reader sees has moved.

    A file says of itself which calls it holds, or belongs to: `Lake.is_as_certified` compares that with the ledger.
    """

    def __init__(
        self,
        lake: Lake,
        table: Table,
        call_date: date,
        start: datetime,
        end: datetime,
        *,
        whole_day: bool,
        folder: Path,
    ) -> None:
        self._lake, self._table, self._call_date = lake, table, call_date
        self._start, self._end, self._whole_day = start, end, whole_day
        self._path = folder / f"{table.name}.parquet"
        self._buffer: list[pa.Table] = []
        self._buffered = 0
        self._writer: pq.ParquetWriter | None = None
        self._began = False
        self._hash = MultisetHash()
        self._participants = 0

    @classmethod
    def taking_over(cls, lake: Lake, table: Table, call_date: date, folder: Path) -> LakeWriter:
        """Return a writer whose new file has all rows of the file there is, in the columns of today."""
        never = datetime.max.replace(tzinfo=UTC)
        return cls(lake, table, call_date, never, never, whole_day=False, folder=folder)

    def __enter__(self) -> LakeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pa.Table) -> None:
        """Append rows of the window, in the columns of the table's lake schema (others are left out)."""
        if not self._began:
            self._began = True
            self._carry_over(before=True)
        self._append(rows.select(self._table.lake_schema.names).cast(self._table.lake_schema))

    @property
    def content_hash(self) -> str:
        """Hash of all calls of the new file; of ``calls`` only."""
        return self._hash.hexdigest()

    def finish(self, calls_content_hash: str | None = None) -> None:
        """Complete the file; a file of participants is told the hash of the calls that they belong to."""
        if not self._began:
            self._carry_over(before=True)
        self._carry_over(before=False)
        if self._buffered:
            self._write_row_group(self._buffered)
        if self._writer is not None:
            facts = {_CONTENT_HASH: calls_content_hash or self.content_hash}
            if self._table is CALLS:
                facts[_PARTICIPANTS] = str(self._participants)
            with explained():
                self._writer.add_key_value_metadata(facts)
                self._writer.close()

    def publish(self) -> bool:
        """Swap the finished file in; return whether the lake changed. Raises ``StorageError``."""
        name = self._lake.file_name(self._table, self._call_date)
        if self._writer is None:
            return self._lake.storage.remove(name)
        return self._lake.storage.publish(self._path, name)

    def _carry_over(self, *, before: bool) -> None:
        if self._whole_day:
            return
        for batch in self._lake.rows(self._table, self._call_date):
            started_at = batch["started_at"]
            outside = (
                pc.less(started_at, _scalar(self._start))
                if before
                else pc.greater_equal(started_at, _scalar(self._end))
            )
            rows = batch.filter(outside)
            self._append(rows.select(self._table.lake_schema.names).cast(self._table.lake_schema))

    def _append(self, rows: pa.Table) -> None:
        if self._table is CALLS:
            row_hash: list[Any] = rows["row_hash"].to_pylist()
            for digest in row_hash:
                self._hash.add(int(digest, 16))
            self._participants += pc.sum(rows["participant_count"]).as_py() or 0
        self._buffer.append(rows)
        self._buffered += rows.num_rows
        while self._buffered >= ROW_GROUP_ROWS:
            self._write_row_group(ROW_GROUP_ROWS)

    def _write_row_group(self, rows: int) -> None:
        table = pa.concat_tables(self._buffer).combine_chunks()
        with explained():
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._path, self._table.lake_schema, compression="zstd")
            self._writer.write_table(table.slice(0, rows), row_group_size=ROW_GROUP_ROWS)
        self._buffer = [table.slice(rows)]
        self._buffered = table.num_rows - rows


def _batches(file: pq.ParquetFile | None, columns: list[str] | None) -> Iterator[pa.Table]:
    if file is None:
        return
    for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS, columns=columns):
        yield pa.Table.from_batches([batch])


def _is_inside(rows: pa.Table, start: datetime, end: datetime) -> Any:
    started_at = rows["started_at"]
    return pc.and_(pc.greater_equal(started_at, _scalar(start)), pc.less(started_at, _scalar(end)))


def _scalar(instant: datetime) -> Any:
    return pa.scalar(instant, pa.timestamp("ms", tz="UTC"))
