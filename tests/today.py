"""Today, for tests of commands that read the clock: where it is morning, so that no midnight comes in between."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

_MORNING_HOUR = 8


def _zone_where_it_is_morning(now: datetime) -> str:
    hours = (_MORNING_HOUR - now.hour + 12) % 24 - 12
    return f"Etc/GMT{-hours:+d}"  # POSIX: the sign says how far UTC is ahead


ZONE = _zone_where_it_is_morning(datetime.now(UTC))
TODAY = datetime.now(ZoneInfo(ZONE)).date()
