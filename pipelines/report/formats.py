"""How a language writes numbers, days and times, by the Unicode Common Locale Data Repository."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, dates, numbers

from pipelines.report.language import Language

NOTHING = "–"
"""What stands for null: nothing is known, or there is nothing to divide by."""


class Kind(StrEnum):
    """How a column's values are written."""

    TEXT = "text"
    COUNT = "count"
    SHARE = "share"
    DURATION = "duration"
    DAY = "day"
    INSTANT = "instant"
    HOUR = "hour"


@dataclass(frozen=True)
class Formats:
    """The ways of one language, and the time zone that instants are shown in."""

    language: Language
    timezone: str

    @property
    def _locale(self) -> Locale:
        return Locale(self.language.value)

    def write(self, kind: Kind, value: Any) -> str:
        """Return a value as a reader of the language expects it; ``NOTHING`` for null."""
        if value is None:
            return NOTHING
        match kind:
            case Kind.COUNT:
                return numbers.format_decimal(value, locale=self._locale)
            case Kind.SHARE:
                return numbers.format_percent(value, format="#,##0.0%", locale=self._locale)
            case Kind.DURATION:
                return duration(value)
            case Kind.DAY:
                return self.day(value)
            case Kind.INSTANT:
                return self.instant(value)
            case Kind.HOUR:
                return f"{value:02}:00"
        return str(value)

    def day(self, day: date) -> str:
        """Return a day with its year: ``Nov 28, 2026``."""
        return dates.format_date(day, "medium", locale=self._locale)

    def long_day(self, day: date) -> str:
        """Return a day in full, with its weekday."""
        return dates.format_date(day, "full", locale=self._locale)

    def short_day(self, day: date) -> str:
        """Return a day without its year: ``Nov 28``."""
        return dates.format_skeleton("MMMd", day, locale=self._locale)

    def instant(self, instant: datetime) -> str:
        """Return an instant by the wall clock of the time zone, to the minute."""
        local = instant.astimezone(ZoneInfo(self.timezone)).replace(tzinfo=None)
        return f"{self.day(local.date())} {local:%H:%M}"

    def weekday(self, weekday: int) -> str:
        """Return the name of a day of the week, 1 (Monday) to 7."""
        return str(dates.get_day_names("abbreviated", locale=self._locale)[weekday - 1])

    def change(self, share: float) -> str:
        """Return a difference of shares, or a share by which something changed, in hundredths and with its sign."""
        shown = numbers.format_decimal(abs(share) * 100, format="#,##0.0", locale=self._locale)
        return f"{'−' if share < 0 else '+'}{shown}"


def duration(seconds: float) -> str:
    """Return a duration as ``h:mm:ss``, to the nearest second, which spreadsheets read as a duration."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
