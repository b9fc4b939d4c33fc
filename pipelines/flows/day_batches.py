"""Which local days of a run share a Prefect task: many small ones, and no large ones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.export.planner import DayPlan

CALLS_PER_TASK = 5_000
"""Days share a task up to so many calls. Prefect takes a quarter of a second for a task, an export of these one."""
MAX_DAYS_PER_TASK = 31


@dataclass(frozen=True)
class DayBatch:
    """Local days that one task exports, one after the other; each is claimed and published on its own."""

    days: tuple[DayPlan, ...]

    @property
    def label(self) -> str:
        """What the task is called in Prefect: the day, or the first and the last one."""
        dates = [day.call_date for day in self.days]
        return f"{min(dates)}" if len(dates) == 1 else f"{min(dates)}..{max(dates)} ({len(dates)} days)"


class DayBatches:
    """Deals out the days of a run, in their order. How large the next ones are is learnt from those that are done."""

    def __init__(self, plans: Iterable[DayPlan]) -> None:
        self._pending = deque(plans)
        self._days_done = self._calls_done = 0

    def __bool__(self) -> bool:
        """Whether there are days left."""
        return bool(self._pending)

    def learn(self, days: int, calls: int) -> None:
        """Take note that ``days`` which are done had so many ``calls``."""
        self._days_done += days
        self._calls_done += calls

    def take(self, tasks_ahead: int) -> DayBatch:
        """Return the next days, where ``tasks_ahead`` tasks are submitted at a time: each of them gets its part."""
        most_days = min(math.ceil(len(self._pending) / tasks_ahead), MAX_DAYS_PER_TASK)
        taken = [self._pending.popleft()]
        calls = self._expected_calls(taken[0])
        while self._pending and len(taken) < most_days:
            calls += self._expected_calls(self._pending[0])
            if calls > CALLS_PER_TASK:
                break
            taken.append(self._pending.popleft())
        return DayBatch(tuple(taken))

    def _expected_calls(self, day: DayPlan) -> float:
        known = [planned.known_calls for planned in day.windows]
        if None not in known:
            return sum(calls or 0 for calls in known)
        # The day's calls are not known: before any day is done, it may be of any size.
        return self._calls_done / self._days_done if self._days_done else math.inf
