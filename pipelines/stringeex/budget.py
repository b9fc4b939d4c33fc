"""One request budget for everything that runs against an account.

The provider counts requests in blocks aligned to its clock (00:00:00 to 00:00:10, the minute, the hour) and blocks
the account until the block ends when one is overdrawn. So does the budget, before a request is sent. Its clock and
the provider's may differ a little: a request sent close to the border of two blocks is counted in both.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipelines.settings import Settings
from pipelines.stringeex.endpoints import OPERATIONS, BudgetShare
from transforms.errors import RetryableError

CLOCK_SKEW_SECONDS = 0.2
_SMALLEST_BLOCK_SECONDS = 10
_LONGEST_BLOCK_SECONDS = 3600
_SHORTEST_WAIT_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Block:
    """At most ``limit`` requests of a ``share`` of the operations (None: of all) per ``seconds`` of the clock."""

    seconds: int
    limit: int
    share: BudgetShare | None = None

    def end(self, instant: float) -> float:
        """Return the end of the block of time that ``instant`` falls into."""
        return (instant // self.seconds + 1) * self.seconds


class Counters(Protocol):
    """Where the requests of all blocks are counted: in this process, or in a place that several processes share."""

    def take(self, blocks: Sequence[Block], now: float, skew: float) -> float:
        """Count one request in all ``blocks`` at once and return 0, or count nothing and return when to ask again."""

    def block_until(self, instant: float, now: float) -> None:
        """Let nothing through from ``now`` to ``instant``."""

    def exhausted(self, blocks: Sequence[Block], now: float) -> list[Block]:
        """Return those ``blocks`` that have no room at ``now``."""


@dataclass
class ProcessCounters:
    """Counters of one process, for all of its threads. Holds two numbers per block."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _taken: dict[tuple[Block, int], int] = field(default_factory=dict)
    _blocked_until: float = 0.0

    def take(self, blocks: Sequence[Block], now: float, skew: float) -> float:
        """See `Counters.take`."""
        possible = (round(now - skew, 6), round(now + skew, 6))  # a float a hair before a border is not before it
        slots = {(block, int(at // block.seconds)) for block in blocks for at in possible}
        with self._lock:
            if self._is_blocked(now):
                return self._blocked_until
            full = [(block, number) for block, number in slots if self._taken.get((block, number), 0) >= block.limit]
            if full:
                return max((number + 1) * block.seconds for block, number in full) + skew
            for slot in slots:
                self._taken[slot] = self._taken.get(slot, 0) + 1
            for block, number in [slot for slot in self._taken if (slot[1] + 1) * slot[0].seconds < now - skew]:
                del self._taken[block, number]
            return 0.0

    def block_until(self, instant: float, now: float) -> None:
        """See `Counters.block_until`."""
        with self._lock:
            self._blocked_until = max(self._blocked_until, instant) if self._is_blocked(now) else instant

    def _is_blocked(self, now: float) -> bool:
        # No block lasts for longer: the clock was set back since, by a day maybe, which nobody should wait for.
        return now < self._blocked_until <= now + _LONGEST_BLOCK_SECONDS + 2 * CLOCK_SKEW_SECONDS

    def exhausted(self, blocks: Sequence[Block], now: float) -> list[Block]:
        """See `Counters.exhausted`."""
        with self._lock:
            return [b for b in blocks if self._taken.get((b, int(now // b.seconds)), 0) >= b.limit]


class RequestBudget:
    """Lets a request through when every block that it counts in has room. Shared by all threads.

    ``clock`` gives epoch seconds. ``wait`` waits that many seconds, or shorter when the given event is set.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        counters: Counters | None = None,
        clock: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        skew_seconds: float = CLOCK_SKEW_SECONDS,
    ) -> None:
        self._blocks = [block for block in blocks if block.limit]
        self._counters = counters or ProcessCounters()
        self._clock = clock
        self._wait = wait
        self._skew_seconds = skew_seconds
        self._sent: Counter[str] = Counter()
        self._sent_lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: Settings) -> RequestBudget:
        """Return a budget with the limits of ``settings``."""
        return cls(
            [
                Block(10, settings.history_requests_per_10s, "history"),
                Block(10, settings.requests_per_10s),
                Block(60, settings.recordings_per_minute, "recording"),
                Block(3600, settings.requests_per_hour),
            ]
        )

    def acquire(self, operation: str, stopped: threading.Event | None = None) -> float:
        """Wait until a request of ``operation`` may be sent, count it, and return the seconds waited.

        Raises RetryableError when ``stopped`` is set meanwhile.
        """
        blocks, stopped = self._blocks_of(operation), stopped or threading.Event()
        began = self._clock()
        while (free_at := self._counters.take(blocks, now := self._clock(), self._skew_seconds)) > 0:
            self._wait(stopped, free_at - now)
            if stopped.is_set():
                raise RetryableError(f"{operation}: stopped while waiting for the request budget")
        with self._sent_lock:
            self._sent[operation] += 1
        return self._clock() - began

    def blocked(self, operation: str, retry_after_seconds: float | None = None) -> None:
        """Take note of an HTTP 429: everybody waits ``retry_after_seconds``, or until the block in question ends.

        That is the smallest block without room; when all have room, somebody else uses the account too, and it is the
        smallest one that ``operation`` counts in.
        """
        now = self._clock()
        if retry_after_seconds is not None:
            wait_seconds = min(max(retry_after_seconds, _SHORTEST_WAIT_SECONDS), _LONGEST_BLOCK_SECONDS)
            self._counters.block_until(now + wait_seconds + self._skew_seconds, now)
            return
        blocks = self._blocks_of(operation)
        candidates = self._counters.exhausted(blocks, now) or blocks or [Block(_SMALLEST_BLOCK_SECONDS, 0)]
        self._counters.block_until(min(block.end(now) for block in candidates) + self._skew_seconds, now)

    def counts(self) -> dict[str, int]:
        """Return how many requests of each operation were let through so far."""
        with self._sent_lock:
            return dict(self._sent)

    def _blocks_of(self, operation: str) -> list[Block]:
        return [block for block in self._blocks if block.share in (None, OPERATIONS[operation].budget_share)]


_shared: dict[tuple[object, ...], RequestBudget] = {}
_shared_lock = threading.Lock()


def shared_budget(settings: Settings) -> RequestBudget:
    """Return the one budget that this process has for the account and the limits of ``settings``."""
    account = (settings.base_url, settings.api_key_sid, settings.email)
    limits = (
        settings.history_requests_per_10s,
        settings.requests_per_10s,
        settings.recordings_per_minute,
        settings.requests_per_hour,
    )
    with _shared_lock:
        return _shared.setdefault((account, limits), RequestBudget.from_settings(settings))
