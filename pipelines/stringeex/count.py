"""How many calls a window has by the API's own count, without reading them."""

from __future__ import annotations

from datetime import datetime

from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.history_answer import read_answer
from pipelines.stringeex.server_traits import ServerTraits
from transforms.epoch import epoch_ms, instant_at
from transforms.errors import DataError

MOST_PARTS = 500
"""Requests for one window at the most: halves that count as much as the whole would be halved without end."""


def count_calls(client: StringeeXClient, traits: ServerTraits, window_start: datetime, window_end: datetime) -> int:
    """Return the API's count of the half-open window of aware instants, with one request for one row.

    A count that is exactly the result cap may mean "at least so many", so such a window is counted in halves. Raises
    what a request raises, and ``DataError`` where there is no count, where one millisecond holds as many calls as the
    cap, or where the halves go on counting as much as the whole.
    """
    version, cap = "1" if traits.version_2 is False else "2", traits.cap(client.settings.result_cap)
    pending = [tuple(epoch_ms(instant) for instant in (window_start, window_end))]
    total = 0
    for _ in range(MOST_PARTS):
        if not pending:
            return total
        start_ms, end_ms = pending.pop()
        counted = _count(client, version, start_ms, end_ms)
        if not cap or counted != cap:
            total += counted
        elif end_ms - start_ms == 1:
            raise DataError(f"{_name(start_ms, end_ms)}: {counted} calls in one millisecond, as many as the result cap")
        else:
            middle_ms = (start_ms + end_ms) // 2
            pending += [(middle_ms, end_ms), (start_ms, middle_ms)]
    raise DataError(f"{_name(start_ms, end_ms)}: the API counts {counted} calls however short the time is")


def _count(client: StringeeXClient, version: str, start_ms: int, end_ms: int) -> int:
    params = [("time", f"{start_ms}-{end_ms - 1}"), ("sort_by", "start_time"), ("limit", "1"), ("version", version)]
    total = read_answer(client.request("history", params=params), _name(start_ms, end_ms)).total
    if total is None:
        raise DataError(f"{_name(start_ms, end_ms)}: the answer holds no usable totalCount")
    return total


def _name(start_ms: int, end_ms: int) -> str:
    start, end = (instant_at(instant) for instant in (start_ms, end_ms))
    return f"count of calls {start} to {end}"
