"""Two days of a small portal, exported by the command, and everything that is then there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.command import Finished, account, callhistory_here
from tests.exports import FIRST, Export, export_of, range_ms
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, EXPORT_WINDOWS, REJECTED_ROWS

LAST = FIRST + timedelta(days=1)
PUBLISHED = (CALLS, CALL_PARTICIPANTS, CALL_VERSIONS, REJECTED_ROWS)


@dataclass
class Account:
    """Two days of a portal, and where they are exported to, by the command."""

    portal: Portal
    export: Export
    folder: Path

    def run(self, *arguments: str) -> Finished:
        settings = self.export.settings
        return callhistory_here(
            *arguments,
            cwd=self.folder,
            settings=account(
                settings.base_url,
                STRINGEEX_PAGE_SIZE=str(settings.page_size),
                CALLHISTORY_WAREHOUSE_URL=settings.warehouse_url.get_secret_value(),
                CALLHISTORY_LAKE_URL=settings.lake_url,
            ),
        )

    def backfill(self, *arguments: str) -> Finished:
        return self.run("backfill", "--from", str(FIRST), "--to", str(LAST), "--json", *arguments)

    def published(self) -> dict[str, Any]:
        """All that readers see: the tables, and the Parquet files to the byte."""
        files = {name: content for name, (_, _, content) in self.export.files().items() if not name.startswith("raw/")}
        return self.export.warehouse_tables(PUBLISHED) | files

    def raw_files(self) -> set[str]:
        return {name for name in self.export.files() if name.startswith("raw/")}

    def ledger(self, *columns: str) -> list[tuple[Any, ...]]:
        table = self.export.warehouse(EXPORT_WINDOWS)
        return list(zip(*(table[name].to_pylist() for name in columns), strict=True))

    def served(self) -> list[Any]:
        return self.portal.rows(*range_ms(FIRST, LAST))


@contextmanager
def two_days(
    warehouse_url: str, folder: Path, *, calls: int = 80, page_rows: int = 100, **options: Any
) -> Iterator[Account]:
    """Serve two days of calls, without limits; ``options`` are those of the portal."""
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=2, calls_total=calls, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS, **options),
    )
    with SimulatedPortal(portal) as server:
        yield Account(portal, export_of(server.base_url, warehouse_url, folder, page_rows=page_rows), folder)
        assert server.errors == []


def assert_same_published(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Say which table or file differs."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].equals(value) if hasattr(value, "equals") else found[name] == value, name
