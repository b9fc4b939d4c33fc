"""What a plan will take, before anything is asked of the API: requests, hours, disk space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.context import Stores
from pipelines.export.planner import DayPlan, PlannedWindow

_UNKNOWN_PAGE_ROWS = 100
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Quota:
    """What a plan will take, as far as can be known before: requests, and hours at the account's budget."""

    windows: int
    requests: int
    hours: float
    windows_of_unknown_size: int


def quota(plans: Sequence[DayPlan], stores: Stores) -> Quota:
    """Estimate a plan's requests from what the windows held last time; a window never read counts as the average.

    With nothing to go by, a window is taken to need one request.
    """
    windows = _windows(plans)
    average = _calls_per_window(stores) or 1.0
    settings = stores.settings
    rows_per_page = stores.server_traits().page_size or settings.page_size or _UNKNOWN_PAGE_ROWS
    calls = [average if planned.known_calls is None else planned.known_calls for planned in windows]
    requests = sum(max(1, math.ceil(number / rows_per_page)) for number in calls)
    budgets = ((settings.history_requests_per_10s, 10), (settings.requests_per_hour, _SECONDS_PER_HOUR))
    per_hour = [limit * _SECONDS_PER_HOUR // seconds for limit, seconds in budgets if limit]
    hours = requests / min(per_hour) if per_hour else 0.0
    return Quota(len(windows), requests, round(hours, 2), len(_never_read(windows)))


def disk_bytes(plans: Sequence[DayPlan], stores: Stores) -> int | None:
    """Estimate the disk space that a plan's calls will take in lake, raw copy and warehouse; null: nothing to go by.

    Windows never read count as the average of all, a call as what the lake holds per call by now, and in the warehouse
    as `Backend.bytes_per_call`. What is read again takes next to nothing.
    """
    never_read = _never_read(_windows(plans))
    known_calls = sum(row.api_total or 0 for row in stores.ledger.rows())
    if not known_calls:
        return 0 if not never_read else None
    lake_bytes_per_call = sum(stores.lake.storage.sizes().values()) / known_calls
    calls = len(never_read) * _calls_per_window(stores)
    return round(calls * (lake_bytes_per_call + stores.warehouse.backend.bytes_per_call))


def _windows(plans: Sequence[DayPlan]) -> list[PlannedWindow]:
    return [planned for day in plans for planned in day.windows]


def _never_read(windows: Sequence[PlannedWindow]) -> list[PlannedWindow]:
    return [planned for planned in windows if planned.known_calls is None]


def _calls_per_window(stores: Stores) -> float:
    totals = [row.api_total for row in stores.ledger.rows() if row.api_total is not None]
    return sum(totals) / len(totals) if totals else 0.0
