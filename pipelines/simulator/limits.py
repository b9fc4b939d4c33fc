"""The account's rate limits: requests counted in blocks aligned to the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Requests allowed per block; 0 means no limit. The defaults are the published ones."""

    history_per_10s: int = 30
    all_per_10s: int = 300
    all_per_hour: int = 9_000
    recordings_per_minute: int = 30


NO_LIMITS = RateLimits(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Usage:
    """The state of the limit that is nearest to its end: what was used, and when its block ends."""

    limit: int
    used: int
    seconds_left: float

    @property
    def exceeded(self) -> bool:
        """Whether the request that was just counted is one too many."""
        return self.used > self.limit

    def headers(self) -> dict[str, str]:
        """Return the answer's ``X-`` headers (their spelling is not published)."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Used": str(min(self.used, self.limit)),
            "X-RateLimit-Remaining": str(max(self.limit - self.used, 0)),
            "X-RateLimit-Reset": f"{self.seconds_left:.3f}",
        }


class Blocks:
    """Counts requests per limit and block. The caller serialises access."""

    def __init__(self, limits: RateLimits, now: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self._now = now
        self._blocks: dict[str, tuple[int, int]] = {}

    def count(self, operation: str) -> Usage | None:
        """Count one request of an operation; return the tightest limit, or None where none applies."""
        limits = self.limits
        shares = [("all_per_10s", limits.all_per_10s, 10), ("all_per_hour", limits.all_per_hour, 3600)]
        if operation == "history":
            shares.append(("history_per_10s", limits.history_per_10s, 10))
        if operation == "download_recording":
            shares.append(("recordings_per_minute", limits.recordings_per_minute, 60))
        now = self._now()
        usages = []
        for name, limit, seconds in shares:
            if limit > 0:
                block = int(now // seconds)
                counted_block, used = self._blocks.get(name, (block, 0))
                used = used + 1 if counted_block == block else 1
                self._blocks[name] = (block, used)
                usages.append(Usage(limit, used, (block + 1) * seconds - now))
        return min(usages, key=lambda usage: (usage.limit - usage.used, -usage.seconds_left), default=None)
