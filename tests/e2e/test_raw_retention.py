"""Retention of raw copies: old ones of proven days go, and nobody misses them but who has to make a day anew."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.warehouse import Warehouse
from tests.e2e.place import Place

TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=9)
OLD, YOUNG = FIRST + timedelta(days=1), TODAY - timedelta(days=3)
EXPORT = {"CALLHISTORY_START_DATE": str(FIRST), "CALLHISTORY_REREAD": "1d"}
KEPT_FOR_5_DAYS = {**EXPORT, "CALLHISTORY_RETENTION_RAW": "5d"}


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str) -> Iterator[Place]:
    calls = generate(seed=3, start_date=FIRST, days=8, calls_total=60, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        place = Place(server, tmp_path, warehouse_url)
        assert place.run("export", **EXPORT).exit_code == 0
        yield place


def raw_days(place: Place) -> set[str]:
    return {name.split("call_date=")[1][:10] for name in place.files() if "/raw/" in name}


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_old_raw_copies_go_and_everything_is_right_without_them(place: Place) -> None:
    before = raw_days(place)
    assert str(OLD) in before
    again = place.run("export", "--json", **KEPT_FOR_5_DAYS)
    assert (again.exit_code, again.json["calls_updated"]) == (0, 0)
    assert raw_days(place) < before
    assert str(OLD) not in raw_days(place)
    assert str(YOUNG) in raw_days(place)

    for offline in (["--offline"], []):
        verified = place.run("verify", *offline, "--json", **KEPT_FOR_5_DAYS)
        assert verified.exit_code == 0, verified.output
    replayed = place.run("replay", "--json", **KEPT_FOR_5_DAYS)
    assert (replayed.exit_code, replayed.json["windows"]["failed"]) == (0, 0)
    assert place.run("rejects", "retry", **KEPT_FOR_5_DAYS).exit_code == 0
    assert place.run("status", **KEPT_FOR_5_DAYS).exit_code == 0
    once_more = place.run("export", "--json", **KEPT_FOR_5_DAYS)
    assert (once_more.exit_code, once_more.json["files_written"]) == (0, 0)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_difference_is_told_without_a_raw_copy_too_and_nothing_is_made_of_nothing(
    place: Place, warehouse_url: str
) -> None:
    assert place.run("export", **KEPT_FOR_5_DAYS).exit_code == 0
    with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
        t = warehouse.tables["calls"]
        connection.execute(sa.update(t).where(t.c.call_date == OLD).values(talk_seconds=12_345))
    verified = place.run("verify", "--offline", "--json", **KEPT_FOR_5_DAYS)
    assert verified.exit_code == 3
    [wrong] = [day for day in verified.json["days"] if not day["ok"]]
    assert wrong["call_date"] == str(OLD)
    replayed = place.run("replay", "--json", **KEPT_FOR_5_DAYS)
    assert (replayed.exit_code, replayed.json["windows"]["failed"]) == (3, 1)
    assert "backfill --force" in replayed.output
    forced = place.run("backfill", "--from", str(OLD), "--to", str(OLD), "--force", **KEPT_FOR_5_DAYS)
    assert forced.exit_code == 0, forced.output
    assert place.run("replay", **KEPT_FOR_5_DAYS).exit_code == 0
    assert place.run("verify", "--offline", **KEPT_FOR_5_DAYS).exit_code == 0


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_the_raw_copy_of_a_day_that_is_not_proven_stays(place: Place, warehouse_url: str) -> None:
    with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
        t = warehouse.tables["export_windows"]
        connection.execute(sa.update(t).where(t.c.call_date == OLD).values(status="disputed"))
    recent = ("--from", str(YOUNG), "--to", str(YOUNG))
    assert place.run("backfill", *recent, **KEPT_FOR_5_DAYS).exit_code == 0
    assert str(OLD) in raw_days(place)
    assert str(FIRST) not in raw_days(place)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_without_the_setting_a_raw_copy_that_is_gone_is_a_difference(place: Place) -> None:
    assert place.run("export", **KEPT_FOR_5_DAYS).exit_code == 0
    verified = place.run("verify", "--offline", **EXPORT)
    assert (verified.exit_code, "no raw copy" in verified.output) == (3, True)
