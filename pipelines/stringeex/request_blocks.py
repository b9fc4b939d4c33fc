"""The rules of the request budget: what was taken of each block of time, who goes first, who has to wait how long.

Pure: where the counts are kept, and by whose clock, is up to the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NotRequired, TypedDict

from pipelines.settings.endpoints import BudgetShare

CLOCK_SKEW_SECONDS = 0.2
HEAD_START_SECONDS = 3.0
"""How long into the next block those who had to wait for it keep it from lower priorities.

Three of them, one after the other, end within the smallest block, so that the lowest gets what the others leave.
"""

_SMALLEST_BLOCK_SECONDS = 10
_LONGEST_BLOCK_SECONDS = 3600
_SHORTEST_WAIT_SECONDS = 1
_ROUNDING_DIGITS = 6


class Priority(IntEnum):
    """Who goes first when requests are short: the smallest number."""

    INTERACTIVE = 0
    EXPORT = 1
    BACKFILL = 2
    RECORDINGS = 3
    VERIFY = 4


@dataclass(frozen=True, slots=True)
class Block:
    """At most ``limit`` requests of a ``share`` of the operations (None: of all) per ``seconds`` of the clock."""

    seconds: int
    limit: int
    share: BudgetShare | None = None

    @property
    def name(self) -> str:
        """What its requests are counted under, whatever the limit is."""
        return f"{self.share or 'all'} {self.seconds}s"

    def end(self, instant: float) -> float:
        """Return the end of the block of time that ``instant`` falls into."""
        return (instant // self.seconds + 1) * self.seconds


class Counts(TypedDict):
    """What is counted, as JSON can hold it; instants are epoch seconds.

    ``taken`` holds, by name of the block and number of the block of time since 1970, the requests let through, and
    ``block_seconds`` how long each block is (0.1.0 did not write it);
    ``wanted`` holds, by name and priority, until when lower priorities leave the block alone. ``asked_until`` is what
    an HTTP 429 asked for where that is later than ``blocked_until``.
    """

    taken: dict[str, dict[str, int]]
    wanted: dict[str, dict[str, float]]
    blocked_until: float
    asked_until: NotRequired[float]
    block_seconds: NotRequired[dict[str, int]]


class Wait(NamedTuple):
    """Why a request has to wait: ``full`` is the block without room, null where an HTTP 429 has blocked the account."""

    seconds: float
    full: Block | None
    asked_seconds: float | None
    """How long the HTTP 429 asked for, where that is longer than ``seconds``: then we ask again sooner."""


def no_counts() -> Counts:
    """Return the counts before the first request."""
    return Counts(taken={}, wanted={}, blocked_until=0.0)


def take(counts: Counts, blocks: Sequence[Block], priority: Priority, now: float, skew: float) -> float:
    """Count one request in all ``blocks`` and return 0, or count none and return the seconds until asking helps.

    This clock and the provider's may differ by ``skew`` seconds: close to the border of two blocks of time, a request
    counts in both. Whoever has to wait for a block keeps it from lower priorities until it has had its head start.
    """
    _forget(counts, blocks, now, skew)
    free_at = {block: _free_at(counts, block, priority, now, skew) for block in blocks}
    ask_again_at = max([counts["blocked_until"], *free_at.values()])
    if ask_again_at <= now:
        for block in blocks:
            taken = counts["taken"].setdefault(block.name, {})
            for number in _numbers(block, now, skew):
                taken[number] = taken.get(number, 0) + 1
        return 0.0
    for block, instant in free_at.items():
        if instant > now:
            wanted = counts["wanted"].setdefault(block.name, {})
            wanted[str(int(priority))] = max(wanted.get(str(int(priority)), 0.0), instant + HEAD_START_SECONDS)
    return ask_again_at - now


def cause_of_wait(
    counts: Counts, blocks: Sequence[Block], priority: Priority, wait_seconds: float, now: float, skew: float
) -> Wait:
    """Return what the ``wait_seconds`` that `take` has just returned are for."""
    free_at = {block: _free_at(counts, block, priority, now, skew) for block in blocks}
    full = max(free_at, key=lambda block: free_at[block], default=None)
    if full is not None and free_at[full] > counts["blocked_until"]:
        return Wait(wait_seconds, full, None)
    asked_until = counts.get("asked_until", 0.0)
    return Wait(wait_seconds, None, asked_until - now if asked_until > counts["blocked_until"] else None)


def block_account(
    counts: Counts, blocks: Sequence[Block], retry_after_seconds: float | None, now: float, skew: float
) -> None:
    """Let nothing through for ``retry_after_seconds``, or until the block that an HTTP 429 speaks of ends.

    No block is longer than an hour, so neither is this: who asks for more is asked again then.
    That is the smallest of ``blocks`` without room; when all have room, somebody else uses the account too, and it is
    the smallest of them.
    """
    _forget(counts, blocks, now, skew)
    if retry_after_seconds is not None:
        until = now + min(max(retry_after_seconds, _SHORTEST_WAIT_SECONDS), _LONGEST_BLOCK_SECONDS)
        counts["asked_until"] = now + retry_after_seconds + skew
    else:
        full = [block for block in blocks if _taken(counts, block, _number(block, now)) >= block.limit]
        candidates = full or blocks or [Block(_SMALLEST_BLOCK_SECONDS, 0)]
        until = min(block.end(now) for block in candidates)
    counts["blocked_until"] = max(counts["blocked_until"], until + skew)


def _free_at(counts: Counts, block: Block, priority: Priority, now: float, skew: float) -> float:
    """Return from when on ``block`` has room for this priority; not after ``now``: it has."""
    full = [number for number in _numbers(block, now, skew) if _taken(counts, block, number) >= block.limit]
    ends = [(int(number) + 1) * block.seconds + skew for number in full]
    wanted = counts["wanted"].get(block.name, {})
    return max(0.0, *ends, *(until for other, until in wanted.items() if int(other) < priority), 0.0)


def _number(block: Block, instant: float) -> str:
    return str(int(instant // block.seconds))


def _numbers(block: Block, now: float, skew: float) -> set[str]:
    # A float a hair before a border is not before it.
    return {_number(block, round(at, _ROUNDING_DIGITS)) for at in (now - skew, now + skew)}


def _taken(counts: Counts, block: Block, number: str) -> int:
    return counts["taken"].get(block.name, {}).get(number, 0)


def _forget(counts: Counts, blocks: Sequence[Block], now: float, skew: float) -> None:
    """Drop what is over, what lies so far ahead that the clock must have been set back, and what no block explains."""
    latest = now + _LONGEST_BLOCK_SECONDS + 2 * skew
    block_seconds = counts.setdefault("block_seconds", {})
    block_seconds.update({block.name: block.seconds for block in blocks})
    counts["taken"] = {name: taken for name, taken in counts["taken"].items() if name in block_seconds}
    for name, taken in counts["taken"].items():
        seconds = block_seconds[name]
        for number in [n for n in taken if not now - skew <= (int(n) + 1) * seconds <= latest + seconds]:
            del taken[number]
    for wanted in counts["wanted"].values():
        for priority in [
            p for p, until in wanted.items() if not now < until <= latest + HEAD_START_SECONDS * len(Priority)
        ]:
            del wanted[priority]
    if not now < counts["blocked_until"] <= latest:
        counts["blocked_until"] = 0.0
