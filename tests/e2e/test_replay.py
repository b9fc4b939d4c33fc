"""``callhistory replay``: lake and warehouse again from the raw copy alone, the same to the byte."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

import transforms.calls
from pipelines.export.planner import Due
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from sinks.ledger import ClaimedDay
from tests.e2e.command import Finished, callhistory_here
from tests.exports import FIRST, ZONE, Export, export_of, range_ms
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    EXPORT_WINDOWS,
    LATE_CHANGES,
    REJECTED_ROWS,
    SOURCE_FIELDS,
    Table,
)

pytestmark = pytest.mark.usefixtures("retries_at_once")

LAST = FIRST + timedelta(days=1)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
REBUILT = (CALLS, CALL_PARTICIPANTS, CALL_VERSIONS, REJECTED_ROWS, LATE_CHANGES, SOURCE_FIELDS)
CERTIFICATE = ["status", "api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows", "content_hash",
    "warehouse_content_hash", "late_changes", "ends_day"]  # fmt: skip


@dataclass
class History:
    """Two days that were read four times while calls changed, moved, went and came back."""

    portal: Portal
    export: Export
    folder: Path

    def command(self, *arguments: str, **settings: str) -> Finished:
        here = {
            "CALLHISTORY_WAREHOUSE_URL": self.export.settings.warehouse_url.get_secret_value(),
            "CALLHISTORY_LAKE_URL": self.export.settings.lake_url,
        }
        return callhistory_here(*arguments, cwd=self.folder, settings=here | settings)

    def replay(self, *arguments: str, **settings: str) -> Finished:
        done = self.command("replay", "--json", "--from", str(FIRST), "--to", str(LAST), *arguments, **settings)
        assert done.exit_code == 0, done.output
        return done

    def tables(self) -> dict[str, pa.Table]:
        return self.export.warehouse_tables(REBUILT)

    def ledger(self) -> pa.Table:
        return self.export.warehouse(EXPORT_WINDOWS)

    def bytes(self) -> dict[str, bytes]:
        return {name: content for name, (_, _, content) in self.export.files().items()}

    def execute(self, table: Table, change: Any) -> None:
        with self.export.open() as pipeline, pipeline.warehouse.transaction() as connection:
            connection.execute(change(pipeline.warehouse.tables[table.name]))

    def ids(self) -> list[str]:
        return [row["id"] for row in self.portal.rows(*range_ms(FIRST, FIRST)) if isinstance(row["id"], str)]


@pytest.fixture
def history(warehouse_url: str, tmp_path: Path) -> Iterator[History]:
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=2, calls_total=160, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    with SimulatedPortal(portal) as server:
        history = History(
            portal, export_of(server.base_url, warehouse_url, tmp_path, CALLHISTORY_CONCURRENCY="1"), tmp_path
        )
        make(history)
        yield history


def make(history: History) -> None:
    portal, end = history.portal, day_bounds(LAST, ZONE)[1]
    rows = portal.rows(*range_ms(FIRST, FIRST))
    changed, gone, back, moved, odd, mended = (dict(row) for row in rows[3:9])

    def read(now: datetime) -> None:
        portal.clock.set(now)
        history.export.run(FIRST, LAST, now=now)

    portal.remove_call(mended["id"])
    portal.add_call(mended | {"id": None}, call_id="mended", start_ms=mended["start_time"])
    portal.add_call(odd | {"id": 1.5}, call_id="odd", start_ms=odd["start_time"])
    read(day_bounds(FIRST, ZONE)[0] + 20 * HOUR)
    read(end + HOUR)
    portal.update_call(changed["id"], talk_duration=4321, contactname="Trần Thị Mới", new_field={"a": [1]})
    portal.remove_call(gone["id"])
    portal.remove_call(back["id"])
    portal.remove_call(moved["id"])
    portal.add_call(moved | {"start_time": range_ms(LAST, LAST)[0] + 5})
    read(end + 2 * DAY + HOUR)
    portal.update_call(changed["id"], talk_duration=4322)
    portal.add_call(back)
    portal.remove_call("mended")
    portal.add_call(mended)
    read(end + 6 * DAY + HOUR)
    read(end + 7 * DAY)


def test_an_empty_warehouse_and_lake_become_what_they_were(
    history: History, warehouse_url: str, tmp_path: Path
) -> None:
    """Into another database of the same kind: values, times and versions are the same, Parquet files to the byte."""
    tables, files = history.tables(), history.bytes()
    assert tables[CALL_VERSIONS.name].num_rows >= 5
    assert tables[LATE_CHANGES.name].num_rows >= 2
    with history.export.open() as pipeline, pipeline.warehouse.transaction() as connection:
        for table in pipeline.warehouse.tables.values():
            connection.execute(sa.delete(table))
    for name in ("calls", "call_participants"):
        shutil.rmtree(Path(history.export.settings.lake_url) / name)
    requests = sum(history.portal.counts.values())

    done = history.replay()

    assert done.json["windows"]["anew"] == 2
    assert sum(history.portal.counts.values()) == requests
    for name, table in history.tables().items():
        assert table.equals(tables[name]), name
    assert history.bytes() == files
    assert history.command("verify", "--offline", "--to", str(LAST)).exit_code == 0


one_database = pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)


@one_database
def test_what_is_right_is_not_touched(history: History) -> None:
    tables, ledger, files = history.tables(), history.ledger(), history.export.files()
    done = history.replay()
    assert done.json["windows"] == {"nothing": 2, "in_place": 0, "anew": 0, "failed": 0}
    assert history.tables() == tables
    assert history.ledger().equals(ledger)
    assert history.export.files() == files


@one_database
def test_what_was_damaged_becomes_what_it_was(history: History) -> None:
    tables, ledger, files = history.tables(), history.ledger(), history.bytes()
    one = history.ids()[0]
    kept = [*CERTIFICATE, "completed_at", "next_reread_at", "settled"]
    lake = Path(history.export.settings.lake_url) / "calls"
    damages: list[Callable[[], object]] = [
        lambda: history.execute(CALLS, lambda t: sa.delete(t).where(t.c.call_id == one)),
        lambda: history.execute(CALL_PARTICIPANTS, lambda t: sa.update(t).values(participant="nobody")),
        lambda: shutil.rmtree(lake),
    ]
    for damage in damages:
        damage()
        done = history.replay()
        # One window holds the damage; the other one has a call that moved between them.
        in_place = 2 if damage is damages[-1] else 0
        assert done.json["windows"] == {"nothing": 0, "in_place": in_place, "anew": 2 - in_place, "failed": 0}
        for name, table in history.tables().items():
            assert table.equals(tables[name]), name
        assert history.bytes() == files
        assert history.ledger().select(kept).equals(ledger.select(kept))


@one_database
def test_after_a_change_of_the_code_rows_change_here_and_now_and_keep_their_version(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, versions = history.tables()[CALLS.name].to_pandas(), history.tables()[CALL_VERSIONS.name].num_rows
    monkeypatch.setitem(transforms.calls.STATUSES, 1, "connected")
    shown = history.replay("--diff")
    affected = int((before["status_code"].eq(1) & before["deleted_at"].isna()).sum())
    assert affected > 10
    tables = [table for change in shown.json["changes"] for table in change["tables"]]
    assert {(t["table"], t["added"], t["removed"]) for t in tables} == {("calls", 0, 0)}
    assert sum(t["changed"] for t in tables) == affected
    [column] = {c["column"] for t in tables for c in t["columns"]}
    assert column == "status"
    example = tables[0]["columns"][0]["examples"][0]
    assert (example["now"], example["then"]) == ("answered", "connected")
    assert history.tables()[CALLS.name].to_pandas().equals(before)

    done = history.replay()
    assert done.json["windows"]["in_place"] == 2
    assert done.json["calls_changed"] == affected
    after = history.tables()[CALLS.name].to_pandas()
    changed = after["status"].eq("connected")
    assert int(changed.sum()) == affected
    assert after.loc[changed, "updated_at"].min() > before["updated_at"].max()
    assert after["first_seen_at"].equals(before["first_seen_at"])
    assert after.loc[~changed].equals(before.loc[~changed])
    assert history.tables()[CALL_VERSIONS.name].num_rows == versions + affected
    assert history.command("verify", "--offline", "--to", str(LAST)).exit_code == 0
    assert history.replay().json["windows"]["nothing"] == 2


@one_database
def test_a_diff_shows_values_of_nobodys_columns_and_counts_of_the_others(history: History) -> None:
    before = history.tables()
    done = history.command("replay", "--from", str(FIRST), "--to", str(LAST), "--diff", CALLHISTORY_REGION="US")
    assert done.exit_code == 0
    assert "customer_number_e164: " in done.stdout or "stringee_number_e164: " in done.stdout
    people = {value for column in ("customer_number", "customer_number_e164", "contact_name", "agent_name")
        for value in before[CALLS.name][column].to_pylist() if value}  # fmt: skip
    assert not any(value in done.output for value in people)
    assert "Nothing was written." in done.output
    assert history.tables() == before


@one_database
def test_a_damaged_raw_copy_fails_its_window_and_leaves_all_as_it_is(history: History) -> None:
    raw = sorted((Path(history.export.settings.lake_url) / f"raw/call_date={FIRST}").iterdir())
    raw[0].write_bytes(raw[0].read_bytes()[:-20])
    history.execute(CALLS, lambda t: sa.delete(t).where(t.c.call_id == history.ids()[0]))
    tables, ledger = history.tables(), history.ledger()
    done = history.command("replay", "--json", "--from", str(FIRST), "--to", str(LAST))
    assert done.exit_code == 3
    assert done.json["windows"] == {"nothing": 1, "in_place": 0, "anew": 0, "failed": 1}
    assert "damaged" in done.json["changes"][0]["error"]
    assert history.tables() == tables
    assert history.ledger().equals(ledger)


@one_database
def test_a_day_that_another_run_has_claimed_is_left_to_it(history: History) -> None:
    history.execute(CALLS, lambda t: sa.delete(t).where(t.c.call_id == history.ids()[0]))
    start, end = day_bounds(FIRST, ZONE)
    with history.export.open() as pipeline:
        pipeline.ledger.claim_day(ClaimedDay(FIRST, start, end, "other"), (), timedelta(minutes=5))
    done = history.command("replay", "--json", "--from", str(FIRST), "--to", str(LAST))
    assert done.exit_code == 3
    assert "another run" in done.json["changes"][0]["error"]


@one_database
def test_an_export_after_a_replay_from_nothing_goes_on_where_the_raw_copy_ends(history: History) -> None:
    with history.export.open() as pipeline, pipeline.warehouse.transaction() as connection:
        for table in pipeline.warehouse.tables.values():
            connection.execute(sa.delete(table))
    history.replay()
    now = day_bounds(LAST, ZONE)[1] + 40 * DAY
    history.portal.clock.set(now)
    summary = history.export.run(FIRST, LAST, now=now)
    assert {result.due for result in summary.results} == {Due.REREAD}
    assert summary.totals["calls_inserted"] == summary.totals["calls_updated"] == 0
