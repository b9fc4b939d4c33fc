"""The alerts: what is held, disputed, incomplete, stale, or of an abnormal volume; from the warehouse alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Any

from pipelines.context import Stores
from pipelines.watch.status import DayState, DayStatus, DisputedWindow, Status, read_status
from pipelines.windows import ONE_DAY, day_bounds, local_date

WEEKS_COMPARED = 8
FEWEST_KNOWN_DAYS = 4
DAYS_JUDGED = 7
LARGEST_Z_SCORE = 3.5
SMALLEST_DEVIATION = 0.5
FEWEST_REJECTS = 5
"""Fewer rows that cannot be a call are no sign of a fault that concerns more than these."""
FEWEST_CALLS = 13
"""Where so many are expected, no call at all is no chance: under a Poisson law, two days in a million."""
_DEVIATIONS_PER_MAD = 0.6745
"""The median absolute deviation of a normal distribution, in standard deviations."""


class AlertKind(StrEnum):
    """What an alert is about."""

    HELD = "held"
    DISPUTED = "disputed"
    REJECTS = "rejects"
    INCOMPLETE = "incomplete"
    STALE = "stale"
    ABNORMAL_VOLUME = "abnormal_volume"
    ERASURE = "erasure"


@dataclass(frozen=True)
class Alert:
    """Something that an operator has to look at: what, since when, what to do.

    ``key`` tells an alert from others, and is the same for as long as it lasts. It is over by itself at ``ends_at``,
    where that is not null.
    """

    kind: AlertKind
    key: str
    what: str
    since: datetime
    what_to_do: str
    ends_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the alert as JSON can hold it."""
        return {
            "kind": self.kind.value,
            "key": self.key,
            "what": self.what,
            "since": self.since.isoformat(),
            "what_to_do": self.what_to_do,
            "ends_at": self.ends_at.isoformat() if self.ends_at else None,
        }


def read_alerts(stores: Stores, now: datetime) -> list[Alert]:
    """Return what has to be looked at, as the warehouse has it; nothing is written, and the API is not asked."""
    settings = stores.settings
    return find_alerts(read_status(stores, now), settings.stale_after, settings.reject_alert)


def find_alerts(status: Status, stale_after: timedelta, reject_share: float) -> list[Alert]:
    """Return what has to be looked at, the most urgent first.

    A window that is held is an alert at once, for it waits for somebody; one that is otherwise disputed when its day
    has been over for ``stale_after``. A closed day that is failed or missing is an alert when it has been so for that
    long; the newest certified instant when it is older. With a run per night and the default of 36 hours, the run that
    should have mended it has then come and gone too. A day is one as well when at least five of its rows, and more
    than ``reject_share`` of them, cannot be a call; today's too, for it gets no better by waiting. An erasure
    that is not done is one when it was asked for as long ago as that.
    """
    return [
        *_held(status),
        *_stale(status, stale_after),
        *_incomplete(status, stale_after),
        *_disputed(status, stale_after),
        *_rejects(status, reject_share),
        *_abnormal_volumes(status),
        *_erasures(status, stale_after),
    ]


def is_abnormal(calls: int, known: Sequence[int]) -> bool:
    """Return whether a day's ``calls`` are far from the ``known`` numbers of such days.

    By the modified z-score: 0.6745 times the distance from the median, divided by the median absolute deviation, is
    more than 3.5 (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993). As few days can agree by chance,
    the spread is taken to be no less than that of counting, the square root of the median (Poisson). A deviation by
    less than half, or by less than 13 calls, is never abnormal; a day without calls always is where each of the
    others had 13 or more, however much they vary.
    """
    usual = median(known)
    deviation = abs(calls - usual)
    if deviation < FEWEST_CALLS or deviation < SMALLEST_DEVIATION * usual:
        return False
    if calls == 0 and min(known) >= FEWEST_CALLS:
        return True
    absolute_deviation = median(abs(number - usual) for number in known)
    spread = max(absolute_deviation / _DEVIATIONS_PER_MAD, math.sqrt(usual))
    return deviation > LARGEST_Z_SCORE * spread


def _stale(status: Status, stale_after: timedelta) -> Iterator[Alert]:
    newest = status.newest_instant
    first = status.days[0].call_date if status.days else local_date(status.at, status.timezone)
    since = newest or day_bounds(first, status.timezone)[0]
    if status.at - since > stale_after:
        yield Alert(
            AlertKind.STALE,
            AlertKind.STALE.value,
            f"nothing newer than {_hours(status.at - since)} is certified" if newest else "nothing is certified yet",
            since,
            "look whether runs are started at all, and how the last one ended; then run callhistory export",
        )


def _held(status: Status) -> Iterator[Alert]:
    """Tell of each day on which reads are held: what would be lost, and how to accept it, is in the windows' words."""
    for day, windows in _by_day(window for window in status.disputed_windows if window.held):
        yield Alert(
            AlertKind.HELD,
            f"{AlertKind.HELD.value} {day}",
            f"{day} is held: {windows[0].error}",
            min(window.since for window in windows),
            "look at the source: another portal's key, lost rights, a field under another name? Mend it and run "
            "callhistory export, or accept it as the words say",
        )


