"""The views as an auditor queries them, on every database: plain SQL, no knowledge of this package."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import WrongTotal
from pipelines.windows import day_bounds
from sinks.views import VIEWS, View
from sinks.views.version import DIGEST
from sinks.warehouse import Warehouse, _declaration
from tests.exports import FIRST, ZONE, Export, export_of, range_ms
from tests.golden import views_digest

pytestmark = pytest.mark.usefixtures("retries_at_once")

DAY = timedelta(days=1)


@pytest.fixture
def portal() -> Portal:
    return Portal(
        generate(seed=3, start_date=FIRST, days=3, calls_total=120, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )


@pytest.fixture
def export(portal: Portal, warehouse_url: str, tmp_path: Path) -> Iterator[Export]:
    with SimulatedPortal(portal) as server:
        yield export_of(server.base_url, warehouse_url, tmp_path, CALLHISTORY_WINDOW="12h")


def query(export: Export, statement: str) -> list[dict[str, Any]]:
    with export.open() as pipeline, pipeline.warehouse.reading() as connection:
        return [dict(row) for row in connection.execute(sa.text(statement)).mappings()]


def by_day(export: Export) -> dict[str, dict[str, Any]]:
    rows = query(export, "SELECT * FROM completeness ORDER BY call_date")
    return {str(row.pop("call_date")): row for row in rows}


def read_at(export: Export, portal: Portal, now: datetime, first: date = FIRST, last: date = FIRST + DAY) -> None:
    portal.clock.set(now)
    export.run(first, last, now=now)


def test_completeness_says_of_each_day_what_is_proven(export: Export, portal: Portal) -> None:
    start, end = day_bounds(FIRST, ZONE)
    read_at(export, portal, start + timedelta(hours=2))
    [half] = by_day(export).values()
    assert (half["windows"], half["complete_windows"], bool(half["is_complete"])) == (1, 1, False)

    # Read at the end of its first half, the day has one closed window, and is not over.
    read_at(export, portal, start + timedelta(hours=12) - timedelta(milliseconds=1))
    with export.open() as pipeline, pipeline.warehouse.transaction() as connection:
        t = pipeline.warehouse.tables["export_windows"]
        connection.execute(sa.update(t).values(completed_at=start + timedelta(hours=12)))
    [half] = by_day(export).values()
    assert (half["windows"], bool(half["is_complete"])) == (1, False)

    # Both windows are proven, and the second one was still open when it was read.
    read_at(export, portal, start + timedelta(hours=20))
    [open_day] = by_day(export).values()
    assert (open_day["windows"], open_day["complete_windows"], bool(open_day["is_complete"])) == (2, 2, False)

    portal.faults.append(WrongTotal(offset=1, when=lambda request: str(range_ms(FIRST + DAY)[0]) in str(request.query)))
    read_at(export, portal, end + DAY + timedelta(hours=1))
    days = by_day(export)
    calls = len(portal.rows(*range_ms(FIRST, FIRST)))
    one, other = days[str(FIRST)], days[str(FIRST + DAY)]
    assert {name: one[name] for name in ("windows", "complete_windows", "failed_windows", "running_windows")} == {
        "windows": 2, "complete_windows": 2, "failed_windows": 0, "running_windows": 0,
    }  # fmt: skip
    assert one["api_total"] == one["raw_rows"] == one["lake_rows"] == one["warehouse_rows"] == calls > 10
    assert one["rejected"] == 0
    assert (bool(one["is_complete"]), bool(one["is_settled"])) == (True, False)
    assert str(one["last_completed_at"]).startswith(f"{end + DAY + timedelta(hours=1):%Y-%m-%d %H}")
    assert (other["failed_windows"], other["disputed_windows"], bool(other["is_complete"])) == (0, 1, False)

    portal.faults.clear()
    for age in (3, 7, 30, 31):
        read_at(export, portal, end + age * DAY)
    assert [(bool(day["is_complete"]), bool(day["is_settled"])) for day in by_day(export).values()] == [
        (True, True)
    ] * 2

    with export.open() as pipeline, pipeline.warehouse.transaction() as connection:
        connection.execute(sa.text("UPDATE export_windows SET warehouse_content_hash = '0' WHERE ends_day"))
    assert [bool(day["is_complete"]) for day in by_day(export).values()] == [False] * 2


def test_late_changes_are_counted_by_age(export: Export, portal: Portal) -> None:
    end = day_bounds(FIRST, ZONE)[1]
    read_at(export, portal, end + timedelta(hours=1), FIRST, FIRST)
    rows = portal.rows(*range_ms(FIRST, FIRST))
    portal.update_call(rows[3]["id"], talk_duration=4321)
    read_at(export, portal, end + DAY, FIRST, FIRST)
    portal.remove_call(rows[4]["id"])
    portal.add_call(rows[5] | {"id": "call-vn-1-LATE000000-1"})
    read_at(export, portal, end + 3 * DAY, FIRST, FIRST)
    read_at(export, portal, end + 7 * DAY, FIRST, FIRST)
    ages = query(export, "SELECT * FROM late_changes_by_age ORDER BY age_days")
    kinds = ("previous_age_days", "age_days", "inserted", "updated", "restored", "vanished", "calls_changed")
    assert [tuple(int(row[kind]) for kind in kinds) for row in ages] == [(0, 1, 0, 1, 0, 0, 1), (1, 3, 1, 0, 0, 1, 2)]
    assert [int(day["late_changes"]) for day in by_day(export).values()] == [3]


def test_an_unchanged_view_is_not_made_again_and_a_changed_one_is(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> list[Any]:
        with warehouse.reading() as connection:
            t = warehouse.tables["pipeline_state"]
            query = sa.select(t).where(t.c.name.like("view %")).order_by(t.c.name)
            return [tuple(row) for row in connection.execute(query)]

    before = state()
    assert [row[0] for row in before] == sorted(
        ["view and index declarations", *(f"view {view.name}" for view in warehouse.views)]
    )
    warehouse.prepare()
    assert state() == before
    with warehouse.transaction() as connection:
        connection.exec_driver_sql("DROP VIEW late_changes_by_age")
        connection.exec_driver_sql("CREATE VIEW late_changes_by_age AS SELECT 1 AS windows")
        t = warehouse.tables["pipeline_state"]
        older = ["view and index declarations", "view late_changes_by_age"]
        connection.execute(sa.update(t).where(t.c.name.in_(older)).values(value='"older"'))
    warehouse.prepare()
    with warehouse.reading() as connection:
        assert connection.execute(sa.text("SELECT age_days FROM late_changes_by_age")).all() == []
    after = state()
    assert [row[:2] for row in after] == [row[:2] for row in before]
    assert [row for row in after if row[0] not in older] == [row for row in before if row[0] not in older]


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
def test_a_view_in_which_a_number_has_changed_is_made_again(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(number: int) -> None:
        view = View("answer", "A number.", sa.select(sa.literal(number).label("number")))
        monkeypatch.setattr("sinks.warehouse.views", lambda *_, **__: [view])
        monkeypatch.setattr("sinks.warehouse.VIEWS", {"answer": None})
        monkeypatch.setattr("sinks.warehouse.DIGEST", str(number))
        _declaration.cache_clear()
        with Warehouse(warehouse_url) as warehouse:
            warehouse.prepare()
            with warehouse.reading() as connection:
                assert connection.execute(sa.text("SELECT number FROM answer")).scalar_one() == number

    try:
        answer(41)
        answer(42)
    finally:
        _declaration.cache_clear()


_COMMENTS = {
    "postgresql": "SELECT col_description('completeness'::regclass, 1), obj_description('completeness'::regclass)",
    "duckdb": "SELECT (SELECT comment FROM duckdb_columns() WHERE table_name = 'completeness' AND column_name = "
    "'call_date'), (SELECT comment FROM duckdb_views() WHERE view_name = 'completeness')",
}


@pytest.mark.parametrize("warehouse_url", sorted(_COMMENTS), indirect=True)
def test_views_carry_their_description_where_the_database_keeps_comments(warehouse: Warehouse) -> None:
    with warehouse.reading() as connection:
        [(of_column, of_view)] = connection.exec_driver_sql(_COMMENTS[warehouse.name]).fetchall()
    assert of_column == "The local day."
    assert "proves" in of_view


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
def test_a_view_is_made_again_with_those_that_select_from_it_and_no_other(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rights() -> set[str]:
        granted = "SELECT table_name FROM information_schema.role_table_grants WHERE grantee = 'PUBLIC'"
        with warehouse.reading() as connection:
            return set(connection.execute(sa.text(granted)).scalars()) & set(VIEWS)

    with warehouse.transaction() as connection:
        for name in VIEWS:
            connection.execute(sa.text(f"GRANT SELECT ON {name} TO PUBLIC"))
    assert rights() == set(VIEWS)
    changed = {**VIEWS, "call_facts": lambda relations: replace(VIEWS["call_facts"](relations), description="Other.")}
    monkeypatch.setattr("sinks.views.VIEWS", changed)
    monkeypatch.setattr("sinks.warehouse.DIGEST", "another")
    _declaration.cache_clear()
    try:
        with Warehouse(warehouse.backend.url.render_as_string(hide_password=False)) as newer:
            newer.prepare()
    finally:
        _declaration.cache_clear()
    assert rights() == {"calls_with_live", "completeness", "late_changes_by_age"}


def test_the_digest_of_the_views_is_that_of_their_sql() -> None:
    """With another digest, each warehouse makes the views that are other ones again."""
    assert views_digest() == DIGEST, "python -m tests.golden"
