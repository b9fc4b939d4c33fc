"""Whether an export could run: settings, credentials, database and storage, each tried for real."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

from pipelines.context import (
    NothingExportedError,
    Stores,
    introduce_lake,
    open_archive,
    open_stores_to_read,
    utc_now,
)
from pipelines.settings import Settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.request_budget import Priority, open_budget
from sinks.private_files import is_open_to_all
from sinks.request_counters import are_shared
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
    """Try everything that an export needs, whatever fails on the way; with ``with_api`` one request is sent.

    Nothing is created that stays: what is not there yet is told of.
    """
    database = _tried("database", _database, settings)
    if with_api:
        yield _tried("credentials", partial(_credentials, reaches_database=database.is_ok), settings)
    yield database
    yield _tried("lake", _lake, settings)
    yield _tried("recordings archive", _archive, settings)


def _tried(name: str, check: Callable[[Settings], str], settings: Settings) -> CheckResult:
    try:
        return CheckResult(name, True, check(settings))
    except CallHistoryError as error:
        return CheckResult(name, False, str(error))


def _credentials(settings: Settings, *, reaches_database: bool) -> str:
    # To count a first request together with others would create the place where they are counted.
    is_shared = reaches_database and are_shared(settings.warehouse_url.get_secret_value(), settings.warehouse_schema)
    now = utc_now()
    hour = (int((now - timedelta(hours=1)).timestamp() * 1000), int(now.timestamp() * 1000))
    budget = open_budget(
        settings, Priority.INTERACTIVE, longest_wait_seconds=_LONGEST_WAIT_SECONDS, is_shared=is_shared
    )
    with StringeeXClient(settings, budget=budget) as client:
        client.request("history", params={"time": "{}-{}".format(*hour), "version": "2", "limit": "1"})
    return f"{settings.base_url} accepts them"


def _database(settings: Settings) -> str:
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        label = warehouse.backend.label
        if not warehouse.is_there():
            Storage(str(Path(warehouse.backend.url.database or "").absolute().parent / "warehouse")).check_creatable()
            return f"there is no {label} yet: export will create it"
        missing = warehouse.missing_tables()
        warehouse.try_to_write()
        if len(missing) == len(warehouse.tables):
            where = f" in schema {settings.warehouse_schema}" if settings.warehouse_schema else ""
            return f"{label}: there are no tables{where} yet, export will create them"
        with suppress(NothingExportedError), open_stores_to_read(settings) as stores:
            stores.erased()  # its days are those of the time zone, its erased people those of the key that are set
        some_missing = ", and some will be added" if missing else ""
        path = Path(warehouse.backend.url.database or "") if warehouse.is_embedded else None
        return f"{label}: tables are there and can be changed{some_missing}{_open_to_all(path)}"


def _lake(settings: Settings) -> str:
    return _storage(settings, settings.lake_url, lambda stores: introduce_lake(stores, only_look=True))


def _archive(settings: Settings) -> str:
    return _storage(settings, settings.archive_url, lambda stores: open_archive(stores, only_look=True))


def _storage(settings: Settings, url: str, check: Callable[[Stores], object]) -> str:
    storage = Storage(url)
    # Before the first export there is nothing that another folder could belong to.
    with suppress(NothingExportedError), open_stores_to_read(settings) as stores:
        check(stores)
    if not storage.is_there:
        storage.check_creatable()
        return f"{storage.location} is not there yet: export will create it"
    storage.check_writable()
    return f"{storage.location} can be written{_open_to_all(Path(storage.path('')) if storage.is_local else None)}"


def _open_to_all(path: Path | None) -> str:
    if path is None or not is_open_to_all(path):
        return ""
    return f"; every user of this machine can read it: chmod -R o= {path}"
