"""What a run works with: the API, the warehouse, the lake, opened from the settings and closed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit

from pipelines.settings import Settings
from pipelines.stringeex.budget import Priority
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.history import HistoryReader
from pipelines.stringeex.traits import ServerTraits
from pipelines.windows import local_date
from sinks.ledger import Ledger
from sinks.parquet import Lake
from sinks.scratch import remove_leftovers
from sinks.state import State
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from transforms.errors import CallHistoryError, SettingsError, StorageError

FIRST_RUN_LOOK_BACK = timedelta(days=7)

_START_DATE = "start_date"
_TIMEZONE = "timezone"
_SERVER_TRAITS = "server_traits"


@dataclass(frozen=True)
class Stores:
    """The places that hold the export; nothing here talks to the API."""

    settings: Settings
    warehouse: Warehouse
    lake: Lake
    ledger: Ledger
    state: State

    @property
    def timezone(self) -> str:
        """Name of the time zone of local days."""
        return self.settings.timezone.key

    def start_date(self, now: datetime) -> date:
        """Return the first local day of the export: as configured, else seven days before the first run."""
        known = self.known_start_date()
        if known is not None:
            return known
        start_date = local_date(now, self.timezone) - FIRST_RUN_LOOK_BACK
        self.state.set(_START_DATE, start_date.isoformat())
        return start_date

    def known_start_date(self) -> date | None:
        """Return the first local day of the export, or null when none is configured and no run has set one."""
        if self.settings.start_date is not None:
            return self.settings.start_date
        remembered = self.state.get(_START_DATE)
        return date.fromisoformat(remembered) if isinstance(remembered, str) else None

    def server_traits(self) -> ServerTraits:
        """Return what earlier runs found out about the server."""
        remembered = self.state.get(_traits_name(self.settings))
        return ServerTraits.from_dict(remembered) if isinstance(remembered, dict) else ServerTraits()


@dataclass(frozen=True)
class Pipeline(Stores):
    """The stores, and a reader of the API's call history."""

    client: StringeeXClient
    reader: HistoryReader


def utc_now() -> datetime:
    """Return the machine's time in UTC, in whole milliseconds as everything here keeps it."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


@contextmanager
def open_stores(settings: Settings) -> Iterator[Stores]:
    """Open the warehouse and the lake, and make or upgrade the warehouse's tables.

    Raises ``StorageError`` when one of them cannot be used, and ``SettingsError`` when the warehouse's days belong to
    another time zone, before anything is read or written.
    """
    if settings.pii != "plain":
        raise SettingsError("CALLHISTORY_PII: only plain is built so far; nothing was exported")
    storage = Storage(settings.lake_url)
    storage.check_writable()
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        warehouse.prepare()
        state = State(warehouse)
        _keep_timezone(state, settings.timezone.key)
        yield Stores(settings, warehouse, Lake(storage), Ledger(warehouse), state)


@contextmanager
def open_stores_to_read(settings: Settings) -> Iterator[Stores]:
    """Open the warehouse as it is, and write nothing.

    Raises ``StorageError`` when it cannot be read, or when nothing was ever exported into it.
    """
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        with warehouse.reading() as connection:
            if not warehouse.backend.has_table(connection, warehouse.tables["export_windows"]):
                raise StorageError(
                    f"there are no tables in the {warehouse.backend.label} yet: export something first "
                    "(callhistory export)"
                )
        yield Stores(settings, warehouse, Lake(Storage(settings.lake_url)), Ledger(warehouse), State(warehouse))


@contextmanager
def open_pipeline(settings: Settings, priority: Priority = Priority.EXPORT) -> Iterator[Pipeline]:
    """Open everything a run needs; what is found out about the server on the way is remembered at the end."""
    remove_leftovers()
    with open_stores(settings) as stores, StringeeXClient(settings, priority=priority) as client:
        traits = stores.server_traits()
        reader = HistoryReader(client, traits=traits)
        try:
            yield Pipeline(stores.settings, stores.warehouse, stores.lake, stores.ledger, stores.state, client, reader)
        except BaseException:
            with suppress(CallHistoryError):  # it is found out again, and the first error says more than a second one
                stores.state.set(_traits_name(settings), dict(traits.to_dict()))
            raise
        stores.state.set(_traits_name(settings), dict(traits.to_dict()))


def _traits_name(settings: Settings) -> str:
    return f"{_SERVER_TRAITS} {urlsplit(settings.base_url).netloc}"


def _keep_timezone(state: State, timezone: str) -> None:
    remembered = state.get(_TIMEZONE)
    if remembered is None:
        state.set(_TIMEZONE, timezone)
    elif remembered != timezone:
        raise SettingsError(
            f"CALLHISTORY_TIMEZONE is {timezone}, but this warehouse's days are those of {remembered}: "
            "set it back, or use another warehouse and lake"
        )