def _disputed(status: Status, stale_after: timedelta) -> Iterator[Alert]:
    for day, windows in _by_day(window for window in status.disputed_windows if not window.held):
        if status.at - day_bounds(day, status.timezone)[1] > stale_after:
            yield Alert(
                AlertKind.DISPUTED,
                f"{AlertKind.DISPUTED.value} {day}",
                f"{day} is published as served, and not proven: {windows[0].error}",
                min(window.since for window in windows),
                "each export reads it again; if it stays so, ask the provider why its count and its calls differ",
            )


def _erasures(status: Status, stale_after: timedelta) -> Iterator[Alert]:
    since = status.erasures_due_since
    if since is not None and status.at - since > stale_after:
        yield Alert(
            AlertKind.ERASURE,
            AlertKind.ERASURE.value,
            f"somebody was to be erased {_hours(status.at - since)} ago and is not yet",
            since,
            "callhistory export finishes it, and says what is in the way: a damaged file, or a run that keeps a day",
        )


def _rejects(status: Status, reject_share: float) -> Iterator[Alert]:
    """Judge the last week and today: older rows are known by then, and stay in ``rejected_rows``."""
    today = local_date(status.at, status.timezone)
    for day in status.days:
        if day.call_date < today - DAYS_JUDGED * ONE_DAY:
            continue
        rows = day.calls + day.rejected
        if day.rejected >= FEWEST_REJECTS and day.rejected > reject_share * rows:
            yield Alert(
                AlertKind.REJECTS,
                f"{AlertKind.REJECTS.value} {day.call_date}",
                f"{day.rejected:,} of {rows:,} rows of {day.call_date} cannot be a call",
                min(day_bounds(day.call_date, status.timezone)[1], status.at),
                f"callhistory rejects list --from {day.call_date} --to {day.call_date} tells the field at fault: "
                "mend it at the source, or ask for a version that reads it",
                ends_at=day_bounds(day.call_date + DAYS_JUDGED * ONE_DAY, status.timezone)[1],
            )


def _by_day(windows: Iterable[DisputedWindow]) -> list[tuple[date, list[DisputedWindow]]]:
    days: dict[date, list[DisputedWindow]] = {}
    for window in windows:
        days.setdefault(window.call_date, []).append(window)
    return sorted(days.items())


def _incomplete(status: Status, stale_after: timedelta) -> Iterator[Alert]:
    today = local_date(status.at, status.timezone)
    overdue: list[DayStatus] = []
    for day in status.days:
        if day.call_date == today or day.incomplete_since is None or status.at - day.incomplete_since <= stale_after:
            continue
        if overdue and day.call_date - overdue[-1].call_date > ONE_DAY:
            yield _gap(overdue)
            overdue = []
        overdue.append(day)
    if overdue:
        yield _gap(overdue)


def _gap(days: Sequence[DayStatus]) -> Alert:
    first, last = days[0].call_date, days[-1].call_date
    reasons = {DayState.FAILED: "failed", DayState.MISSING: "not read to the end"}
    counts = {word: sum(day.state is state for day in days) for state, word in reasons.items()}
    why = ", ".join(f"{count:,} {word}" for word, count in counts.items() if count)
    which = f"{first} is" if first == last else f"{first} to {last} are"
    return Alert(
        AlertKind.INCOMPLETE,
        f"{AlertKind.INCOMPLETE.value} {first}",
        f"{which} not complete ({why})",
        min(day.incomplete_since for day in days if day.incomplete_since),
        "callhistory status tells why; mend that, then run callhistory export",
    )


def _abnormal_volumes(status: Status) -> Iterator[Alert]:
    """Judge the closed, complete days of the last week by the same weekday of the eight weeks before each."""
    complete = {day.call_date: day.calls for day in status.days if day.state in (DayState.COMPLETE, DayState.SETTLED)}
    today = local_date(status.at, status.timezone)
    for day in status.days:
        if not today - DAYS_JUDGED * ONE_DAY <= day.call_date < today:
            continue
        dates = [day.call_date - 7 * week * ONE_DAY for week in range(1, WEEKS_COMPARED + 1)]
        known = [complete[other] for other in dates if other in complete]
        is_judged = day.call_date in complete and len(known) >= FEWEST_KNOWN_DAYS
        if is_judged and is_abnormal(day.calls, known):
            yield _abnormal_volume(day.call_date, day.calls, known, status.timezone)


def _abnormal_volume(call_date: date, calls: int, known: Sequence[int], timezone: str) -> Alert:
    last_judged_on = call_date + DAYS_JUDGED * ONE_DAY
    return Alert(
        AlertKind.ABNORMAL_VOLUME,
        f"{AlertKind.ABNORMAL_VOLUME.value} {call_date}",
        f"{call_date:%A} {call_date} has {calls:,} calls, where {median(known):,.0f} are usual "
        f"(the median of {len(known)} such days)",
        day_bounds(call_date, timezone)[1],
        "a holiday, or a change in the business? If not, look at the portal's numbers and routing; "
        f"callhistory verify --from {call_date} --to {call_date} recounts",
        ends_at=day_bounds(last_judged_on, timezone)[1],
    )


def _hours(age: timedelta) -> str:
    return f"{age / timedelta(hours=1):,.0f} hours"
