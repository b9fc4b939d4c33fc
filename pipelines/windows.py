"""Local days and the export windows they are cut into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

ONE_DAY = timedelta(days=1)

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Window:
    """A half-open stretch of time ``[start, end)`` in aware UTC, inside one local day.

    Half-open windows that share their borders cover every instant exactly once, so reading a range of them again,
    in any order and any number of times, can neither skip a call nor count one twice.
    """

    start: datetime
    end: datetime
    call_date: date

    @property
    def label(self) -> str:
        """The window as it is named in logs and errors, in UTC."""
        return f"{self.start:%Y-%m-%dT%H:%M:%SZ}--{self.end:%Y-%m-%dT%H:%M:%SZ}"


def local_date(instant: datetime, timezone: str) -> date:
    """Return the day that ``instant`` falls on in ``timezone``."""
    return instant.astimezone(ZoneInfo(timezone)).date()


def day_bounds(day: date, timezone: str) -> tuple[datetime, datetime]:
    """Return the first instant of a local day and of the one after it, in UTC.

    A day on which the clock changes has 23 or 25 hours here. A day that a zone skipped altogether (Samoa's
    30 December 2011) has none: both instants are the same.
    """
    zone = ZoneInfo(timezone)
    start = datetime.combine(day, time.min, zone).astimezone(UTC)
    end = datetime.combine(day + ONE_DAY, time.min, zone).astimezone(UTC)
    return start, max(start, end)


def day_windows(day: date, timezone: str, length: timedelta) -> list[Window]:
    """Cut a local day into windows of ``length``; a length of a day is the whole day, however long that is."""
    start, end = day_bounds(day, timezone)
    if start == end:
        return []
    if length >= ONE_DAY:
        return [Window(start, end, day)]
    count = -((start - end) // length)
    return [Window(start + i * length, min(start + (i + 1) * length, end), day) for i in range(count)]


def day_ranges(days: Iterable[tuple[date, T]]) -> list[tuple[date, date, T]]:
    """Return neighbouring days of one label as ranges, both ends included; ``days`` are ascending."""
    ranges: list[tuple[date, date, T]] = []
    for day, label in days:
        if ranges and ranges[-1][1] + ONE_DAY == day and ranges[-1][2] == label:
            ranges[-1] = (ranges[-1][0], day, label)
        else:
            ranges.append((day, day, label))
    return ranges


def ranges_as_json(days: Iterable[tuple[date, T]], name: str) -> list[dict[str, Any]]:
    """Return `day_ranges` as JSON can hold them, with the label under ``name``."""
    return [{"from": a.isoformat(), "to": b.isoformat(), name: label} for a, b, label in day_ranges(days)]


def days_between(first: date, last: date) -> Iterator[date]:
    """Yield the days from ``first`` to ``last``, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)
