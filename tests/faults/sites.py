"""A place to export to, on each database, that can be put back to how it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipelines.settings import load_settings
from sinks.warehouse import Warehouse
from tests import databases
from tests.e2e.command import account
from tests.exports import Export
from tests.faults.processes import tables_of

EMBEDDED = ("duckdb", "sqlite")


@dataclass
class Site:
    """A database and a lake, both in ``folder`` where the database is a file."""

    database: str
    base_url: str
    folder: Path
    server: databases.Server | None
    more: dict[str, str]
    _server_url: str = ""
    _kept_rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def temporary(self) -> Path:
        return self.folder / "temporary"

    @property
    def warehouse_url(self) -> str:
        return self._server_url or f"{self.database}:///{self.data / 'warehouse'}.{self.database}"

    @property
    def overrides(self) -> dict[str, str]:
        """The settings of the account and of this place."""
        return account(
            self.base_url,
            **{
                "CALLHISTORY_WAREHOUSE_URL": self.warehouse_url,
                "CALLHISTORY_LAKE_URL": str(self.data / "lake"),
            }
            | self.more,
        )

    @property
    def export(self) -> Export:
        return Export(load_settings(None, overrides=self.overrides))

    def clear(self) -> None:
        """Have nothing here: an empty folder, an empty database."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        if self.server is not None:
            self.drop()
            self._server_url = self.server.new_database()

    def keep(self) -> None:
        """Remember how it is."""
        shutil.copytree(self.data, self.folder / "kept")
        if self.server is not None:
            self._kept_rows = tables_of(self.export.settings)

    def put_back(self) -> None:
        """Have it as it was when it was kept."""
        shutil.rmtree(self.data)
        shutil.copytree(self.folder / "kept", self.data)
        if self.server is not None:
            with Warehouse(self.warehouse_url) as warehouse, warehouse.transaction() as connection:
                for name, rows in self._kept_rows.items():
                    connection.execute(sa.delete(warehouse.tables[name]))
                    if rows:
                        connection.execute(sa.insert(warehouse.tables[name]), rows)

    @property
    def database_name(self) -> str:
        """The name of the server's database."""
        return str(sa.make_url(self._server_url).database)

    def drop_tables(self) -> None:
        """Leave the server's database empty."""
        with Warehouse(self.warehouse_url) as warehouse, warehouse.transaction() as connection:
            for table in warehouse.tables.values():
                table.drop(connection, checkfirst=True)

    def drop(self) -> None:
        """Remove the server's database."""
        if self.server is not None and self._server_url:
            self.server.drop_database(self._server_url)


@contextmanager
def site(
    database: str, base_url: str, folder: Path, server: databases.Server | None, **settings: str
) -> Iterator[Site]:
    """Make a place to export to, with nothing there yet."""
    more = {"STRINGEEX_PAGE_SIZE": "75", "CALLHISTORY_CONCURRENCY": "1"} | settings
    made = Site(database, base_url, folder, server, more)
    made.clear()
    try:
        yield made
    finally:
        made.drop()


def cut_connections(place: Site) -> None:
    """Have the server end every session on the place's database."""
    assert place.server is not None
    engine = sa.create_engine(place.server.url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        if place.database == "postgresql":
            connection.execute(
                sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": place.database_name},
            )
            return
        found = sa.text("SELECT id FROM information_schema.processlist WHERE db = :name")
        for number in connection.execute(found, {"name": place.database_name}).scalars().all():
            connection.exec_driver_sql(f"KILL {number}")
