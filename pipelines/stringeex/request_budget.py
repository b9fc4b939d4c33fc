"""One request budget for everything that runs against an account, in all processes and on all machines.

The provider counts requests in blocks aligned to its clock (00:00:00 to 00:00:10, the minute, the hour) and blocks
the account until the block ends when one is overdrawn. So does the budget, before a request is sent; the counts lie
where all who use the warehouse find them (`sinks.request_counters`). When requests are short, an export goes before a
backfill, both before recordings and recounts, and what a person waits for before all.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from pipelines.logs import logger
from pipelines.settings import Settings
from pipelines.settings.endpoints import OPERATIONS
from pipelines.stringeex.request_blocks import (
    CLOCK_SKEW_SECONDS,
    Block,
    Counts,
    Priority,
    Wait,
    block_account,
    cause_of_wait,
    no_counts,
    take,
)
from transforms.errors import AccountBlockedError, BusyError, RetryableError, StorageError

__all__ = ["Block", "Counters", "Priority", "ProcessCounters", "RequestBudget", "open_budget"]

T = TypeVar("T")

_WORTH_TELLING_SECONDS = 5.0
_SMALLEST_BLOCK_SECONDS = 15.0
"""The end of a block of ten seconds, and the head start of others: every busy run waits for it over and over."""
_ROUTINE_SECONDS = 65.0
"""The same of the minute: the first such wait is told, and no other."""

_SETTING_OF_BLOCK = {
    "history 10s": "STRINGEEX_HISTORY_REQUESTS_PER_10S",
    "all 10s": "STRINGEEX_REQUESTS_PER_10S",
    "recording 60s": "STRINGEEX_RECORDINGS_PER_MINUTE",
    "all 3600s": "STRINGEEX_REQUESTS_PER_HOUR",
}
_WORDS_OF_SECONDS = {10: "10 seconds", 60: "minute", 3600: "hour"}


class Counters(Protocol):
    """Where the counts are kept: in this process, or in a place that several processes share."""

    def change(self, body: Callable[[Counts | None, float], tuple[Counts, T]]) -> T:
        """Call ``body`` with the counts (null: none yet) and the time there, keep the counts it returns, alone."""

    def close(self) -> None:
        """Give back what reaching the place takes."""


class ProcessCounters:
    """Counters of one process, for all of its threads."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._counts: Counts | None = None
        self._clock = clock

    def change(self, body: Callable[[Counts | None, float], tuple[Counts, T]]) -> T:
        """See `Counters.change`."""
        with self._lock:
            self._counts, result = body(self._counts, self._clock())
            return result

    def close(self) -> None:
        """See `Counters.close`."""


