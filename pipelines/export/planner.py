"""What is due: a pure answer from the ledger, the clock and the settings. There is no cursor to lose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from pipelines.windows import Window, day_windows, days_between
from sinks.ledger import LedgerRow, WindowStatus


class Due(StrEnum):
    """Why a window is to be read."""

    NEW = "new"
    FAILED = "failed"
    DISPUTED = "disputed"
    INTERRUPTED = "interrupted"
    OPEN = "open"
    REREAD = "reread"
    ALTERED = "altered"
    """The lake does not hold what the certificate says."""
    FORCED = "forced"


@dataclass(frozen=True)
class PlannedWindow:
    """A window that is due, why, and what the ledger knew of it: its calls, and when it was last complete."""

    window: Window
    due: Due
    known_calls: int | None
    completed_at: datetime | None

    @property
    def start(self) -> datetime:
        """First instant of the window."""
        return self.window.start

    @property
    def end(self) -> datetime:
        """First instant after the window."""
        return self.window.end


@dataclass(frozen=True)
class DayPlan:
    """The due windows of one local day, oldest first. A day is what a run claims and works on as a whole."""

    call_date: date
    windows: tuple[PlannedWindow, ...]
    lock_start: datetime
    """Start of the day's first window, due or not: its ledger row carries the claim on the day."""
    lock_end: datetime
    window_count: int
    """How many windows the day has in all, due or not."""


def next_reread(window_end: datetime, read_at: datetime, ages: Sequence[timedelta]) -> tuple[datetime | None, bool]:
    """Return when a window read at ``read_at`` is due again, and whether it is settled.

    Calls arrive and change late, so a closed window is read again at each of ``ages`` after its end. A window that
    was still open is due from its end on. The last age behind it, it is settled.
    """
    if read_at < window_end:
        return window_end, False
    for age in sorted(ages):
        if window_end + age > read_at:
            return window_end + age, False
    return None, True


def why_due(
    row: LedgerRow | None, window: Window, now: datetime, *, force: bool, is_altered: bool = False
) -> Due | None:
    """Return why the window is due at ``now``, or null when it is not; one that has not begun never is.

    ``is_altered`` is whether the lake's files of its day are not the certified ones.
    """
    if window.start > now:
        return None
    if row is None or row.attempts == 0:
        return Due.NEW
    if row.status is WindowStatus.FAILED:
        return Due.FAILED
    if row.status is WindowStatus.DISPUTED:
        return Due.DISPUTED
    if row.status is WindowStatus.RUNNING:
        return Due.INTERRUPTED
    if window.end > now:
        return Due.OPEN
    if row.next_reread_at is not None and row.next_reread_at <= now:
        return Due.REREAD
    if is_altered:
        return Due.ALTERED
    return Due.FORCED if force else None


def plan(
    first: date,
    last: date,
    rows: Iterable[LedgerRow],
    *,
    now: datetime,
    timezone: str,
    window_length: timedelta,
    force: bool = False,
    altered_days: Collection[date] = (),
) -> list[DayPlan]:
    """Return what is due from ``first`` to ``last`` (local days, both included), newest day first.

    ``altered_days`` are those whose files in the lake are not the certified ones. A day that the ledger knows keeps the
    windows it was once cut into, whatever ``window_length`` is now: windows of one day never overlap.
    """
    known: dict[date, dict[datetime, LedgerRow]] = {}
    for row in rows:
        known.setdefault(row.call_date, {})[row.window_start] = row
    plans = []
    for day in days_between(first, last):
        day_rows = known.get(day, {})
        windows = windows_of(day, day_rows, timezone, window_length)
        due = tuple(
            PlannedWindow(window, reason, row.api_total if row else None, row.completed_at if row else None)
            for window in windows
            for row in [day_rows.get(window.start)]
            if (reason := why_due(row, window, now, force=force, is_altered=day in altered_days)) is not None
        )
        if due:
            plans.append(DayPlan(day, due, windows[0].start, windows[0].end, len(windows)))
    plans.reverse()
    return plans


def windows_of(
    day: date, day_rows: Mapping[datetime, LedgerRow], timezone: str, window_length: timedelta
) -> list[Window]:
    """Return the windows of a local day: those its ledger rows (by window start) have, else of ``window_length``."""
    if not day_rows:
        return day_windows(day, timezone, window_length)
    known = [Window(row.window_start, row.window_end, day) for _, row in sorted(day_rows.items())]
    covered = {window.start for window in known}
    length = known[0].end - known[0].start
    missing = [window for window in day_windows(day, timezone, length) if window.start not in covered]
    return sorted(known + missing)
