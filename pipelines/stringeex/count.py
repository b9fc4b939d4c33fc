"""How many calls a window has by the API's own count, without reading them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.served import read_answer
from pipelines.stringeex.traits import ServerTraits
from transforms.errors import DataError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def count_calls(client: StringeeXClient, traits: ServerTraits, window_start: datetime, window_end: datetime) -> int:
    """Return the API's count of the half-open window of aware instants, with one request for one row.

    A count that is exactly the result cap may mean "at least so many", so such a window is counted in halves. Raises
    what a request raises, and ``DataError`` where one millisecond holds as many calls as the cap.
    """
    start_ms, end_ms = ((instant - _EPOCH) // timedelta(milliseconds=1) for instant in (window_start, window_end))
    return _count(client, "1" if traits.version_2 is False else "2", start_ms, end_ms)


def _count(client: StringeeXClient, version: str, start_ms: int, end_ms: int) -> int:
    name = f"count of calls {_EPOCH + timedelta(milliseconds=start_ms)} to {_EPOCH + timedelta(milliseconds=end_ms)}"
    params = [("time", f"{start_ms}-{end_ms - 1}"), ("sort_by", "start_time"), ("limit", "1"), ("version", version)]
    total = read_answer(client.request("history", params=params), name).total
    if not client.settings.result_cap or total != client.settings.result_cap:
        return total
    if end_ms - start_ms == 1:
        raise DataError(f"{name}: {total} calls in one millisecond, as many as STRINGEEX_RESULT_CAP")
    middle_ms = (start_ms + end_ms) // 2
    return _count(client, version, start_ms, middle_ms) + _count(client, version, middle_ms, end_ms)
