"""The simulated portal's own clock: real time, until a test sets or advances it."""

from __future__ import annotations

import time
from datetime import datetime


class Clock:
    """Tells the time in epoch milliseconds.

    >>> clock = Clock(); clock.set(1_751_236_747_978); clock.advance(2.5); clock.now_ms()
    1751236750478
    """

    def __init__(self, now_ms: int | datetime | None = None) -> None:
        self._frozen_ms: int | None = None
        self._ahead_ms = 0
        if now_ms is not None:
            self.set(now_ms)

    def now_ms(self) -> int:
        """Return the portal's time."""
        base = time.time_ns() // 1_000_000 if self._frozen_ms is None else self._frozen_ms
        return base + self._ahead_ms

    def set(self, instant: int | datetime) -> None:
        """Stop the clock at an instant (epoch ms, or an aware datetime)."""
        if isinstance(instant, datetime):
            if instant.tzinfo is None:
                raise ValueError("the clock needs an aware datetime")
            instant = round(instant.timestamp() * 1000)
        self._frozen_ms, self._ahead_ms = instant, 0

    def advance(self, seconds: float) -> None:
        """Move on, whether the clock runs or stands still."""
        self._ahead_ms += round(seconds * 1000)

    def resume(self) -> None:
        """Go back to real time."""
        self._frozen_ms, self._ahead_ms = None, 0
