"""From one warehouse to another, such as DuckDB to PostgreSQL: everything copied, then both read again and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipelines.context import open_stores_to_read
from pipelines.settings import Settings
from sinks.ledger import Ledger
from sinks.transfer import TableContents, contents, copy_tables, is_in_use
from sinks.warehouse import Warehouse
from transforms.databases import DATABASES
from transforms.errors import BusyError, SettingsError, StorageError

_SETTING = "CALLHISTORY_NEW_WAREHOUSE_URL"


@dataclass(frozen=True)
class MovedTable:
    """One table as it is on both sides, each read afresh."""

    name: str
    old: TableContents
    new: TableContents

    @property
    def is_equal(self) -> bool:
        """Whether both sides hold the same rows."""
        return self.old == self.new


@dataclass(frozen=True)
class Move:
    """What a move did and proved; the two warehouses by their addresses, which hold no password."""

    old: str
    new: str
    has_copied: bool
    tables: Sequence[MovedTable]

    @property
    def is_proven(self) -> bool:
        """Whether every table is the same on both sides."""
        return all(table.is_equal for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as JSON can hold it."""
        return {
            "complete": self.is_proven,
            "copied": self.has_copied,
            "old_warehouse": self.old,
            "new_warehouse": self.new,
            "tables": [
                {
                    "table": table.name,
                    "rows": table.old.rows,
                    "new_rows": table.new.rows,
                    "content_hash": table.old.content_hash,
                    "new_content_hash": table.new.content_hash,
                    "equal": table.is_equal,
                }
                for table in self.tables
            ],
        }


def move(settings: Settings, on_rows: Callable[[str, int], None]) -> Move:
    """Copy everything from the warehouse to the new one, and compare the two; what the old one holds is left as it is.

    All or nothing: a move that is killed leaves no row behind, and is done again. A new warehouse that holds the same
    already is only compared. ``on_rows`` is told each table's name and how many of its rows are copied so far.

    Raises ``SettingsError`` when the setting is missing or names the warehouse there is, ``StorageError`` when the new
    warehouse holds anything else, and ``BusyError`` while an export is at work.
    """
    if settings.new_warehouse_url is None:
        raise SettingsError(f"{_SETTING}: not set; set it to the SQLAlchemy URL of an empty database")
    new_url = settings.new_warehouse_url.get_secret_value()
    if _place(new_url, settings.new_warehouse_schema) == _place(
        settings.warehouse_url.get_secret_value(), settings.warehouse_schema
    ):
        raise SettingsError(f"{_SETTING} names the warehouse there is: set it to another, an empty database")
    with (
        open_stores_to_read(settings) as stores,
        Warehouse(new_url, settings.new_warehouse_schema, setting=_SETTING) as new,
    ):
        old = stores.warehouse
        _require_no_export_at_work(stores.ledger)
        for warehouse in (old, new):
            # The old one as well: one that an older version wrote may lack a column.
            warehouse.prepare()
        has_copied = not is_in_use(new)
        if has_copied:
            copy_tables(old, new, on_rows)
        old_contents, new_contents = contents(old), contents(new)
        tables = [MovedTable(name, old_contents[name], new_contents[name]) for name in old_contents]
        moved = Move(old.backend.label, new.backend.label, has_copied, tables)
        if not has_copied and not moved.is_proven:
            raise StorageError(
                f"the {new.backend.label} holds other rows already, so nothing was copied: "
                f"set {_SETTING} to an empty database"
            )
        return moved


def _place(url: str, schema: str | None) -> tuple[object, ...]:
    parts = sa.make_url(url)
    database = parts.database or ""
    if DATABASES[parts.get_backend_name()].is_file:
        database = str(Path(database).resolve())
    return parts.get_backend_name(), parts.host, parts.port, database, parts.query, schema


def _require_no_export_at_work(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    held = [row for row in ledger.rows() if row.claim_expires_at is not None and row.claim_expires_at > now]
    if held:
        raise BusyError(
            f"a run is at work on {held[0].call_date}: stop the schedule, wait for the run to end (a killed one's "
            "claim lapses within minutes), and move then"
        )
