"""What is read: a number of calls over some local days, from a fixed day and seed on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

_TIMEZONE = ZoneInfo("Asia/Ho_Chi_Minh")


@dataclass(frozen=True)
class Source:
    """``calls`` calls in ``days`` local days from ``first_day`` on."""

    calls: int
    days: int = 10
    first_day: date = date(2026, 1, 5)

    @property
    def last_day(self) -> date:
        return self.first_day + timedelta(days=self.days - 1)

    @property
    def start_ms(self) -> int:
        """Start of the first local day, in epoch milliseconds."""
        return _midnight_ms(self.first_day)

    @property
    def end_ms(self) -> int:
        """End of the last local day, excluded."""
        return _midnight_ms(self.last_day + timedelta(days=1))


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=_TIMEZONE).timestamp() * 1000)
