"""How far a run is: a bar per local day on a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from pipelines.cli.output import Output, counted
from transforms.errors import CallHistoryError, RateLimitedError

if TYPE_CHECKING:
    from datetime import date

    from rich.progress import TaskID

    from pipelines.export.planner import DayPlan
    from pipelines.export.progress import Event

_SECONDS_BETWEEN_LINES = 5.0


class ProgressLines:
    """Lines of progress, one every few seconds."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._last_at = time.monotonic()

    def log(self, line: str) -> None:
        """Show the line if the last one was long enough ago."""
        if time.monotonic() - self._last_at >= _SECONDS_BETWEEN_LINES:
            self._last_at = time.monotonic()
            self._output.log(line)


class RunProgress:
    """Listens to the steps of a run (``on_event``), from any thread, and shows how far the planned days are."""

    def __init__(self, output: Output, plans: Sequence[DayPlan]) -> None:
        self._output = output
        self._windows_left = {plan.call_date: len(plan.windows) for plan in plans}
        self._windows = sum(self._windows_left.values())
        self._windows_done = 0
        self._rows_read: dict[object, int] = {}
        self._lines = ProgressLines(output)
        self._lock = threading.Lock()
        self._bars = _Bars(output, len(plans)) if output.shows_bars else None

    def __enter__(self) -> RunProgress:
        if self._bars:
            self._bars.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars:
            self._bars.progress.stop()

    def __call__(self, event: Event) -> None:
        """Take note of a step."""
        from pipelines.export.progress import Step

        with self._lock:
            self._rows_read[event.window] = max(event.rows_read, self._rows_read.get(event.window, 0))
            is_over = event.step in (Step.COMMITTED, Step.HELD, Step.FAILED)
            if is_over:
                self._windows_done += 1
                self._windows_left[event.window.call_date] -= 1
            calls = sum(self._rows_read.values())
            if self._bars:
                self._bars.show(event, calls, self._windows_left)
            elif self._output.json_logs:
                level = logging.INFO if is_over else logging.DEBUG
                rows = {"rows_read": event.rows_read, "rows_expected": event.rows_expected}
                self._output.log(f"window {event.step}", level, step=event.step.value, **rows)
            elif self._output.verbose:
                self._output.log(f"{event.window.label} {event.step}{_rows(event)}")
            else:
                self._lines.log(
                    f"{self._windows_done:,} of {counted(self._windows, 'window')} done, "
                    f"{counted(calls, 'call')} read; now at {event.window.call_date}"
                )


class _Bars:
    """One bar for the run, and one for each local day that is being worked on."""

    def __init__(self, output: Output, days: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=output.logs,
            transient=True,
        )
        self._days = days
        self._run = self.progress.add_task("all days", total=days, state="")
        self._of_day: dict[date, TaskID] = {}

    def show(self, event: Event, calls: int, windows_left: dict[date, int]) -> None:
        day = event.window.call_date
        done = sum(not left for left in windows_left.values())
        self.progress.update(
            self._run, completed=done, state=f"{done:,} of {counted(self._days, 'day')}, {counted(calls, 'call')} read"
        )
        if not windows_left[day]:
            if day in self._of_day:
                self.progress.remove_task(self._of_day.pop(day))
            return
        if day not in self._of_day:
            self._of_day[day] = self.progress.add_task(day.isoformat(), total=None, state="")
        task = self._of_day[day]
        self.progress.update(task, state=event.step.value.replace("_", " ") + _rows(event))
        if event.rows_expected is not None:
            self.progress.update(task, completed=event.rows_read, total=event.rows_expected)


def tell_retries(output: Output) -> None:
    """Tell of every retry with ``--verbose``, and of none without: each ends well, or in an error that is told."""
    from stamina.instrumentation import RetryDetails, set_on_retry_hooks

    def tell(details: RetryDetails) -> None:
        cause = details.caused_by
        # The text of a foreign exception may quote a row.
        reason = str(cause) if isinstance(cause, CallHistoryError) else type(cause).__name__
        # After an HTTP 429 it is the budget that keeps everybody waiting, not the pause between two tries.
        is_budgets = isinstance(cause, RateLimitedError)
        when = "when the account may send again" if is_budgets else f"in {details.wait_for:.1f} seconds"
        output.log(f"trying again {when}: {reason}")

    set_on_retry_hooks([tell] if output.verbose else [])


def _rows(event: Event) -> str:
    if event.rows_expected is None:
        return ""
    return f" ({event.rows_read:,} of {counted(event.rows_expected, 'call')})"
