"""Planning decades: a look at the ledger, however many days."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipelines.context import open_stores, utc_now
from pipelines.export.forecast import disk_bytes, quota
from pipelines.export.run import plan_days
from pipelines.settings import load_settings


def test_twenty_years_are_planned_with_as_many_queries_as_a_day(tmp_path: Path) -> None:
    places = {
        "CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/w.sqlite",
        "CALLHISTORY_LAKE_URL": str(tmp_path / "l"),
    }
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    with open_stores(load_settings(None, require_api=False, overrides=places)) as stores:
        sa.event.listen(stores.warehouse.backend.engine, "before_cursor_execute", note)
        taken = []
        for first, days in ((date(2025, 12, 31), 1), (date(2006, 1, 1), 7_305)):
            statements.clear()
            plans = plan_days(stores, first, date(2025, 12, 31), utc_now())
            estimate = quota(plans, stores)
            assert (estimate.windows, estimate.requests, disk_bytes(plans, stores)) == (days, days, None)
            taken.append(len(statements))
    assert taken[0] == taken[1] > 0
