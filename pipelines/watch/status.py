"""How the export stands, from the warehouse alone: coverage by local day, gaps, freshness, what is due."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.export.drift import Drift, read_drift
from pipelines.export.forecast import Quota, quota
from pipelines.export.planner import windows_of
from pipelines.export.run import plan_next_export
from pipelines.windows import ONE_DAY, Window, day_ranges, days_between, local_date, ranges_as_json
from sinks.ledger import LedgerRow, WindowStatus
from sinks.recordings import UNDONE, Recordings, RecordingStatus
from transforms.schema import LATE_CHANGES


class DayState(StrEnum):
    """Where a local day stands."""

    SETTLED = "settled"
    COMPLETE = "complete"
    PROVISIONAL = "provisional"
    RUNNING = "running"
    DISPUTED = "disputed"
    FAILED = "failed"
    MISSING = "missing"


GAP_STATES = frozenset({DayState.FAILED, DayState.MISSING})


@dataclass(frozen=True)
class DayStatus:
    """A local day, and its ``calls`` in lake and warehouse; rows that cannot be a call are none, but ``rejected``.

    It is settled when it will not be read again, complete when it is certified as a whole and will be, provisional
    while it is still open and certified so far, running while a run has claimed it, failed when a window of it failed,
    disputed when one does not prove that it is all (what was served is published, or held), and missing when one was
    not read to the end, or not at all. ``incomplete_since`` is, for one that is failed or missing, when the oldest
    window of it that is not certified should have been read: at its end, at the age when it was to be read again, or
    when it was begun out of turn.
    """

    call_date: date
    state: DayState
    calls: int
    incomplete_since: datetime | None = None
    rejected: int = 0


@dataclass(frozen=True)
class FailedWindow:
    """A window whose last read failed, and why."""

    window_start: datetime
    window_end: datetime
    attempts: int
    error: str


@dataclass(frozen=True)
class DisputedWindow:
    """A window whose last read does not prove that it is all, and why; ``held`` is whether nothing was published."""

    window_start: datetime
    window_end: datetime
    call_date: date
    attempts: int
    held: bool
    since: datetime
    error: str


@dataclass(frozen=True)
class LateChanges:
    """What the re-reads that are due ``age_days`` after a window's end found changed, among how many calls.

    ``calls`` are those of the windows that were read more than once, at that age or later.
    """

    age_days: int
    calls_changed: int
    calls: int

    @property
    def rate(self) -> float | None:
        """The share of calls that came or changed between the re-read before and this one."""
        return self.calls_changed / self.calls if self.calls else None


@dataclass(frozen=True)
class Status:
    """How the export stands at an instant.

    ``days`` are the local days that were asked for: since the export's first day, and those that were backfilled.
    ``gaps`` are ranges of days (both ends included) that are failed or missing; today, still open, is never one.
    ``newest_instant`` is the end of the newest stretch of time that is certified (null: none), ``due`` what the next
    ``export`` has to do. ``erasures_due_since`` is when the oldest erasure was asked for that is not done.
    """

    at: datetime
    timezone: str
    days: Sequence[DayStatus]
    gaps: Sequence[tuple[date, date]]
    failed_windows: Sequence[FailedWindow]
    disputed_windows: Sequence[DisputedWindow]
    newest_instant: datetime | None
    due: Quota
    late_changes: int
    late_changes_by_age: Sequence[LateChanges]
    drift: Sequence[Drift]
    rejected_rows: int
    recordings: Mapping[RecordingStatus, int]
    doubtful_recordings: int
    erasures_due_since: datetime | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no day is a gap, no window failed or is disputed, and no recording is failing."""
        is_proven = not (self.gaps or self.failed_windows or self.disputed_windows)
        return is_proven and not any(self.recordings[status] for status in UNDONE)

    @property
    def states(self) -> dict[DayState, int]:
        """How many days are in each state."""
        return {state: sum(day.state is state for day in self.days) for state in DayState}

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON can hold it."""
        return {
            "at": self.at.isoformat(),
            "timezone": self.timezone,
            "complete": self.is_whole,
            "calls": sum(day.calls for day in self.days),
            "days": [
                {"call_date": day.call_date.isoformat(), "state": day.state.value, "calls": day.calls}
                for day in self.days
            ],
            "ranges": ranges_as_json(((day.call_date, day.state.value) for day in self.days), "state"),
            "states": {state.value: days for state, days in self.states.items()},
            "gaps": [{"from": first.isoformat(), "to": last.isoformat()} for first, last in self.gaps],
            "failed_windows": [
                {
                    "window_start": failed.window_start.isoformat(),
                    "window_end": failed.window_end.isoformat(),
                    "attempts": failed.attempts,
                    "error": failed.error,
                }
                for failed in self.failed_windows
            ],
            "disputed_windows": [
                {
                    "window_start": disputed.window_start.isoformat(),
                    "window_end": disputed.window_end.isoformat(),
                    "attempts": disputed.attempts,
                    "held": disputed.held,
                    "error": disputed.error,
                }
                for disputed in self.disputed_windows
            ],
            "newest_instant": self.newest_instant.isoformat() if self.newest_instant else None,
            "freshness_seconds": round((self.at - self.newest_instant).total_seconds())
            if self.newest_instant
            else None,
            "due_windows": self.due.windows,
            "due_requests": self.due.requests,
            "due_hours": self.due.hours,
            "late_changes": self.late_changes,
            "late_changes_by_age": [
                {
                    "age_days": late.age_days,
                    "calls_changed": late.calls_changed,
                    "calls": late.calls,
                    "rate": late.rate,
                }
                for late in self.late_changes_by_age
            ],
            "drift": [change.to_dict() for change in self.drift],
            "rejected_rows": self.rejected_rows,
            "recordings": {status.value: count for status, count in self.recordings.items()},
            "doubtful_recordings": self.doubtful_recordings,
            "erasures_due_since": self.erasures_due_since and self.erasures_due_since.isoformat(),
        }


def read_status(stores: Stores, now: datetime) -> Status:
    """Return how the export stands at ``now``; nothing is written, and the API is not asked."""
    rows = stores.ledger.rows()
    recordings = Recordings(stores.warehouse)
    today = local_date(now, stores.timezone)
    by_date: dict[date, list[LedgerRow]] = {}
    for row in rows:
        by_date.setdefault(row.call_date, []).append(row)
    days = [
        _day_status(stores, day, by_date.get(day, []), now)
        for day in days_asked_for(stores.known_start_date(), by_date, today)
    ]
    # Calls that ended after a read had begun may be missing from it, so an open window counts up to its begin.
    certified = [
        min(row.window_end, row.started_at) for row in rows if row.status is WindowStatus.COMPLETE and row.started_at
    ]
    return Status(
        at=now,
        timezone=stores.timezone,
        days=days,
        gaps=[
            (first, last)
            for first, last, _ in day_ranges(
                (day.call_date, None) for day in days if day.state in GAP_STATES and day.call_date != today
            )
        ],
        failed_windows=[
            FailedWindow(row.window_start, row.window_end, row.attempts, row.error or "")
            for row in rows
            if row.status is WindowStatus.FAILED
        ],
        disputed_windows=[
            DisputedWindow(
                row.window_start,
                row.window_end,
                row.call_date,
                row.attempts,
                bool(row.held),
                row.next_reread_at or row.window_end,
                row.error or "",
            )
            for row in rows
            if row.status is WindowStatus.DISPUTED
        ],
        newest_instant=max(certified, default=None),
        due=quota(plan_next_export(stores, now), stores),
        late_changes=sum(row.late_changes for row in rows),
        late_changes_by_age=_late_changes_by_age(stores, rows),
        drift=read_drift(stores, now),
        rejected_rows=_rejected_rows(stores),
        recordings=recordings.counts(),
        doubtful_recordings=recordings.count_doubtful(),
        erasures_due_since=min((e.requested_at for e in stores.erasures.unfinished()), default=None),
    )


def read_day_status(stores: Stores, call_date: date, now: datetime) -> DayStatus:
    """Return how one local day stands at ``now``."""
    return _day_status(stores, call_date, stores.ledger.rows(call_date, call_date), now)


def days_asked_for(start_date: date | None, known: Iterable[date], today: date) -> list[date]:
    """Return the local days up to today that a run was asked for: since the export's first, and those of backfills."""
    since_start = days_between(start_date, today) if start_date is not None else ()
    return sorted({*known, *since_start})


