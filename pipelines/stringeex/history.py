"""Reading a window of the call history: every row that the portal holds, and whether they are all.

The API's own count is the proof. A read ends when that many rows were served, or with an empty page; a short page alone
means nothing. Pages come in ascending time order; a portal that refuses ``sort_order=asc`` gives them in descending
order within each part of the window. A window that one query cannot give is read in parts.

Memory: one page, and 8-byte hashes of the ids of one part of at most `MAX_PART_ROWS` rows (about 3 MB). Source of the
protocol: the provider's documentation of ``/v1/call/history``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.history_part import Part, TooFullError
from pipelines.stringeex.server_traits import ServerTraits
from transforms.epoch import epoch_ms
from transforms.json_text import JsonValue

MOST_PARTS = 2_000
"""Of one window: a count that grows with each split would be split without end."""
MOST_PIECES = 64
"""Of one split; what is still too full is split again."""


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Rows as served, to be kept: one of an id that the portal holds twice comes twice, one served again does not."""

    rows: list[JsonValue]


class HistoryReader:
    """Reads windows of the call history through ``client``.

    ``traits`` remembers what the server can do, for all readers that share it. Page size and result cap come from the
    client's settings.
    """

    def __init__(self, client: StringeeXClient, *, traits: ServerTraits | None = None) -> None:
        self.client = client
        self.traits = traits or ServerTraits()

    def read(self, window_start: datetime, window_end: datetime) -> WindowRead:
        """Begin a read of the half-open window of aware instants; the first page asked for is the first request."""
        if window_start.tzinfo is None or window_end.tzinfo is None or window_start >= window_end:
            raise ValueError("a window is a half-open interval of aware instants")
        return WindowRead(self.client, self.traits, epoch_ms(window_start), epoch_ms(window_end))


class WindowRead:
    """One read of one window: iterate it once, for its pages. The numbers are final when it is exhausted.

    ``api_total`` is the API's own count (null: it gave none), ``kept_rows`` the rows given. ``dispute`` is why the two
    do not prove that the rows are all; null when they do: then both are equal. ``served_rows`` counts every row that
    came, ``repeated_rows`` those that paging served again, ``outside_rows`` those whose start lies outside the window.
    ``requests`` counts pages asked for (retries are the client's), ``parts`` the reads that the window was split into.

    Iterating raises ``ReadAgainError`` when something about the server was learnt that the read has to begin with;
    another RetryableError when the answer is another window's; ApiError when the API refuses; DataError when one
    millisecond holds more calls than the API can serve.
    """

    def __init__(self, client: StringeeXClient, traits: ServerTraits, start_ms: int, end_ms: int) -> None:
        self.api_total: int | None = 0
        self.kept_rows = 0
        self.served_rows = 0
        self.repeated_rows = 0
        self.outside_rows = 0
        self.requests = 0
        self.parts = 0
        self._client = client
        self._traits = traits
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._disputes: list[str] = []
        self._count_ignores_time = False
        self._begun = False

    @property
    def dispute(self) -> str | None:
        """Why count and rows do not prove each other, with the numbers of up to three parts; null when they do."""
        more = len(self._disputes) - 3
        return "; ".join([*self._disputes[:3], *([f"and {more} more parts"] if more > 0 else [])]) or None

    def __iter__(self) -> Iterator[HistoryPage]:
        if self._begun:
            raise RuntimeError("a read is iterated once; begin another one to read the window again")
        self._begun = True
        yield from self._read_part(self._start_ms, self._end_ms, None)

    def _read_part(self, start_ms: int, end_ms: int, whole: int | None) -> Iterator[HistoryPage]:
        """Read a part of what ``whole`` rows were counted in (null: the window itself)."""
        part = Part(self, start_ms, end_ms, may_split=self._may_split())
        try:
            for rows in part.pages():
                self.kept_rows += len(rows)
                yield HistoryPage(rows)
        except TooFullError as full:
            if whole is not None and full.total >= whole and full.is_certain:
                # A part that counts no less than the whole is no smaller part: its count is not of this time.
                self._count_ignores_time = True
            if not self._may_split():
                yield from self._read_part(start_ms, end_ms, whole)
                return
            for sub_start_ms, sub_end_ms in pairwise(_boundaries(start_ms, end_ms, full.pieces)):
                yield from self._read_part(sub_start_ms, sub_end_ms, full.total)
                if not self._may_split() and sub_end_ms < end_ms:
                    yield from self._read_part(sub_end_ms, end_ms, full.total)
                    break
            return
        self.parts += 1
        self._sum_up(part)

    def _may_split(self) -> bool:
        return not self._count_ignores_time and self.parts < MOST_PARTS

    def _sum_up(self, part: Part) -> None:
        if part.total is None or self.api_total is None:
            self.api_total = None
        else:
            self.api_total += part.total
        if part.dispute is not None:
            self._disputes.append(part.dispute)

    def ask(self, params: list[tuple[str, str]]) -> Any:
        """Send one request for a page; return what its envelope carries."""
        self.requests += 1
        return self._client.request("history", params=params)

    @property
    def client(self) -> StringeeXClient:
        """What requests go through."""
        return self._client

    @property
    def traits(self) -> ServerTraits:
        """What is known of the server."""
        return self._traits

    def is_outside(self, start_time: int | None) -> bool:
        """Whether a row that starts at ``start_time`` (epoch ms) does not belong to the window."""
        return start_time is not None and not self._start_ms <= start_time < self._end_ms


def _boundaries(start_ms: int, end_ms: int, pieces: int) -> list[int]:
    pieces = min(max(pieces, 2), MOST_PIECES, end_ms - start_ms)
    return [start_ms + (end_ms - start_ms) * piece // pieces for piece in range(pieces + 1)]
