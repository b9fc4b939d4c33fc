"""A portal with calls in one day, a reader of it over HTTP, and what is there in truth."""

import contextlib
import json
from datetime import UTC, datetime, timedelta

from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.history import HistoryReader
from pipelines.stringeex.history_part import ReadAgainError
from pipelines.stringeex.request_budget import RequestBudget

START = datetime(2026, 1, 5, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
DAY = timedelta(days=1)
MOST_READS = 5
"""A reader that learns something each time would never end."""
AT_ONCE = RetryPolicy(wait_initial_seconds=0, wait_max_seconds=0, wait_jitter_seconds=0)


def call(number, offset_ms):
    start_ms = START_MS + offset_ms
    return {"id": f"call-vn-1-{number:010d}-{start_ms}", "start_time": start_ms, "duration": number}


def portal_of(offsets, **options):
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS, **options))
    for number, offset_ms in enumerate(offsets):
        portal.add_call(call(number, offset_ms))
    return portal


@contextlib.contextmanager
def reader_of(portal, traits=None, **overrides):
    with SimulatedPortal(portal) as server:
        given = {
            "STRINGEEX_BASE_URL": server.base_url,
            "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
            "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
            **overrides,
        }
        with StringeeXClient(load_settings(None, overrides=given), budget=RequestBudget([]), retry=AT_ONCE) as client:
            yield HistoryReader(client, traits=traits)


def read_any(reader, start=START, end=START + DAY):
    """Read a window as a caller does, again at once where something was learnt. Returns the read and its rows."""
    for _ in range(MOST_READS):
        read = reader.read(start, end)
        with contextlib.suppress(ReadAgainError):
            rows = [row for page in read for row in page.rows]
            assert read.kept_rows == len(rows)
            return read, rows
    raise AssertionError(f"something new was learnt in each of {MOST_READS} reads")


def read_all(reader, start=START, end=START + DAY):
    """Read a window that is proven."""
    read, rows = read_any(reader, start, end)
    assert read.dispute is None
    assert read.api_total == len(rows)
    return read, rows


def truth(portal, version=2, start_ms=START_MS, end_ms=START_MS + 86_400_000):
    return portal.rows(start_ms, end_ms - 1, version)


def canonical(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)
