"""How long the rest of a drain will take, told honestly."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """Counts what is done of ``due`` recordings within limits of requests (0: none)."""

    def __init__(self, due: int, per_minute: int, per_hour: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.due = due
        self.done = 0
        self._clock = clock
        self._began = clock()
        limits = [limit / seconds for limit, seconds in ((per_minute, 60), (per_hour, 3600)) if limit]
        self._fastest_per_second = min(limits, default=None)

    def eta_seconds(self) -> float | None:
        """Return the seconds that the rest takes at the pace so far, and no less than the limits make it take.

        The limits alone, while nothing is done; null when there are none either.
        """
        left = max(self.due - self.done, 0)
        elapsed = self._clock() - self._began
        by_limits = left / self._fastest_per_second if self._fastest_per_second else None
        by_pace = left * elapsed / self.done if self.done else None
        return max((seconds for seconds in (by_limits, by_pace) if seconds is not None), default=None)