def _day_status(stores: Stores, day: date, rows: Sequence[LedgerRow], now: datetime) -> DayStatus:
    known = {row.window_start: row for row in rows}
    windows = windows_of(day, known, stores.timezone, stores.settings.window)
    begun = [(window, known.get(window.start)) for window in windows if window.start <= now]
    state = _state(rows, [row for _, row in begun], now)
    since = (_due_since(window, row, now) for window, row in begun if not _is_certified(row))
    return DayStatus(
        day,
        state,
        calls=sum(row.lake_rows or 0 for row in rows),
        incomplete_since=min(since, default=None) if state in GAP_STATES else None,
        rejected=sum(row.rejected or 0 for row in rows),
    )


def _state(rows: Sequence[LedgerRow], begun: Sequence[LedgerRow | None], now: datetime) -> DayState:
    if any(row.claim_expires_at is not None and row.claim_expires_at > now for row in rows):
        return DayState.RUNNING
    for status, state in ((WindowStatus.FAILED, DayState.FAILED), (WindowStatus.DISPUTED, DayState.DISPUTED)):
        if any(row.status is status for row in rows):
            return state
    if not all(map(_is_certified, begun)):
        return DayState.MISSING
    if any(row.completed_at is not None and row.completed_at < row.window_end for row in rows):
        return DayState.PROVISIONAL
    return DayState.SETTLED if all(row.settled for row in rows) else DayState.COMPLETE


def _is_certified(row: LedgerRow | None) -> bool:
    return row is not None and row.status is WindowStatus.COMPLETE


def _due_since(window: Window, row: LedgerRow | None, now: datetime) -> datetime:
    if row is None or row.completed_at is None:
        return window.end
    if row.next_reread_at is not None and row.next_reread_at <= now:
        return row.next_reread_at
    return row.started_at or window.end


def _late_changes_by_age(stores: Stores, rows: Sequence[LedgerRow]) -> list[LateChanges]:
    """Sum up late changes by the re-reads of the schedule; a read between two of them counts to the one before."""
    t = stores.warehouse.tables[LATE_CHANGES.name]
    changed = sa.func.sum(t.c.inserted + t.c.updated + t.c.restored + t.c.vanished)
    with stores.warehouse.reading() as connection:
        of_age = dict(connection.execute(sa.select(t.c.age_days, changed).group_by(t.c.age_days)).tuples().all())
    ages = sorted({0, *(age // ONE_DAY for age in stores.settings.reread)})
    found = []
    for age, following in zip(ages, [*ages[1:], None], strict=True):
        reread = [
            r for r in rows if r.attempts > 1 and r.completed_at and r.completed_at - r.window_end >= age * ONE_DAY
        ]
        in_age = sum(int(n) for a, n in of_age.items() if a >= age and (following is None or a < following))
        found.append(LateChanges(age, in_age, sum(row.lake_rows or 0 for row in reread)))
    return found


def _rejected_rows(stores: Stores) -> int:
    rejected = stores.warehouse.tables["rejected_rows"]
    with stores.warehouse.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(rejected)) or 0
