"""The raw copy: every row as the API served it, one JSON line each, compressed with zstd.

A file is named by its window (both ends), by when its content was first read, by a hash of that content, and, where
the read was not believed as a whole, by what was decided about it. Reading a window again and finding the same rows
therefore adds nothing, and each different state of a window is kept: the tables, their timestamps and the history of
changes can all be rebuilt from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from io import IOBase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import orjson
import pyarrow as pa

from sinks.content_hash import MultisetHash
from sinks.storage import Storage
from transforms.errors import DataError
from transforms.json_text import JsonValue, exact_json, parse_json

ONE_MILLISECOND = timedelta(milliseconds=1)
_STAMP = "%Y%m%dT%H%M%S"
_SUFFIX = ".jsonl.zst"


class Verdict(StrEnum):
    """How far a read of a window is believed."""

    PROVEN = "proven"
    """Rows and count agree: a call that is not among the rows is gone."""
    DISPUTED = "disputed"
    """They do not agree: the rows are believed, and no call is taken for gone."""
    HELD = "held"
    """Nothing of it is published before somebody has looked at it."""


@dataclass(frozen=True, order=True)
class RawFile:
    """One state of one window. ``read_at`` is when this content was first seen."""

    window_start: datetime
    window_end: datetime
    read_at: datetime
    content_hash: str
    call_date: date
    verdict: Verdict = Verdict.PROVEN

    @property
    def name(self) -> str:
        """Path below the lake's root."""
        verdict = "" if self.verdict is Verdict.PROVEN else f".{self.verdict}"
        return (
            f"{raw_folder(self.call_date)}/{_stamp(self.window_start)}--{_stamp(self.window_end)}"
            f".{_stamp(self.read_at)}.{self.content_hash}{verdict}{_SUFFIX}"
        )

    def is_of(self, window_start: datetime, window_end: datetime) -> bool:
        """Whether it is a state of the window ``[window_start, window_end)``, and not of one that begins with it."""
        return (self.window_start, self.window_end) == (window_start, window_end)

    @classmethod
    def parse(cls, name: str) -> RawFile:
        """Read a file's name back; raises ``ValueError`` for a name that is not one of ours."""
        path = PurePosixPath(name)
        window, read_at, content_hash, *verdicts = path.name.removesuffix(_SUFFIX).split(".")
        start, end = window.split("--")
        call_date = date.fromisoformat(path.parent.name.removeprefix("call_date="))
        [verdict] = map(Verdict, verdicts or [Verdict.PROVEN])
        return cls(_parse_stamp(start), _parse_stamp(end), _parse_stamp(read_at), content_hash, call_date, verdict)


class RawWriter:
    """Writes rows to a local file as they arrive; a context manager. ``rows`` and ``content_hash`` tell the sum."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._hash = MultisetHash()
        self._stream = pa.CompressedOutputStream(str(path), "zstd")

    def __enter__(self) -> RawWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, rows: Iterable[JsonValue]) -> None:
        """Append ``rows``."""
        lines = [json_line(row) for row in rows]
        for line in lines:
            self._hash.add(_line_hash(line))
        self.rows += len(lines)
        if lines:
            self._stream.write(b"\n".join(lines) + b"\n")

    @property
    def content_hash(self) -> str:
        """Hash of the rows so far, independent of their order."""
        return self._hash.hexdigest()


def json_line(row: JsonValue) -> bytes:
    """Return ``row`` as one line of JSON that `transforms.json_text.parse_json` reads back as the same value."""
    try:
        return orjson.dumps(row, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError:
        # A number too long, a key served twice, a lone surrogate, or nested deeper than orjson writes.
        return exact_json(row).encode()


def raw_folder(call_date: date) -> str:
    """Return the folder of a day's files, below the lake's root."""
    return f"raw/call_date={call_date}"


def raw_dates(storage: Storage) -> set[date]:
    """Return the local days that have a file."""
    return {RawFile.parse(name).call_date for name in storage.names("raw", _SUFFIX)}


def raw_files(storage: Storage, call_date: date) -> list[RawFile]:
    """Return the day's files, sorted by window and then by ``read_at``."""
    return sorted(RawFile.parse(name) for name in storage.names(raw_folder(call_date), _SUFFIX))


