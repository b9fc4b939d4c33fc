"""Reading the archive back: is everything there, and is it what was archived?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import Any

from pipelines.context import Stores, open_archive, utc_now
from sinks.archive import SIDECAR_SUFFIX, Archive
from sinks.recordings import KeptRecording, Recordings, RecordingStatus

_AT_ONCE = 64
_DOUBTFUL_NAMED = 1_000


class Finding(StrEnum):
    """What a look at an archived recording shows."""

    RIGHT = "right"
    MISSING = "missing"
    DAMAGED = "damaged"
    WITHOUT_FACTS = "without_facts"


_WORDS = {
    Finding.MISSING: "is not in the archive",
    Finding.DAMAGED: "is not what was archived: its bytes have changed",
    Finding.WITHOUT_FACTS: "has lost the JSON of its call's facts",
}


@dataclass(frozen=True)
class Problem:
    """An archived recording that is not as it was; ``can_refetch`` while it was not deleted at the source."""

    call_id: str
    archive_path: str
    finding: Finding
    can_refetch: bool

    @property
    def text(self) -> str:
        """The problem in words."""
        return f"{self.archive_path} {_WORDS[self.finding]}"


@dataclass(frozen=True)
class Doubtful:
    """An archived recording that had something odd about it when it came (``doubt``, as in the table)."""

    call_id: str
    archive_path: str
    doubt: str


@dataclass(frozen=True)
class Verification:
    """What a verification found: recordings listed, recordings and bytes read back, and everything that is wrong.

    ``doubtful`` are the first that had something odd about them when they came, and ``doubts`` counts all, by doubt:
    they are what the provider served, so nothing is wrong with the archive.
    """

    listed: int
    read_back: int
    bytes_read: int
    problems: Sequence[Problem]
    wanted_again: int
    doubtful: Sequence[Doubtful] = ()
    doubts: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the verification as JSON can hold it."""
        return {
            "right": self.is_right,
            "listed": self.listed,
            "read_back": self.read_back,
            "bytes_read": self.bytes_read,
            "wanted_again": self.wanted_again,
            "problems": [
                {"call_id": p.call_id, "archive_path": p.archive_path, "finding": p.finding.value, "message": p.text}
                for p in self.problems
            ],
            "doubts": dict(self.doubts),
            "doubtful": [asdict(recording) for recording in self.doubtful],
        }


def verify_recordings(
    stores: Stores,
    *,
    sample: int | None = None,
    refetch: bool = False,
    on_progress: Callable[[int, int], None] = lambda _done, _bytes: None,
    now: Callable[[], datetime] = utc_now,
) -> Verification:
    """Look for every archived recording in one listing; read all back, or a ``sample``, and compare the hashes.

    A sample is what was not read back for the longest time. ``refetch`` has what is missing or damaged fetched anew by
    the next archive run, where it is still at the source. What is right gets ``verified_at``, what is not
    ``last_error``. Raises ``StorageError`` when the archive cannot be read at all, and ``SettingsError`` when it is
    not the archive of this warehouse.
    """
    recordings, archive = Recordings(stores.warehouse), open_archive(stores, only_look=True)
    sizes = archive.storage.sizes()
    listed, problems = 0, []
    doubtful: list[Doubtful] = []
    doubts: Counter[str] = Counter()
    for kept in recordings.kept():
        listed += 1
        finding = _by_listing(kept, sizes)
        if finding is not Finding.RIGHT:
            problems.append(_problem(kept, finding))
        if kept.doubt is not None:
            doubts[kept.doubt] += 1
            if len(doubtful) < _DOUBTFUL_NAMED:
                doubtful.append(Doubtful(kept.call_id, kept.archive_path, kept.doubt))
    _note(recordings, problems)
    wrong = {problem.call_id for problem in problems}
    read_back = bytes_read = 0
    with ThreadPoolExecutor(stores.settings.concurrency, thread_name_prefix="verify") as pool:
        for batch in _batches(kept for kept in recordings.kept(most=sample) if kept.call_id not in wrong):
            findings = list(pool.map(lambda kept: by_content(archive, kept), batch))
            found = [_problem(k, f) for k, f in zip(batch, findings, strict=True) if f is not Finding.RIGHT]
            verified_at = now()
            right = [k.call_id for k, f in zip(batch, findings, strict=True) if f is Finding.RIGHT]
            recordings.save({call_id: {"verified_at": verified_at, "last_error": None} for call_id in right})
            _note(recordings, found)
            problems += found
            read_back += len(batch)
            bytes_read += sum(kept.bytes for kept in batch)
            on_progress(read_back, bytes_read)
    again = [problem.call_id for problem in problems if refetch and problem.can_refetch]
    recordings.want_again(again)
    return Verification(listed, read_back, bytes_read, problems, len(again), doubtful, doubts)


def by_content(archive: Archive, kept: KeptRecording) -> Finding:
    """Read a recording back and compare it with what was archived."""
    digest = archive.digest(kept.archive_path)
    if digest is None:
        return Finding.MISSING
    return Finding.RIGHT if (digest.bytes, digest.sha256) == (kept.bytes, kept.sha256) else Finding.DAMAGED


def _by_listing(kept: KeptRecording, sizes: Mapping[str, int]) -> Finding:
    size = sizes.get(kept.archive_path)
    if size is None:
        return Finding.MISSING
    if size != kept.bytes:
        return Finding.DAMAGED
    return Finding.RIGHT if kept.archive_path + SIDECAR_SUFFIX in sizes else Finding.WITHOUT_FACTS


def _problem(kept: KeptRecording, finding: Finding) -> Problem:
    return Problem(kept.call_id, kept.archive_path, finding, kept.status is RecordingStatus.ARCHIVED)


def _note(recordings: Recordings, problems: Iterable[Problem]) -> None:
    changes = {problem.call_id: {"last_error": problem.text} for problem in problems}
    if changes:
        recordings.save(changes)


def _batches(items: Iterable[KeptRecording]) -> Iterator[list[KeptRecording]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _AT_ONCE)):
        yield batch
