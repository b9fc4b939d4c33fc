"""An id is one call, in lake and warehouse alike, on whichever day it starts, and however often it moves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.export.planner import Due
from pipelines.export.run import plan_export, run_plans
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests.exports import FIRST, ZONE, Export, export_of, range_ms
from transforms.schema import CALLS, EXPORT_WINDOWS, REJECTED_ROWS

pytestmark = pytest.mark.usefixtures("retries_at_once")

SECOND = FIRST + timedelta(days=1)
DAY = timedelta(days=1)


@pytest.fixture
def portal() -> Portal:
    calls = generate(seed=5, start_date=FIRST, days=2, calls_total=40, late_arrival_share=0, late_change_share=0)
    return Portal(calls, PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def export(portal: Portal, warehouse_url: str, tmp_path: Path) -> Iterator[Export]:
    with SimulatedPortal(portal) as server:
        yield export_of(server.base_url, warehouse_url, tmp_path)


def some_row(portal: Portal) -> dict[str, Any]:
    """A call of the first day."""
    return dict(portal.rows(*range_ms(FIRST, FIRST))[4])


def on_second_day(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"start_time": range_ms(SECOND, SECOND)[0] + 5, "contactname": "Trần Thị Muộn"}


def ledger(export: Export) -> list[tuple[Any, ...]]:
    table = export.warehouse(EXPORT_WINDOWS)
    names = ("status", "api_total", "rejected", "lake_rows", "warehouse_rows")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def assert_one_call_each(export: Export) -> None:
    calls = export.warehouse(CALLS)
    live = calls.filter(calls["deleted_at"].is_null())
    assert export.lake(CALLS).equals(live)
    assert len(set(live["call_id"].to_pylist())) == live.num_rows


@pytest.mark.parametrize("concurrency", ["1", "4"])
def test_while_both_days_serve_it_the_later_row_is_the_call(
    portal: Portal, export: Export, concurrency: str, tmp_path: Path
) -> None:
    export = export_of(
        export.settings.base_url,
        export.settings.warehouse_url.get_secret_value(),
        tmp_path,
        CALLHISTORY_CONCURRENCY=concurrency,
    )
    row = some_row(portal)
    counts = [len(portal.keys(*range_ms(day, day))) for day in (FIRST, SECOND)]
    portal.add_call(on_second_day(row), call_id="again")

    first = export.run(FIRST, SECOND)
    assert first.is_complete
    assert_one_call_each(export)
    assert ledger(export) == [
        ("complete", counts[0], 1, counts[0] - 1, counts[0] - 1),
        ("complete", counts[1] + 1, 0, counts[1] + 1, counts[1] + 1),
    ]
    rejects = export.warehouse(REJECTED_ROWS)
    assert (rejects["reason"].to_pylist(), rejects["call_id"].to_pylist()) == (["duplicate_id"], [row["id"]])
    calls, files = export.warehouse(CALLS), export.files()
    for _ in range(2):
        again = export.run(FIRST, SECOND, force=True)
        assert (again.is_complete, again.totals["calls_updated"], again.totals["files_written"]) == (True, 0, 0)
        assert export.warehouse(CALLS).equals(calls)
        assert export.files() == files
    with export.open() as pipeline:
        from pipelines.proof.verify import verify_day

        now = day_bounds(SECOND, ZONE)[1] + DAY
        checks = [verify_day(pipeline, day, now) for day in (FIRST, SECOND)]
    assert [difference for check in checks for window in check.windows for difference in window.differences] == []


def test_a_day_read_before_the_other_served_it_gives_the_call_up(portal: Portal, export: Export) -> None:
    row = some_row(portal)
    assert export.run(FIRST, SECOND).is_complete
    portal.add_call(on_second_day(row), call_id="again")
    run = export.run(SECOND, SECOND, force=True)
    assert run.is_complete
    assert [(result.window.call_date, result.due) for result in run.results] == [
        (SECOND, Due.FORCED),
        (FIRST, Due.DISPUTED),
    ]
    assert_one_call_each(export)
    assert export.warehouse(REJECTED_ROWS).num_rows == 1
    assert export.run(FIRST, SECOND).results == []


def test_a_call_that_moved_back_is_found_where_it_went(portal: Portal, export: Export) -> None:
    """First on both days; then the later row is gone, and the earlier one is the call."""
    row = some_row(portal)
    portal.add_call(on_second_day(row), call_id="again")
    assert export.run(FIRST, SECOND).is_complete
    portal.remove_call("again")
    run = export.run(SECOND, SECOND, force=True)
    assert run.is_complete
    assert_one_call_each(export)
    calls = export.warehouse(CALLS)
    [place] = [n for n, call_id in enumerate(calls["call_id"].to_pylist()) if call_id == row["id"]]
    assert calls["call_date"].to_pylist()[place] == FIRST
    assert calls["deleted_at"].to_pylist()[place] is None
    assert export.warehouse(REJECTED_ROWS).num_rows == 0
    assert export.run(FIRST, SECOND).results == []


def test_a_window_that_a_call_has_left_is_due_whatever_the_start_date(
    portal: Portal, export: Export, tmp_path: Path
) -> None:
    row = some_row(portal)
    now = day_bounds(SECOND, ZONE)[1] + DAY
    assert export.run(FIRST, SECOND, now=now).is_complete
    later = export_of(
        export.settings.base_url,
        export.settings.warehouse_url.get_secret_value(),
        tmp_path,
        CALLHISTORY_START_DATE=str(SECOND),
    )
    portal.remove_call(row["id"])
    portal.add_call(on_second_day(row))

    with later.open() as pipeline:
        # As if the run had ended between the two windows.
        ledger_row = pipeline.ledger.rows(FIRST, FIRST)[0]
        with pipeline.warehouse.transaction() as connection:
            pipeline.ledger.doubt(connection, [ledger_row.window_start], "a call has left", now)
        due = [plan.call_date for plan in plan_export(pipeline, now)]
        assert FIRST in due
        assert run_plans(pipeline, plan_export(pipeline, now), clock=lambda: now).is_complete
    assert later.run(SECOND, SECOND, force=True, now=now + timedelta(minutes=1)).is_complete
    assert_one_call_each(later)


@pytest.mark.parametrize(
    ("length", "warehouse_url"),
    [("12h", "duckdb"), ("4h", "sqlite"), ("4h", "postgresql"), ("12h", "mariadb")],
    indirect=["warehouse_url"],
)
def test_small_windows_of_one_day_share_no_call_either(
    portal: Portal, export: Export, length: str, tmp_path: Path
) -> None:
    export = export_of(
        export.settings.base_url, export.settings.warehouse_url.get_secret_value(), tmp_path, CALLHISTORY_WINDOW=length
    )
    row = some_row(portal)
    portal.add_call(row | {"start_time": range_ms(FIRST, FIRST)[1] - 5}, call_id="again")
    assert export.run(FIRST, SECOND).is_complete
    assert_one_call_each(export)
    files = export.files()
    assert export.run(FIRST, SECOND, force=True).is_complete
    assert export.files() == files