def believed_states(storage: Storage, call_date: date, window_start: datetime, window_end: datetime) -> list[RawFile]:
    """Return the states of the window ``[window_start, window_end)`` that were published, oldest first: none held."""
    files = raw_files(storage, call_date)
    return [f for f in files if f.is_of(window_start, window_end) and f.verdict is not Verdict.HELD]


def publish_raw(storage: Storage, writer: RawWriter, file: RawFile) -> RawFile:
    """Publish a closed ``writer``'s rows as ``file``, unless the newest state of the window says the same.

    Returns the file that holds the content: its ``read_at`` is when the content was first seen. A state that comes
    later is later by its ``read_at`` too, though the machine's clock may have been set back.
    """
    states = [f for f in raw_files(storage, file.call_date) if f.is_of(file.window_start, file.window_end)]
    comparable = states if file.verdict is Verdict.HELD else [f for f in states if f.verdict is not Verdict.HELD]
    if comparable and _says_the_same(comparable[-1], file):
        return comparable[-1]
    if states:
        file = replace(file, read_at=max(file.read_at, states[-1].read_at + ONE_MILLISECOND))
    storage.publish(writer.path, file.name)
    return file


def _says_the_same(newest: RawFile, file: RawFile) -> bool:
    """Whether publishing ``file`` after ``newest`` would change nothing.

    The same rows under a dispute say nothing new. The same rows, now proven, do: what is not among them is gone.
    """
    verdicts = (newest.verdict, file.verdict)
    return newest.content_hash == file.content_hash and (
        newest.verdict is file.verdict or verdicts == (Verdict.PROVEN, Verdict.DISPUTED)
    )


def read_raw(storage: Storage, file: RawFile, batch_rows: int) -> Iterator[list[JsonValue]]:
    """Yield the rows of ``file`` in batches of at most ``batch_rows``.

    Raises ``DataError`` at the latest at the end when the file is not what was written: cut short, or altered.
    """
    found = MultisetHash()
    try:
        with storage.open(file.name) as stream:
            yield from _row_batches(stream, batch_rows, found)
    except (OSError, ValueError) as error:
        raise DataError(f"the raw copy {file.name} is damaged: bring it back from a backup") from error
    if found.hexdigest() != file.content_hash:
        raise DataError(f"the raw copy {file.name} is not what was written: bring it back from a backup")


def read_written(writer: RawWriter, batch_rows: int) -> Iterator[list[JsonValue]]:
    """Yield the rows of a closed ``writer`` again, in the order they were added, at most ``batch_rows`` at a time."""
    with writer.path.open("rb") as stream:
        yield from _row_batches(stream, batch_rows, MultisetHash())


def _row_batches(stream: BinaryIO, batch_rows: int, found: MultisetHash) -> Iterator[list[JsonValue]]:
    batch: list[JsonValue] = []
    with pa.CompressedInputStream(cast(IOBase, stream), "zstd") as lines:
        for line in _lines(lines):
            found.add(_line_hash(line))
            batch.append(parse_json(line))
            if len(batch) == batch_rows:
                yield batch
                batch = []
    if batch:
        yield batch


def _line_hash(line: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(line, digest_size=16).digest())


def _lines(stream: pa.NativeFile) -> Iterator[bytes]:
    rest = b""
    while chunk := stream.read(1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):{_STAMP}}{instant.microsecond // 1000:03d}Z"


def _parse_stamp(text: str) -> datetime:
    whole, milliseconds = text[:-4], text[-4:-1]
    return datetime.strptime(whole, _STAMP).replace(tzinfo=UTC, microsecond=int(milliseconds) * 1000)
