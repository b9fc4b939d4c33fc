"""What a run works with: the API, the warehouse, the lake, opened from the settings and closed again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipelines.settings import Settings
from pipelines.stringeex.request_budget import Priority
from pipelines.stringeex.server_traits import ServerTraits
from pipelines.windows import local_date
from sinks.archive import Archive
from sinks.certificates import Certificates
from sinks.derived_columns import fill_lake, fill_warehouse
from sinks.erasures import Erasures
from sinks.identity import (
    give_storage_identity,
    give_warehouse_identity,
    holds_what_was_published,
    storage_identity,
    warehouse_identity,
)
from sinks.ledger import Ledger
from sinks.metric_parameters import keep_metric_parameters
from sinks.parquet import Lake
from sinks.recordings import Recordings
from sinks.scratch import remove_leftovers, scratch_folder
from sinks.state import State
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from transforms.errors import CallHistoryError, SettingsError, StorageError
from transforms.schema import CALLS

if TYPE_CHECKING:
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.history import HistoryReader
    from transforms.erasure import Erased

FIRST_RUN_LOOK_BACK = timedelta(days=7)

_START_DATE = "start_date"
_TIMEZONE = "timezone"
_SERVER_TRAITS = "server_traits"
_DERIVED_COLUMNS = "derived columns of the "
_RECORDINGS_COMPARED = 20
_SHORTEST_KEY = 16


class NothingExportedError(StorageError):
    """There is no warehouse yet, or one that nothing was ever exported into."""


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
        """Return the first local day of the export, and remember it: as configured, else days before the first run."""
        start_date = self.start_date_of_next_run(now)
        if self.settings.start_date is None:
            self.state.set(_START_DATE, start_date.isoformat())
        return start_date

    def start_date_of_next_run(self, now: datetime) -> date:
        """Return the first local day of the next export; nothing is written."""
        return self.known_start_date() or local_date(now, self.timezone) - FIRST_RUN_LOOK_BACK

    def known_start_date(self) -> date | None:
        """Return the first local day of the export, or null when none is configured and no run has set one."""
        if self.settings.start_date is not None:
            return self.settings.start_date
        remembered = self.state.get(_START_DATE)
        return date.fromisoformat(remembered) if isinstance(remembered, str) else None

    @property
    def certificates(self) -> Certificates:
        """The chain of everything that was ever certified."""
        return Certificates(self.warehouse)

    @property
    def erasures(self) -> Erasures:
        """The list of people who are erased."""
        return Erasures(self.warehouse, self.lake.storage)

    def erased(self) -> Erased | None:
        """Return the people who are erased by now; null while there are none.

        Raises ``SettingsError`` where the key is not the one that the list was made with: they would come back.
        """
        erasures = self.erasures.all()
        if not erasures:
            return None
        from transforms.erasure import key_id

        key = self.erasure_key()
        others = [erasure for erasure in erasures if erasure.key_id != key_id(key)]
        if others:
            raise SettingsError(
                f"CALLHISTORY_PII_KEY is not the key with which {len(others)} people were erased: set it back, for "
                "without it they would come back"
            )
        return self.people_of(erasure.digests for erasure in erasures)

    def people_of(self, digests: Iterable[Collection[str]]) -> Erased:
        """Return people by their hashes under the key that is set. Raises as `erasure_key`."""
        # It brings all that a row is made with, which most commands do without.
        from transforms.erasure import Erased

        return Erased(frozenset().union(*digests), self.erasure_key(), self.settings.region)

    def erasure_key(self) -> bytes:
        """Return the key of the list of people who are erased. Raises ``SettingsError`` where there is none."""
        key = self.settings.pii_key
        if key is None or len(key.get_secret_value()) < _SHORTEST_KEY:
            raise SettingsError(
                f"CALLHISTORY_PII_KEY: {'not set' if key is None else 'too short'}; the list of people who are erased "
                f"needs a secret of {_SHORTEST_KEY} characters or more, always the same and kept with your passwords"
            )
        return key.get_secret_value().encode()

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
    """Open the warehouse and the lake to write, and make or upgrade the warehouse's tables.

    Raises ``StorageError`` when one of them cannot be used, and ``SettingsError`` when they do not belong together, or
    the warehouse's days belong to another time zone, before anything of the export is read or written.
    """
    if settings.pii != "plain":
        raise SettingsError("CALLHISTORY_PII: only plain is built so far; nothing was exported")
    storage = Storage(settings.lake_url)
    storage.check_writable()
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        stores = _stores(settings, warehouse, storage)
        with warehouse.kept_open():
            warehouse.prepare()
            stores.state.settle(_TIMEZONE, settings.timezone.key)
            check_timezone(stores)
        # The lake may answer slowly, and nobody else can write to a DuckDB file that is kept open.
        introduce_lake(stores)
        stores.erasures.reconcile()
        with warehouse.kept_open():
            stores.erased()  # without the key of the list, what is written would bring people back
            keep_metric_parameters(warehouse, settings.metric_parameters)
            stores.certificates.begin()
            to_fill = _to_fill(stores, "warehouse", "lake")
        _fill_derived_columns(stores, to_fill)
        yield stores


@contextmanager
def open_stores_to_read(settings: Settings, *, reads_lake: bool = False) -> Iterator[Stores]:
    """Open the warehouse as it is, and write nothing; but tables of an earlier version get what they lack.

    Raises ``StorageError`` when it cannot be read, or when nothing was ever exported into it; ``SettingsError`` when
    its days belong to another time zone, or, with ``reads_lake``, when the lake is not the one that belongs to it.
    """
    with Warehouse(settings.warehouse_url.get_secret_value(), settings.warehouse_schema) as warehouse:
        stores = _stores(settings, warehouse, Storage(settings.lake_url))
        if not warehouse.is_there():
            raise NothingExportedError(f"there is no {warehouse.backend.label} yet: run callhistory export first")
        with warehouse.kept_open():
            with warehouse.reading() as connection:
                has_ledger = warehouse.backend.has_table(connection, warehouse.tables["export_windows"])
            if not has_ledger or not stores.ledger.has_rows():
                raise NothingExportedError(
                    f"nothing has been exported yet into the {warehouse.backend.label}: run callhistory export first"
                )
            warehouse.prepare()
            check_timezone(stores)
            to_fill = _to_fill(stores, "warehouse")
        if reads_lake:
            introduce_lake(stores, only_look=True)
        _fill_derived_columns(stores, to_fill)
        yield stores


@contextmanager
def open_stores_in_use(settings: Settings) -> Iterator[Stores]:
    """Open the stores to write, as `open_stores` does, but make none.

    Raises ``StorageError`` too when nothing was ever exported: then the folder or the settings may be wrong.
    """
    with open_stores_to_read(settings):
        pass
    with open_stores(settings) as stores:
        yield stores


@contextmanager
def open_stores_to_plan(settings: Settings) -> Iterator[Stores]:
    """Open the stores to read; before anything was exported, empty ones that nobody else sees.

    Raises ``StorageError`` and ``SettingsError`` as `open_stores_to_read` does, but for what was never exported.
    """
    with ExitStack() as stack:
        try:
            stores = stack.enter_context(open_stores_to_read(settings))
        except NothingExportedError:
            folder = stack.enter_context(TemporaryDirectory(dir=scratch_folder()))
            warehouse = stack.enter_context(Warehouse(f"sqlite:///{folder}/empty.sqlite"))
            warehouse.prepare()
            stores = _stores(settings, warehouse, Storage(folder))
        yield stores


@contextmanager
def open_pipeline(settings: Settings, priority: Priority = Priority.EXPORT) -> Iterator[Pipeline]:
    """Open everything a run needs; what is found out about the server on the way is remembered at the end."""
    remove_leftovers()
    with open_stores(settings) as stores, _pipeline(stores, priority) as pipeline:
        traits = pipeline.reader.traits
        try:
            yield pipeline
        except BaseException:
            with suppress(CallHistoryError):  # it is found out again, and the first error says more than a second one
                stores.state.set(_traits_name(settings), dict(traits.to_dict()))
            raise
        stores.state.set(_traits_name(settings), dict(traits.to_dict()))


@contextmanager
def open_pipeline_to_read(settings: Settings, priority: Priority) -> Iterator[Pipeline]:
    """Open the stores as `open_stores_to_read` does, and a reader of the API; nothing is written."""
    with open_stores_to_read(settings, reads_lake=True) as stores, _pipeline(stores, priority) as pipeline:
        yield pipeline


def _stores(settings: Settings, warehouse: Warehouse, storage: Storage) -> Stores:
    return Stores(settings, warehouse, Lake(storage, settings.timezone), Ledger(warehouse), State(warehouse))


@contextmanager
def _pipeline(stores: Stores, priority: Priority) -> Iterator[Pipeline]:
    # The client takes a third of a second to import: what asks the API nothing does without.
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.history import HistoryReader

    with StringeeXClient(stores.settings, priority=priority) as client:
        reader = HistoryReader(client, traits=stores.server_traits())
        yield Pipeline(stores.settings, stores.warehouse, stores.lake, stores.ledger, stores.state, client, reader)


def _to_fill(stores: Stores, *names: str) -> list[str]:
    """Return which of these stores an earlier version wrote, so that they lack values of derived columns."""
    return [name for name in names if stores.state.get(_DERIVED_COLUMNS + name) != list(CALLS.derived_columns)]


def _fill_derived_columns(stores: Stores, names: Iterable[str]) -> None:
    """Have such stores filled once, which may take long, and remember for which columns that is done."""
    for name in names:
        if name == "warehouse":
            fill_warehouse(stores.warehouse, stores.settings.timezone)
        else:
            fill_lake(stores.lake)
        stores.state.set(_DERIVED_COLUMNS + name, list(CALLS.derived_columns))


def _traits_name(settings: Settings) -> str:
    return f"{_SERVER_TRAITS} {urlsplit(settings.base_url).netloc}"


def check_timezone(stores: Stores) -> None:
    """Raise ``SettingsError`` when the warehouse's days are those of another time zone."""
    remembered = stores.state.get(_TIMEZONE)
    if remembered is not None and remembered != stores.timezone:
        raise SettingsError(
            f"CALLHISTORY_TIMEZONE is {stores.timezone}, but this warehouse's days are those of {remembered}: "
            "set it back, or use another warehouse and lake"
        )


