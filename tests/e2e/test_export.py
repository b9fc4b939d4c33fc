"""From a portal over HTTP to lake and warehouse: every call once, equal value for value, whatever is run again."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from pipelines.context import utc_now
from pipelines.export.planner import Due
from pipelines.export.run import RunSummary, plan_days
from pipelines.export.window import READ_ATTEMPTS, Event, Outcome, Step
from pipelines.simulator import (
    Portal,
    PortalOptions,
    SimulatedPortal,
    SpawnedPortal,
    generate,
    mixed_faults,
    spawn,
)
from pipelines.simulator.faults import NothingThere, WrongTotal
from pipelines.simulator.limits import NO_LIMITS
from pipelines.windows import day_bounds
from sinks.ledger import ClaimedDay
from tests.exports import FIRST, PAGE_ROWS, ZONE, Export, assert_holds, export_of, range_ms
from transforms.schema import CALLS

pytestmark = pytest.mark.usefixtures("retries_at_once")

TIMES = ["window_start", "first_seen_at", "updated_at"]


@pytest.fixture
def large_portal(warehouse_url: str) -> Iterator[SpawnedPortal]:
    """Four days, in a process of its own; ``CALLHISTORY_TEST_CALLS=100000`` makes it as many calls."""
    calls = int(os.environ.get("CALLHISTORY_TEST_CALLS", "10000"))
    with spawn(calls=calls, days=4, seed=11, start_date=FIRST, limits=False) as portal:
        yield portal


def test_many_calls_arrive_once_value_for_value_within_the_fewest_requests(
    large_portal: SpawnedPortal, warehouse_url: str, tmp_path: Path
) -> None:
    export = export_of(large_portal.base_url, warehouse_url, tmp_path)
    served = large_portal.rows(*range_ms())
    assert len(served) >= 10_000
    large_portal.clear_log()

    summary = export.run()

    assert summary.is_complete
    requests = large_portal.counts()["history"]
    assert requests <= 1.02 * (len(served) / PAGE_ROWS + 10)
    assert summary.totals["requests"] == requests
    assert_holds(export, served)

    files, large_warehouse = export.files(), export.warehouse(CALLS)
    large_portal.clear_log()
    assert export.run().results == []
    assert large_portal.counts().get("history", 0) == 0

    again = export.run(FIRST, FIRST + timedelta(days=1), force=True)
    assert again.totals | {"requests": 0} == again.totals | {
        "requests": 0, "calls_inserted": 0, "calls_updated": 0, "calls_vanished": 0, "files_written": 0,
    }  # fmt: skip
    assert export.files() == files
    assert export.warehouse(CALLS).equals(large_warehouse)


@pytest.fixture
def portal() -> Portal:
    """2,000 calls over three days."""
    calls = generate(seed=3, start_date=FIRST, days=3, calls_total=2_000, ties=3)
    return Portal(calls, PortalOptions(rate_limits=NO_LIMITS))


SMALL_LAST = FIRST + timedelta(days=2)


@pytest.fixture
def server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_failing_requests_and_odd_rows_lose_and_double_nothing(warehouse_url: str, tmp_path: Path) -> None:
    with spawn(calls=6_000, days=3, seed=5, start_date=FIRST, limits=False, fault_rate=0.08, odd_share=0.2) as portal:
        export = export_of(portal.base_url, warehouse_url, tmp_path, STRINGEEX_TIMEOUT_SECONDS="5")
        summary = export.run(FIRST, SMALL_LAST)
        portal.clear_faults()
        served = portal.rows(*range_ms(FIRST, SMALL_LAST))
        assert summary.is_complete, [result.error for result in summary.results]
        assert summary.totals["rows_rejected"] > 0
        assert_holds(export, served, FIRST, SMALL_LAST)


@pytest.fixture
def export(server: SimulatedPortal, tmp_path: Path) -> Export:
    return export_of(server.base_url, f"duckdb:///{tmp_path / 'warehouse.duckdb'}", tmp_path)


def some_call(portal: Portal, day: date, index: int = 0) -> dict[str, Any]:
    row: dict[str, Any] = portal.rows(*range_ms(day, day))[index]
    return row


def test_late_changes_touch_only_the_rows_that_changed(
    portal: Portal, server: SimulatedPortal, warehouse_url: str, tmp_path: Path
) -> None:
    export = export_of(server.base_url, warehouse_url, tmp_path)
    export.run(FIRST, SMALL_LAST)
    before, files = export.warehouse(CALLS).to_pandas().set_index("call_id"), export.files()
    changed, gone, *_ = (some_call(portal, FIRST, index)["id"] for index in (5, 9))
    portal.update_call(changed, contactname="Trần Thị Mới", talk_duration=4321)
    portal.remove_call(gone)
    new = dict(some_call(portal, FIRST, 3), id="call-vn-1-LATE000000-1767600000000")
    portal.add_call(new)

    summary = export.run(FIRST, SMALL_LAST, force=True)

    counted = {name: summary.totals[f"calls_{name}"] for name in ("inserted", "updated", "vanished")}
    assert counted == {"inserted": 1, "updated": 1, "vanished": 1}
    after = export.warehouse(CALLS).to_pandas().set_index("call_id")
    untouched = before.index.difference([changed, gone])
    pd.testing.assert_frame_equal(after.loc[untouched], before.loc[untouched])
    assert after.loc[changed, "contact_name"] == "Trần Thị Mới"
    assert after.loc[changed, "first_seen_at"] == before.loc[changed, "first_seen_at"]
    assert after.loc[changed, "updated_at"] > before.loc[changed, "updated_at"]
    assert after.loc[gone, "deleted_at"] == after.loc[changed, "updated_at"]
    in_lake = export.lake(CALLS)["call_id"].to_pylist()
    assert gone not in in_lake
    assert new["id"] in in_lake
    rewritten = {name for name, file in export.files().items() if files.get(name) != file}
    assert {name.split("/")[1] for name in rewritten} == {f"call_date={FIRST}"}
    with export.open() as pipeline:
        assert [row.late_changes for row in pipeline.ledger.rows(FIRST, SMALL_LAST)] == [3, 0, 0]
        versions = pipeline.warehouse.tables["call_versions"]
        with pipeline.warehouse.reading() as connection:
            kept = connection.execute(sa.select(versions.c.call_id, versions.c.talk_seconds)).tuples().all()
    assert dict(kept) == {call_id: before.loc[call_id, "talk_seconds"] for call_id in (changed, gone)}


def test_a_call_that_returns_is_unmarked(portal: Portal, export: Export) -> None:
    export.run(FIRST, FIRST)
    row = some_call(portal, FIRST)
    portal.remove_call(row["id"])
    export.run(FIRST, FIRST, force=True)
    portal.add_call(row)
    summary = export.run(FIRST, FIRST, force=True)
    assert summary.totals["calls_restored"] == 1
    assert export.warehouse(CALLS)["deleted_at"].null_count == export.lake(CALLS).num_rows


def test_a_window_is_not_believed_to_be_empty_at_the_first_word(portal: Portal, export: Export) -> None:
    calls = export.run(FIRST, FIRST).totals["calls"]
    portal.faults.append(NothingThere(count=READ_ATTEMPTS - 1))
    assert export.run(FIRST, FIRST, force=True).totals["calls_vanished"] == 0
    assert_holds(export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)

    portal.faults.append(NothingThere())
    before = export.files()
    emptied = export.run(FIRST, FIRST, force=True)
    [held] = emptied.with_outcome(Outcome.HELD)
    assert f"{calls} of the {calls} calls" in (held.error or "")
    assert {name: found for name, found in export.files().items() if "raw" not in name} == {
        name: found for name, found in before.items() if "raw" not in name
    }
    assert export.warehouse(CALLS)["deleted_at"].null_count == calls


def test_a_call_that_moves_to_another_day_leaves_its_old_one_in_the_same_run(portal: Portal, export: Export) -> None:
    export.run(FIRST, SMALL_LAST)
    row = some_call(portal, FIRST)
    portal.remove_call(row["id"])
    moved = dict(row, start_time=range_ms(SMALL_LAST, SMALL_LAST)[0] + 5)
    portal.add_call(moved, start_ms=moved["start_time"])
    run = export.run(SMALL_LAST, SMALL_LAST, force=True)
    assert run.is_complete
    assert [(result.window.call_date, result.due) for result in run.results] == [
        (SMALL_LAST, Due.FORCED),
        (FIRST, Due.DISPUTED),
    ]
    assert export.lake(CALLS).equals(export.warehouse(CALLS))
    assert export.lake(CALLS)["call_id"].to_pylist().count(row["id"]) == 1
    assert export.run(FIRST, SMALL_LAST).results == []


@pytest.mark.parametrize(("wrong", "version_2"), [({"offset": -3}, False), ({"form": "missing"}, True)])
def test_a_wrong_count_disputes_its_window_and_withholds_nothing(
    wrong: dict[str, Any], version_2: bool, portal: Portal, export: Export
) -> None:
    portal.options.supports_version_2 = version_2
    day = f"{range_ms(SMALL_LAST, SMALL_LAST)[0]}-"
    portal.faults.append(WrongTotal(**wrong, when=lambda request: day in str(request.query)))
    served = portal.rows(*range_ms(FIRST, SMALL_LAST), version=2 if version_2 else 1)

    summary = export.run(FIRST, SMALL_LAST)

    assert not summary.is_complete
    [disputed] = summary.with_outcome(Outcome.DISPUTED)
    assert disputed.window.call_date == SMALL_LAST
    assert disputed.error is not None
    assert str(len(portal.rows(*range_ms(SMALL_LAST, SMALL_LAST)))) in disputed.error
    assert sorted(export.warehouse(CALLS)["call_id"].to_pylist()) == sorted(row["id"] for row in served)
    assert export.lake(CALLS).equals(export.warehouse(CALLS))

    files = export.files()
    again = export.run(FIRST, SMALL_LAST)
    assert [result.due for result in again.results] == [Due.DISPUTED]
    assert export.files() == files

    portal.faults.clear()
    healed = export.run(FIRST, SMALL_LAST)
    assert [result.window.call_date for result in healed.results] == [SMALL_LAST]
    assert_holds(export, served, FIRST, SMALL_LAST)


def test_windows_of_six_hours_make_the_same_tables_as_days(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    by_day = export_of(server.base_url, f"duckdb:///{tmp_path}/day.duckdb", tmp_path / "day")
    by_part = export_of(
        server.base_url, f"sqlite:///{tmp_path}/part.sqlite", tmp_path / "part", CALLHISTORY_WINDOW="6h"
    )
    by_day.run(FIRST, SMALL_LAST)
    assert len(by_part.run(FIRST, SMALL_LAST).results) == 12
    assert by_part.lake(CALLS).drop(TIMES).equals(by_day.lake(CALLS).drop(TIMES))
    assert_holds(by_part, portal.rows(*range_ms(FIRST, SMALL_LAST)), FIRST, SMALL_LAST)

    portal.remove_call(some_call(portal, FIRST)["id"])
    whole_days = export_of(server.base_url, f"sqlite:///{tmp_path}/part.sqlite", tmp_path / "part")
    assert len(whole_days.run(FIRST, SMALL_LAST, force=True).results) == 12
    assert whole_days.lake(CALLS).num_rows == len(portal.rows(*range_ms(FIRST, SMALL_LAST)))


def test_an_open_day_grows_and_a_closed_one_is_read_again_at_each_age_until_it_settles(
    portal: Portal, export: Export
) -> None:
    start, end = day_bounds(FIRST, ZONE)
    hour, day = timedelta(hours=1), timedelta(days=1)

    def run_at(now: datetime) -> RunSummary:
        portal.clock.set(now)
        return export.run(FIRST, FIRST, now=now)

    at_noon, at_eleven = run_at(start + 12 * hour), run_at(end - hour)
    assert 0 < at_noon.totals["calls"] < at_eleven.totals["calls"]
    assert at_eleven.totals["calls_inserted"] == at_eleven.totals["calls"] - at_noon.totals["calls"]

    dues = [[str(result.due) for result in run_at(end + age).results] for age in (hour, day - hour, day, 2 * day)]
    assert dues == [["reread"], [], ["reread"], []]
    portal.update_call(some_call(portal, FIRST)["id"], contactname="Lê Văn Muộn")
    assert [[str(r.due) for r in run_at(end + age * day).results] for age in (3, 7, 30)] == [["reread"]] * 3
    with export.open() as pipeline:
        [row] = pipeline.ledger.rows(FIRST, FIRST)
    assert (row.settled, row.next_reread_at, row.late_changes >= 1, row.attempts) == (True, None, True, 7)
    assert run_at(end + 365 * day).results == []


def test_two_runs_at_once_do_each_day_once(portal: Portal, export: Export) -> None:
    """While one run works on its days, another plans the same ones: it leaves the claimed, and skips the done."""
    others: list[RunSummary] = []

    def meanwhile(event: Event) -> None:
        if event.step is Step.FETCHED and not others:
            others.append(RunSummary("", (), 0))
            others[0] = export.run(FIRST, SMALL_LAST)

    summary = export.run(FIRST, SMALL_LAST, on_event=meanwhile)

    assert summary.is_complete
    assert others[0].with_outcome(Outcome.CLAIMED_ELSEWHERE)
    assert not others[0].is_complete, "what it leaves to the other run is not proven when it ends"
    done = [result.window for run in (summary, others[0]) for result in run.with_outcome(Outcome.COMPLETE)]
    assert sorted(done) == sorted(set(done))
    assert len(done) == 3
    assert_holds(export, portal.rows(*range_ms(FIRST, SMALL_LAST)), FIRST, SMALL_LAST)


def test_a_dead_runs_claim_expires(export: Export) -> None:
    with export.open() as pipeline:
        [day] = plan_days(pipeline, FIRST, FIRST, utc_now())
        dead = ClaimedDay(day.call_date, day.lock_start, day.lock_end, "dead")
        assert pipeline.ledger.claim_day(dead, day.windows, timedelta(minutes=5)) is not None
        assert [r.outcome for r in export.run(FIRST, FIRST).results] == [Outcome.CLAIMED_ELSEWHERE]
        assert pipeline.ledger.renew_claim(dead, timedelta(seconds=-1))
        assert [r.outcome for r in export.run(FIRST, FIRST).results] == [Outcome.COMPLETE]


def test_a_long_wait_keeps_the_claim_and_a_lost_one_stops_the_work(
    export: Export,
) -> None:
    """While pages wait for the budget the lease is renewed; a run that loses it all the same publishes nothing."""
    outlived = threading.Event()

    def wait_for_a_lease(event: Event) -> None:
        if event.step is Step.PAGE_READ and not outlived.is_set():
            outlived.wait(5.0)
            outlived.set()
            with export.open() as pipeline:
                [row] = pipeline.ledger.rows(FIRST, FIRST)
                assert row.claim_expires_at is not None
                assert row.claim_expires_at > utc_now()

    assert [
        r.outcome for r in export.run(FIRST, FIRST, on_event=wait_for_a_lease, lease=timedelta(seconds=4)).results
    ] == [Outcome.COMPLETE]

    second = FIRST + timedelta(days=1)

    def steal(event: Event) -> None:
        if event.step is Step.FETCHED:
            with export.open() as pipeline, pipeline.warehouse.transaction() as connection:
                table = pipeline.warehouse.tables["export_windows"]
                connection.execute(sa.update(table).where(table.c.call_date == second).values(claimed_by="thief"))

    assert [r.outcome for r in export.run(second, second, on_event=steal).results] == [Outcome.CLAIMED_ELSEWHERE]
    assert set(export.warehouse(CALLS)["call_date"].to_pylist()) == {FIRST}


def test_a_day_of_25_hours_is_exported_whole(portal: Portal, tmp_path: Path) -> None:
    zone, day = "America/New_York", date(2025, 11, 2)
    calls = generate(seed=9, start_date=day - timedelta(days=1), days=3, calls_total=900, timezone=zone)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        export = export_of(server.base_url, f"duckdb:///{tmp_path}/w.duckdb", tmp_path, CALLHISTORY_TIMEZONE=zone)
        export.run(day, day)
        start, end = day_bounds(day, zone)
        assert (end - start) == timedelta(hours=25)
        truth = server.portal.rows(int(start.timestamp() * 1000), int(end.timestamp() * 1000) - 1)
        assert export.lake(CALLS)["call_id"].to_pylist() == sorted(row["id"] for row in truth)
        assert set(export.lake(CALLS)["call_date"].to_pylist()) == {day}


def test_requests_are_counted_with_those_that_failed(portal: Portal, export: Export) -> None:
    portal.faults.append(mixed_faults(0.3, seed=4))
    summary = export.run(FIRST, FIRST)
    assert summary.is_complete
    assert summary.totals["requests"] == portal.counts["history"]
    assert summary.totals["requests"] > math.ceil(summary.totals["calls"] / PAGE_ROWS)
