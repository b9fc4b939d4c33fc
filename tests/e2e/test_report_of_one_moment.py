"""A report that is read while an export writes: all of its figures are of one moment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.context import open_stores_to_read
from pipelines.report.figures import read_figures
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.exports import FIRST, export_of

LAST = FIRST + timedelta(days=1)


@pytest.mark.parametrize("warehouse_url", ["postgresql", "mariadb"], indirect=True)
def test_what_is_written_between_two_queries_is_in_none_of_them(warehouse_url: str, tmp_path: Path) -> None:
    calls = generate(seed=8, start_date=FIRST, days=2, calls_total=40, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        export = export_of(server.base_url, warehouse_url, tmp_path)
        assert export.run(FIRST, LAST).is_complete
    other = sa.create_engine(warehouse_url, poolclass=sa.pool.NullPool)
    taken: list[str] = []

    def take_all_calls(*event: Any) -> None:
        if not taken and "call_facts" in str(event[2]):
            taken.append("all")
            with other.begin() as connection:
                connection.exec_driver_sql("DELETE FROM calls")

    with open_stores_to_read(export.settings) as stores:
        sa.event.listen(stores.warehouse.backend.engine, "after_cursor_execute", take_all_calls)
        figures = read_figures(stores, FIRST, LAST, datetime.now(UTC))
    assert taken
    assert figures.summary["calls"] == 40
    assert sum(row["calls"] for row in figures.rows["days"]) == 40