def introduce_lake(stores: Stores, *, only_look: bool = False) -> None:
    """Have warehouse and lake know each other; raise ``SettingsError`` when they do not belong together.

    A warehouse that holds nothing takes over the identity of the lake it finds, as when it is rebuilt from there.
    Stores of version 0.1.0 have none, and get one when the lake holds what the warehouse has certified.
    """
    storage = stores.lake.storage
    of_warehouse, of_lake = warehouse_identity(stores.state), storage_identity(storage)
    if of_warehouse is not None and of_warehouse == of_lake:
        return
    if (of_warehouse and of_lake) or not holds_what_was_published(stores.lake, stores.ledger.rows()):
        raise SettingsError(
            f"CALLHISTORY_LAKE_URL: {storage.location} is not the lake of the {stores.warehouse.backend.label}: set it "
            "back or bring its files there; callhistory stores adopt takes another one on knowingly"
        )
    if not only_look:
        identity = give_warehouse_identity(stores.state, of_lake)
        if of_lake is None:
            give_storage_identity(storage, identity)


def open_archive(stores: Stores, *, only_look: bool = False) -> Archive:
    """Return the archive that belongs to the warehouse; raise ``SettingsError`` when it is another one."""
    storage = Storage(stores.settings.archive_url)
    of_warehouse, of_archive = warehouse_identity(stores.state), storage_identity(storage)
    if of_archive is None or of_warehouse is None:
        kept = list(islice(Recordings(stores.warehouse).kept(), _RECORDINGS_COMPARED))
        is_right = not kept or any(storage.exists(recording.archive_path) for recording in kept)
    else:
        is_right = of_warehouse == of_archive
    if not is_right:
        raise SettingsError(
            f"CALLHISTORY_ARCHIVE_URL: {storage.location} is not the archive of the {stores.warehouse.backend.label}: "
            "set it back or bring its files there; callhistory stores adopt takes another one on knowingly"
        )
    if of_archive is None and not only_look:
        storage.check_writable()
        give_storage_identity(storage, give_warehouse_identity(stores.state))
    return Archive(storage)


def adopt_stores(settings: Settings) -> dict[str, str]:
    """Take the lake and the archive that are configured on as the warehouse's, whatever they were.

    Returns where the three are. Days that such a lake does not hold as certified are found by the next export, which
    reads them again. Raises ``StorageError``.
    """
    with open_stores_to_read(settings) as stores:
        identity = give_warehouse_identity(stores.state)
        storages = {"lake": stores.lake.storage, "archive": Storage(settings.archive_url)}
        for storage in storages.values():
            storage.check_writable()
            give_storage_identity(storage, identity)
        fill_lake(stores.lake)
        return {"warehouse": stores.warehouse.backend.label} | {n: s.location for n, s in storages.items()}