class RequestBudget:
    """Lets a request through when every block that it counts in has room. Shared by all threads.

    Whoever has to wait for long is told until when, and why, by a warning in the log. ``longest_wait_seconds`` is for
    those who would rather fail than wait for longer.

    ``clock`` gives epoch seconds; ``counters`` of several processes have their own. ``wait`` waits that many seconds,
    or shorter when the given event is set.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        *,
        counters: Counters | None = None,
        priority: Priority = Priority.EXPORT,
        longest_wait_seconds: float | None = None,
        clock: Callable[[], float] = time.time,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
        skew_seconds: float = CLOCK_SKEW_SECONDS,
    ) -> None:
        self._blocks = [block for block in blocks if block.limit]
        self._own_counters = ProcessCounters(clock)
        self._counters = counters or self._own_counters
        self._priority = priority
        self._longest_wait_seconds = longest_wait_seconds
        self._told_until: dict[Block | None, float] = {}
        self._clock = clock
        self._wait = wait
        self._skew_seconds = skew_seconds
        self._sent: Counter[str] = Counter()
        self._sent_lock = threading.Lock()

    def acquire(self, operation: str, stopped: threading.Event | None = None) -> float:
        """Wait until a request of ``operation`` may be sent, count it, and return the seconds waited.

        Raises RetryableError when ``stopped`` is set meanwhile, AccountBlockedError, at once, for a wait that is longer
        than the longest, and what the counters raise, except for a person who waits: their request is then counted in
        this process only, with a warning.
        """
        blocks, stopped = self._blocks_of(operation), stopped or threading.Event()

        def take_or_say_why(counts: Counts, now: float) -> Wait | None:
            seconds = take(counts, blocks, self._priority, now, self._skew_seconds)
            return cause_of_wait(counts, blocks, self._priority, seconds, now, self._skew_seconds) if seconds else None

        began = self._clock()
        while wait := self._change(blocks, take_or_say_why):
            if self._longest_wait_seconds is not None and wait.seconds > self._longest_wait_seconds:
                raise AccountBlockedError(f"{operation}: {self._described(wait)}")
            self._tell(wait)
            self._wait(stopped, wait.seconds)
            if stopped.is_set():
                raise RetryableError(f"{operation}: stopped while waiting for the request budget")
        with self._sent_lock:
            self._sent[operation] += 1
        return self._clock() - began

    def blocked(self, operation: str, retry_after_seconds: float | None = None) -> None:
        """Take note of an HTTP 429: everybody waits ``retry_after_seconds``, or until the block in question ends.

        Raises as `acquire`.
        """
        blocks = self._blocks_of(operation)
        self._change(
            blocks, lambda counts, now: block_account(counts, blocks, retry_after_seconds, now, self._skew_seconds)
        )

    def counts(self) -> dict[str, int]:
        """Return how many requests of each operation were let through here so far."""
        with self._sent_lock:
            return dict(self._sent)

    def close(self) -> None:
        """Give back what the counters hold; the next use takes it anew."""
        self._counters.close()

    def _tell(self, wait: Wait) -> None:
        """Say once, for all threads, until when nothing is sent."""
        if wait.seconds < (_WORTH_TELLING_SECONDS if wait.full is None else _SMALLEST_BLOCK_SECONDS):
            return
        is_routine = wait.full is not None and wait.seconds <= _ROUTINE_SECONDS
        until = self._clock() + wait.seconds
        with self._sent_lock:
            told_until = self._told_until.get(wait.full)
            if told_until is not None and (is_routine or until < told_until + _WORTH_TELLING_SECONDS):
                return
            self._told_until[wait.full] = until
        logger.warning("%s", self._described(wait))

    def _described(self, wait: Wait) -> str:
        now = self._clock()
        until = _clock_time(now, now + wait.seconds)
        if wait.full is not None:
            setting = _SETTING_OF_BLOCK.get(wait.full.name)
            per = _WORDS_OF_SECONDS.get(wait.full.seconds, f"{wait.full.seconds} seconds")
            named = f" ({setting})" if setting else ""
            counted = f"{wait.full.limit:,} request{'' if wait.full.limit == 1 else 's'}"
            return f"the budget of {counted} per {per}{named} is used up; waiting until {until}"
        if wait.asked_seconds is None:
            return f"the API has limited the rate of this account (HTTP 429); waiting until {until}"
        asked = _clock_time(now, now + wait.asked_seconds)
        return f"the API has limited the rate of this account (HTTP 429) until {asked}; it is asked again at {until}"

    def _blocks_of(self, operation: str) -> list[Block]:
        return [block for block in self._blocks if block.share in (None, OPERATIONS[operation].budget_share)]

    def _change(self, blocks: Sequence[Block], change: Callable[[Counts, float], T]) -> T:
        def body(counts: Counts | None, now: float) -> tuple[Counts, T]:
            counts = counts or no_counts()
            result = change(counts, now)
            return counts, result

        # Without a limit there is nothing to share.
        counters = self._counters if blocks else self._own_counters
        try:
            return counters.change(body)
        except (BusyError, StorageError) as error:
            if self._priority is not Priority.INTERACTIVE or counters is self._own_counters:
                raise
            logger.warning("counting requests in this process only: %s", error)
            self._counters = self._own_counters
            return self._own_counters.change(body)


def _clock_time(now: float, instant: float) -> str:
    """Return an instant by the clock on this machine's wall and in UTC, with the date where that is not today's."""
    utc = datetime.fromtimestamp(instant, UTC)
    local = utc.astimezone()
    in_utc = f"{utc:%Y-%m-%d %H:%M:%S}" if utc.date() != local.date() else f"{utc:%H:%M:%S}"
    date = f"{local:%Y-%m-%d} " if local.date() != datetime.fromtimestamp(now, local.tzinfo).date() else ""
    return f"{date}{local:%H:%M:%S} ({in_utc} UTC)"


def open_budget(
    settings: Settings, priority: Priority, *, longest_wait_seconds: float | None = None, is_shared: bool = True
) -> RequestBudget:
    """Return a budget with the limits of ``settings``, counted together with all who use the same warehouse.

    Nothing is opened before the first request that has a limit. One that is not shared counts for itself: for whoever
    knows that the warehouse cannot be reached.
    """
    blocks = [
        Block(10, settings.history_requests_per_10s, "history"),
        Block(10, settings.requests_per_10s),
        Block(60, settings.recordings_per_minute, "recording"),
        Block(3600, settings.requests_per_hour),
    ]
    if not is_shared or not any(block.limit for block in blocks):
        return RequestBudget(blocks, priority=priority, longest_wait_seconds=longest_wait_seconds)
    from sinks.request_counters import RequestCounters

    counters: RequestCounters[Counts] = RequestCounters(
        settings.warehouse_url.get_secret_value(), settings.warehouse_schema, urlsplit(settings.base_url).netloc
    )
    return RequestBudget(blocks, counters=counters, priority=priority, longest_wait_seconds=longest_wait_seconds)
