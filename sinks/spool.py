"""One window on its way: what was read lies in local files until the whole of it can be published.

Memory holds one batch, and eight bytes for each call. A portal serves a window in order, so its batches only have to
be sorted inside; one that does not, or that served a call twice, has its rows arranged anew at the end.
"""

from __future__ import annotations

import tempfile
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sinks.raw import RawWriter
from sinks.scratch import explained, scratch_folder
from transforms.calls import Normalised
from transforms.field_types import FieldTypes, count_field_types
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

BATCH_ROWS = 2_000
"""Rows normalised, staged and written at a time: the unit that memory depends on."""

_ORDER = {
    CALLS.name: ["started_at", "call_id"],
    CALL_PARTICIPANTS.name: ["started_at", "call_id", "position"],
    REJECTED_ROWS.name: ["reject_id"],
}
_BATCH = "batch"

_computing = threading.Lock()
"""Threads wait for the network side by side and compute by turns: at once, they would only take the interpreter and the
processor's caches from each other (100,000 calls by four threads took a sixth more processor time)."""

Normalise = Callable[[list[JsonValue], Counter[str]], Normalised]


class Spool:
    """Collects the rows of one window; a context manager that leaves nothing behind.

    ``normalise`` turns a batch of rows into frames; the counter it gets numbers equal rejects over the batches.
    ``field_types`` tells which fields the rows had. After ``seal`` the numbers are final and ``batches`` gives each
    table's rows, of every call the version that came last.
    """

    def __init__(self, normalise: Normalise) -> None:
        self._normalise = normalise
        self._pending: list[JsonValue] = []
        self._pending_ids: set[str] = set()
        self._reject_occurrences: Counter[str] = Counter()
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._path = Path(self._folder.name)
        self._batch = 0
        self._id_hashes = array("q")
        self._call_ranges: list[tuple[object, object]] = []
        self._is_sealed = False
        self.raw = RawWriter(self._path / "raw.jsonl.zst")
        self.field_types: FieldTypes = Counter()
        self.calls = 0
        self.rejected = 0

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.raw.__exit__()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """Where files on their way to storage may be made."""
        return self._path

    def add(self, rows: Iterable[JsonValue]) -> None:
        """Take rows in the order they were served; a call that comes again replaces what came before."""
        rows = list(rows)
        with _computing:
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
        with _computing:
            self._flush()
        with explained():
            self.raw.__exit__()
        # Two ids of one hash would only cost the arranging that is there for one id that came twice.
        is_distinct = len(np.unique(np.frombuffer(self._id_hashes, np.int64))) == len(self._id_hashes)
        is_ordered = all(last < first for (_, last), (first, _) in pairwise(self._call_ranges))  # type: ignore[operator]
        self.calls = len(self._id_hashes)
        if not (is_distinct and is_ordered):
            self.calls = self._arrange()
        self._is_sealed = True

    def batches(self, table: Table) -> Iterator[pa.Table]:
        """Yield the rows of ``table``, sorted, at most ``BATCH_ROWS`` calls at a time, in the columns spooled.

        Rejects are sorted within a batch only.
        """
        if not self._is_sealed:
            raise RuntimeError("the spool is not sealed")
        for path in self._files(table):
            rows = _read(path)
            if rows.num_rows:
                yield rows.drop_columns([_BATCH])

    def _flush(self) -> None:
        if not self._pending:
            return
        count_field_types(self._pending, self.field_types)
        normalised = self._normalise(self._pending, self._reject_occurrences)
        self.rejected += len(normalised.rejects)
        calls = self._write(CALLS, normalised.calls)
        if calls.num_rows:
            self._id_hashes.extend(hash(call_id) for call_id in calls["call_id"].to_pylist())
            self._call_ranges.append((_key(calls, 0), _key(calls, calls.num_rows - 1)))
        self._write(CALL_PARTICIPANTS, normalised.participants)
        self._write(REJECTED_ROWS, normalised.rejects)
        self._batch += 1
        self._pending = []
        self._pending_ids = set()

    def _write(self, table: Table, frame: pd.DataFrame) -> pa.Table:
        schema = pa.schema([field for field in table.arrow_schema if field.name in frame.columns])
        rows = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        rows = rows.sort_by([(name, "ascending") for name in _ORDER[table.name]])
        rows = rows.append_column(_BATCH, pa.repeat(pa.scalar(self._batch, pa.int64()), rows.num_rows))
        if rows.num_rows:
            _write(rows, self._path / f"{table.name}-{self._batch:06d}.arrow")
        return rows

    def _arrange(self) -> int:
        """Keep of every call the version of its last batch, sort over all batches; return how many calls there are.

        The files are mapped, not read: what is held in memory is the order, and one batch at a time.
        """
        calls = pa.concat_tables([_read(path) for path in self._files(CALLS)])
        ids = calls.select(["call_id", _BATCH])
        last = ids.group_by("call_id").aggregate([(_BATCH, "max")]).rename_columns(["call_id", "last_batch"])
        for table in (CALLS, CALL_PARTICIPANTS):
            paths = self._files(table)
            if not paths:
                continue
            rows = pa.concat_tables([_read(path) for path in paths])
            keys = rows.select([*_ORDER[table.name], _BATCH])
            keys = keys.append_column("row", pa.array(np.arange(rows.num_rows)))
            keys = keys.join(last, "call_id")
            keys = keys.filter(pc.equal(keys[_BATCH], keys["last_batch"]))
            order = keys.sort_by([(name, "ascending") for name in _ORDER[table.name]])["row"]
            for number, first in enumerate(range(0, len(order), BATCH_ROWS)):
                part = rows.take(order.slice(first, BATCH_ROWS))
                _write(part, self._path / f"arranged-{table.name}-{number:06d}.arrow")
            del rows
            for path in paths:
                path.unlink()
            for path in sorted(self._path.glob(f"arranged-{table.name}-*.arrow")):
                path.rename(self._path / path.name.removeprefix("arranged-"))
        return last.num_rows

    def _files(self, table: Table) -> list[Path]:
        return sorted(self._path.glob(f"{table.name}-*.arrow"))


def _key(calls: pa.Table, position: int) -> tuple[object, ...]:
    return tuple(calls[name][position].as_py() for name in _ORDER[CALLS.name])


def _write(rows: pa.Table, path: Path) -> None:
    with explained(), pa.ipc.new_file(str(path), rows.schema) as writer:
        writer.write_table(rows.combine_chunks())


def _read(path: Path) -> pa.Table:
    with explained(), pa.memory_map(str(path)) as mapped:
        return pa.ipc.open_file(mapped).read_all()
