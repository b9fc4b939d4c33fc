"""One window on its way: what was read lies in local files until the whole of it can be published.

Memory holds one batch, and eight bytes for each call. A portal serves a window in order, so its batches only have to
be sorted inside; one that does not has its rows arranged anew at the end.

An id is one call. Of several rows of one id, the last one served is the call, and each other one is a reject. Which
ones are is known when all have been read; then the rows are taken from the raw copy once more.
"""

from __future__ import annotations

import tempfile
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from sinks.raw import RawWriter, read_written
from sinks.scratch import explained, scratch_folder
from transforms.call_ids import call_id_of
from transforms.calls import CallTables
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
_SECOND_HASH = "\0"
NO_FIELD = ""
"""Stands among ``rejected_fields`` for rows that are no objects."""

_computing = threading.Lock()
"""Threads wait for the network side by side and compute by turns: at once, they would only take the interpreter and the
processor's caches from each other (100,000 calls by four threads took a sixth more processor time)."""

Normalise = Callable[[list[JsonValue], Counter[str], Collection[int]], CallTables]
"""Takes rows, a counter of equal rejects, and the places of rows that are not the call of their id."""

Redact = Callable[[list[JsonValue]], list[JsonValue]]
"""Takes rows as they were served, and returns what may be kept of them: nothing else is ever written."""


