"""Whether an export could run: settings, credentials, database and storage, each tried for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from pipelines.context import utc_now
from pipelines.settings import Settings
from pipelines.stringeex.budget import Priority, open_budget
from pipelines.stringeex.client import StringeeXClient
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from transforms.errors import CallHistoryError

_LONGEST_WAIT_SECONDS = 15.0
"""The smallest block of the budget is waited for; an account that is blocked for longer is told at once."""


@dataclass(frozen=True)
class CheckResult:
    """One check: what was tried, whether it works, and what was found or is to be done."""

    name: str
    is_ok: bool
    message: str


def check_all(settings: Settings, *, with_api: bool = True) -> Iterator[CheckResult]:
    """Try everything that an export needs, whatever fails on the way; with ``with_api`` one request is sent."""
    if with_api:
        yield _tried("credentials", _credentials, settings)
    yield _tried("database", _database, settings)
    yield _tried("lake", lambda s: _storage(s.lake_url), settings)
    yield _tried("recordings archive", lambda s: _storage(s.archive_url), settings)


def _tried(name: str, check: Callable[[Settings], str], settings: Settings) -> CheckResult:
    try:
        return CheckResult(name, True, check(settings))
    except CallHistoryError as error:
        return CheckResult(name, False, str(error))


def _credentials(settings: Settings) -> str:
    now = utc_now()
    hour = (int((now - timedelta(hours=1)).timestamp() * 1000), int(now.timestamp() * 1000))
    budget = open_budget(settings, Priority.INTERACTIVE, longest_wait_seconds=_LONGEST_WAIT_SECONDS)
    with StringeeXClient(settings, budget=budget) as client:
        client.request("history", params={"time": "{}-{}".format(*hour), "version": "2", "limit": "1"})
    return f"{settings.base_url} accepts them"


def _database(settings: Settings) -> str:
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        warehouse.prepare()
        return f"{warehouse.backend.label}: tables are there and can be changed"


def _storage(url: str) -> str:
    storage = Storage(url)
    storage.check_writable()
    return f"{storage.location} can be written"