class Spool:
    """Collects the rows of one window; a context manager that leaves nothing behind.

    ``normalise`` turns a batch of rows into tables; ``can_be_call`` tells whether a row alone would be a call of the
    window. ``field_types`` tells which fields the rows had, ``usable`` in how many rows a needed field could be used,
    ``unread`` in how many calls any field could not be read, ``rejected_fields`` how many rows are no calls for want of
    a field, and ``most_of_one_id`` how many rows one id has.
    After ``seal`` the numbers are final and ``batches`` gives each table's rows.

    ``redact`` takes out of each row what must not be kept.
    With ``waits``, rows become tables only in ``make_tables``: where they may be those that are published already, this
    is known when all have been read. ``raw`` alone says something until then.
    """

    def __init__(
        self,
        normalise: Normalise,
        can_be_call: Callable[[JsonValue], bool],
        *,
        redact: Redact | None = None,
        waits: bool = False,
    ) -> None:
        self._waits = waits
        self._redact = redact
        self._normalise = normalise
        self._can_be_call = can_be_call
        self._pending: list[JsonValue] = []
        self._folder = tempfile.TemporaryDirectory(dir=scratch_folder())
        self._path = Path(self._folder.name)
        self._is_sealed = False
        self.raw = RawWriter(self._path / "raw.jsonl.zst")
        self.field_types: FieldTypes = Counter()
        self.usable: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.rejected_fields: Counter[str] = Counter()
        self.most_of_one_id = 0
        self._superseded = np.array([], np.int64)
        self._begin()

    def _begin(self) -> None:
        for path in self._path.glob("*.arrow"):
            path.unlink()
        self._reject_occurrences: Counter[str] = Counter()
        self._batch = 0
        self._id_hashes = array("q")
        self._call_ranges: list[tuple[object, object]] = []
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

    @property
    def rows(self) -> int:
        """Rows taken: calls and rejects."""
        return self.raw.rows

    def add(self, rows: Iterable[JsonValue]) -> None:
        """Take rows in the order they were served."""
        rows = list(rows)
        with _computing:
            if self._redact is not None:
                rows = self._redact(rows)
            with explained():
                self.raw.add(rows)
            if self._waits:
                return
            self._pending += rows
            while len(self._pending) >= BATCH_ROWS:
                batch, self._pending = self._pending[:BATCH_ROWS], self._pending[BATCH_ROWS:]
                self._take(batch)

    def seal(self) -> None:
        """Finish: ``calls`` and ``rejected`` are then the calls and the rejects that were read."""
        with _computing:
            if self._pending:
                self._take(self._pending)
            self._pending = []
        with explained():
            self.raw.__exit__()
        if not self._waits:
            self._settle_ids()

    def make_tables(self) -> None:
        """Make the tables of a sealed spool that waits; of another one they are made already."""
        if self._waits:
            self._waits = False
            for rows in read_written(self.raw, BATCH_ROWS):
                with _computing:
                    self._take(rows)
            self._settle_ids()

    def _settle_ids(self) -> None:
        if doubled := self._doubled_hashes():
            self._superseded = self._superseded_places(doubled)
            self._take_again(frozenset())
        self._finish()

    def set_aside(self, call_ids: Collection[str]) -> None:
        """Make rejects of the rows of ``call_ids``: another window has a later row of each, which is the call."""
        self._is_sealed = False
        self._take_again(frozenset(call_ids))
        self._finish()

    def _finish(self) -> None:
        self.calls = len(self._id_hashes)
        if not all(last < first for (_, last), (first, _) in pairwise(self._call_ranges)):  # type: ignore[operator]
            self._arrange()
        self._is_sealed = True

    def batches(self, table: Table) -> Iterator[pa.Table]:
        """Yield the rows of ``table``, sorted, at most ``BATCH_ROWS`` calls at a time, in the columns spooled.

        Rejects are sorted within a batch only.
        """
        if not self._is_sealed:
            raise RuntimeError("the spool is not sealed")
        for path in self._files(table):
            yield _read(path)

    def _take(self, rows: list[JsonValue]) -> None:
        """Turn a batch into tables, and count what its rows are like."""
        count_field_types(rows, self.field_types)
        normalised = self._turn_into_tables(rows, ())
        self.usable += normalised.usable
        self.unread += normalised.unread
        self.rejected_fields.update(field or NO_FIELD for field in normalised.rejects["field"].to_pylist())

    def _turn_into_tables(self, rows: list[JsonValue], superseded: Collection[int]) -> CallTables:
        normalised = self._normalise(rows, self._reject_occurrences, superseded)
        self.rejected += normalised.rejects.num_rows
        calls = self._write(CALLS, normalised.calls)
        if calls.num_rows:
            self._id_hashes.extend(hash(call_id) for call_id in calls["call_id"].to_pylist())
            self._call_ranges.append((_key(calls, 0), _key(calls, calls.num_rows - 1)))
        self._write(CALL_PARTICIPANTS, normalised.participants)
        self._write(REJECTED_ROWS, normalised.rejects)
        self._batch += 1
        return normalised

    def _doubled_hashes(self) -> frozenset[int]:
        hashes, counts = np.unique(np.frombuffer(self._id_hashes, np.int64), return_counts=True)
        self.most_of_one_id = int(counts.max(initial=0))
        return frozenset(hashes[counts > 1].tolist())

    def _superseded_places(self, doubled: frozenset[int]) -> Any:
        """Return, in order, the places of rows after which another one of their id came that can be a call."""
        # A second hash tells two ids of one hash apart.
        found = array("q")
        for place, row in enumerate(self._rows_again()):
            call_id = call_id_of(row)
            if call_id is not None and hash(call_id) in doubled and self._can_be_call(row):
                found.extend((hash(call_id), hash(call_id + _SECOND_HASH), place))
        first, second, places = np.frombuffer(found, np.int64).reshape(-1, 3).T
        order = np.lexsort((places, second, first))
        first, second, places = first[order], second[order], places[order]
        has_later = (first[:-1] == first[1:]) & (second[:-1] == second[1:])
        return np.sort(places[:-1][has_later])

    def _rows_again(self) -> Iterator[JsonValue]:
        for batch in read_written(self.raw, BATCH_ROWS):
            yield from batch

    def _take_again(self, set_aside: frozenset[str]) -> None:
        """Make the tables anew, now that it is known which rows are not the call of their id."""
        self._begin()
        with _computing:
            first = 0
            for rows in read_written(self.raw, BATCH_ROWS):
                inside = slice(*np.searchsorted(self._superseded, (first, first + len(rows))))
                superseded = set((self._superseded[inside] - first).tolist())
                if set_aside:
                    superseded |= {place for place, row in enumerate(rows) if call_id_of(row) in set_aside}
                self._turn_into_tables(rows, superseded)
                first += len(rows)

    def _write(self, table: Table, rows: pa.Table) -> pa.Table:
        rows = rows.sort_by([(name, "ascending") for name in _ORDER[table.name]])
        if rows.num_rows:
            _write(rows, self._path / f"{table.name}-{self._batch:06d}.arrow")
        return rows

    def _arrange(self) -> None:
        """Sort over all batches.

        The files are mapped, not read: what is held in memory is the order, and one batch at a time.
        """
        for table in (CALLS, CALL_PARTICIPANTS):
            paths = self._files(table)
            if not paths:
                continue
            rows = pa.concat_tables([_read(path) for path in paths])
            keys = rows.select(_ORDER[table.name]).append_column("row", pa.array(np.arange(rows.num_rows)))
            order = keys.sort_by([(name, "ascending") for name in _ORDER[table.name]])["row"]
            for number, first in enumerate(range(0, len(order), BATCH_ROWS)):
                part = rows.take(order.slice(first, BATCH_ROWS))
                _write(part, self._path / f"arranged-{table.name}-{number:06d}.arrow")
            del rows
            for path in paths:
                path.unlink()
            for path in sorted(self._path.glob(f"arranged-{table.name}-*.arrow")):
                path.rename(self._path / path.name.removeprefix("arranged-"))

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
