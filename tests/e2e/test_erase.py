"""``erase``: a person goes from everywhere, everything else stays, and nothing brings them back."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from tests.e2e.command import Finished
from tests.e2e.place import Place
from tests.exports import FIRST, range_ms
from transforms.person import Person
from transforms.schema import TABLES

LAST = FIRST + timedelta(days=1)
DAYS = ("--from", str(FIRST), "--to", str(LAST))
THEIRS, NATIONAL, OF_ANOTHER = "84900000777", "0900 000 777", "849000007771"
PERSON = Person.named(number=THEIRS, region="VN")
KEY = {"CALLHISTORY_PII_KEY": "a key of the tests, long enough"}
ERASE = ("erase", "--customer-number", "0900000777", "--yes")
CUSTOMER, IN_NOTE, TWICE, AS_CALLEE, BY_PARTICIPANT, CHANGED, OTHERS, REJECT, AS_ID = range(9)
ON_THE_CALL = (CUSTOMER, TWICE, AS_CALLEE, BY_PARTICIPANT, CHANGED)


@pytest.fixture
def server() -> Iterator[SimulatedPortal]:
    """Calls of a person by their number in many places; and one of somebody whose number begins with theirs."""
    calls = generate(seed=3, start_date=FIRST, days=2, calls_total=60, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    rows = portal.rows(*range_ms(FIRST, LAST))
    changes: dict[int, dict[str, object]] = {
        CUSTOMER: {"customer_number": THEIRS, "contactname": "Their Name", "recorded": 1, "crm": {"mood": "angry"}},
        IN_NOTE: {"note": f"call back at {NATIONAL}"},
        TWICE: {"customer_number": f"+{THEIRS}", "recorded": 1},
        AS_CALLEE: {"callee": NATIONAL},
        BY_PARTICIPANT: {"participants": [{"number": "(+84) 900-000-777"}, "agent_7"]},
        CHANGED: {"customer_number": THEIRS},
        OTHERS: {"customer_number": OF_ANOTHER, "note": f"id {OF_ANOTHER}"},
        REJECT: {"start_time": "soon", "note": THEIRS},
    }
    for position, values in changes.items():
        portal.update_call(rows[position]["id"], **values)
    with SimulatedPortal(portal) as running:
        yield running


def rows_of(place: Place) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = place.portal.rows(*range_ms(FIRST, LAST))
    return rows


@pytest.fixture
def exported(server: SimulatedPortal, tmp_path: Path, warehouse_url: str) -> Place:
    place = Place(server, tmp_path, warehouse_url)
    assert place.run("backfill", *DAYS).exit_code == 0
    place.portal.update_call(rows_of(place)[CHANGED]["id"], customer_number="84900000888")
    assert place.run("backfill", *DAYS, "--force").exit_code == 0
    assert place.run("recordings", "archive", STRINGEEX_RECORDINGS_PER_MINUTE="0").exit_code == 0
    return place


def erase(place: Place, *more: str) -> Finished:
    return place.run(*ERASE, *more, "--json", **KEY)


def contents(warehouse_url: str) -> dict[str, list[dict[str, Any]]]:
    with Warehouse(warehouse_url) as warehouse, warehouse.reading() as connection:
        found = {}
        for table in TABLES:
            t = warehouse.tables[table.name]
            batches = list(warehouse.fetch(connection, table, sa.select(t)))
            rows = pa.concat_tables(batches).to_pylist() if batches else []
            found[table.name] = sorted(rows, key=lambda row, key=table.key: [str(row[name]) for name in key])
    return found


def places_that_speak_of_them(place: Place, warehouse_url: str) -> list[str]:
    """Look in every row of every table and every byte of every file, with nothing of what erases."""
    found = [
        table
        for table, rows in contents(warehouse_url).items()
        if any(PERSON.is_in(str(list(row.values()))) for row in rows)
    ]
    for path in sorted(place.folder.rglob("*")):
        name = str(path.relative_to(place.folder))
        if path.is_dir() or "duckdb" in name or "sqlite" in name or name.startswith(("receipt", "backup")):
            continue
        content = path.read_bytes()
        if path.suffix == ".zst":
            content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
        elif path.suffix == ".parquet":
            content = str(pq.read_table(pa.BufferReader(content)).to_pylist()).encode()
        if PERSON.is_in(content.decode("latin-1")) or PERSON.is_in(name):
            found.append(name)
    return found


def test_a_person_goes_from_everywhere_and_all_else_stays(exported: Place, warehouse_url: str) -> None:
    rows = rows_of(exported)
    theirs = {rows[n]["id"] for n in (*ON_THE_CALL, IN_NOTE)}
    before = contents(warehouse_url)
    assert len(places_that_speak_of_them(exported, warehouse_url)) > 5

    done = erase(exported, "--receipt", "receipt.json")
    assert done.exit_code == 0, done.output
    assert places_that_speak_of_them(exported, warehouse_url) == []
    found = done.json["found"]
    assert (found["calls"], found["call_versions"], found["rejected_rows"]) == (4, 1, 1)
    assert done.json["left"] == {}

    after = contents(warehouse_url)
    for table in ("calls", "call_participants", "call_versions"):
        assert [r for r in after[table] if r["call_id"] not in theirs] == [
            r for r in before[table] if r["call_id"] not in theirs
        ], table
        assert len(after[table]) == len(before[table])
    by_id = {call["call_id"]: call for call in after["calls"]}
    theirs_before = {call["call_id"]: call for call in before["calls"]}
    call = by_id[rows[CUSTOMER]["id"]]
    assert {call[name] for name in ("customer_number", "customer_number_e164", "contact_name", "extra")} == {None}
    assert (call["is_recorded"], call["record_path"]) == (None, None)
    for name in ("started_at", "talk_seconds", "status", "direction", "agent_id", "participant_count"):
        assert call[name] == theirs_before[call["call_id"]][name]
    archived = {recording["call_id"] for recording in after["recordings"] if recording["status"] == "archived"}
    assert archived.isdisjoint(rows[n]["id"] for n in ON_THE_CALL)
    assert len(archived) == sum(r["status"] == "archived" for r in before["recordings"]) - len(
        {r["call_id"] for r in before["recordings"] if r["status"] == "archived"} & {rows[n]["id"] for n in ON_THE_CALL}
    )
    assert not [path for path in exported.files() if any(rows[n]["id"] in path for n in ON_THE_CALL)]
    verified = exported.run("verify", "--offline", "--json", **KEY)
    assert verified.exit_code == 0, verified.output
    assert exported.run("verify", "--json", **KEY).exit_code == 0


def test_nothing_brings_them_back(exported: Place, warehouse_url: str) -> None:
    assert erase(exported, "--receipt", "receipt.json").exit_code == 0
    after = contents(warehouse_url)
    again = exported.run("backfill", *DAYS, "--force", "--json", **KEY)
    assert again.exit_code == 0, again.output
    assert (again.json["calls_inserted"], again.json["calls_updated"], again.json["files_written"]) == (0, 0, 0)
    exported.portal.update_call(rows_of(exported)[CUSTOMER]["id"], talk_duration=7)
    again = exported.run("backfill", *DAYS, "--force", "--json", **KEY)
    assert (again.exit_code, again.json["calls_updated"]) == (0, 1)
    assert exported.run("recordings", "archive", **KEY).exit_code == 0
    assert exported.run("replay", **KEY).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []
    assert [row["call_id"] for row in contents(warehouse_url)["calls"]] == [row["call_id"] for row in after["calls"]]
    assert exported.run("verify", "--json", **KEY).exit_code == 0
    proven = exported.run("erase", "--verify", "receipt.json", "--json", **KEY)
    assert (proven.exit_code, proven.json["holds"]) == (0, True)


class Backup:
    """All rows of a warehouse, on any database, to be brought back."""

    def __init__(self, warehouse_url: str) -> None:
        self._url = warehouse_url
        self._rows: dict[str, list[pa.Table]] = {}
        with Warehouse(warehouse_url) as warehouse, warehouse.reading() as connection:
            for table in TABLES:
                t = warehouse.tables[table.name]
                self._rows[table.name] = list(warehouse.fetch(connection, table, sa.select(t)))

    def restore(self) -> None:
        with Warehouse(self._url) as warehouse:
            for table in TABLES:
                t = warehouse.tables[table.name]
                with warehouse.transaction() as connection:
                    connection.execute(sa.delete(t))
                with warehouse.transaction() as connection:
                    for batch in self._rows[table.name]:
                        warehouse.backend.load(connection, t, batch)


def test_a_restored_warehouse_is_erased_again_by_the_next_export(exported: Place, warehouse_url: str) -> None:
    backup = Backup(warehouse_url)
    assert erase(exported, "--receipt", "receipt.json").exit_code == 0
    after = contents(warehouse_url)
    backup.restore()
    assert places_that_speak_of_them(exported, warehouse_url)
    undone = exported.run("erase", "--verify", "receipt.json", "--json", **KEY)
    assert (undone.exit_code, undone.json["holds"]) == (3, False)
    assert undone.json["left"]["calls"] == 4
    [forgotten] = undone.json["forgotten"]
    assert forgotten == after["erasures"][0]["erasure_id"]

    assert exported.run("backfill", *DAYS, **KEY).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []
    assert [row["row_hash"] for row in contents(warehouse_url)["calls"]] == [row["row_hash"] for row in after["calls"]]
    assert exported.run("erase", "--verify", "receipt.json", **KEY).exit_code == 0
    assert exported.run("verify", "--offline", **KEY).exit_code == 0


embedded = pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)


@embedded
def test_a_restored_lake_is_erased_again_by_the_next_export(exported: Place, warehouse_url: str) -> None:
    lake = exported.folder / "data" / "lake"
    shutil.copytree(lake, exported.folder / "backup")
    assert erase(exported).exit_code == 0
    shutil.rmtree(lake)
    shutil.move(exported.folder / "backup", lake)
    assert places_that_speak_of_them(exported, warehouse_url)
    assert exported.run("backfill", *DAYS, **KEY).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []
    assert exported.run("verify", "--offline", **KEY).exit_code == 0


@embedded
def test_a_raw_copy_brought_back_alone_does_not_come_back_into_the_tables(exported: Place, warehouse_url: str) -> None:
    raw = exported.folder / "data" / "lake" / "raw"
    shutil.copytree(raw, exported.folder / "backup")
    assert erase(exported, "--receipt", "receipt.json").exit_code == 0
    shutil.rmtree(raw)
    shutil.move(exported.folder / "backup", raw)
    for path in (exported.folder / "data" / "lake" / "calls").rglob("*.parquet"):
        path.unlink()
    assert exported.run("replay", **KEY).exit_code == 0
    assert {name.split("/")[2] for name in places_that_speak_of_them(exported, warehouse_url)} == {"raw"}
    undone = exported.run("erase", "--verify", "receipt.json", "--json", **KEY)
    assert (undone.exit_code, list(undone.json["left"])) == (3, ["raw copy"])
    assert erase(exported).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []


@embedded
def test_a_backup_of_everything_is_told_by_the_receipt(exported: Place, warehouse_url: str) -> None:
    shutil.copytree(exported.folder / "data", exported.folder / "backup")
    backup = Backup(warehouse_url)
    assert erase(exported, "--receipt", "receipt.json").exit_code == 0
    shutil.rmtree(exported.folder / "data")
    shutil.move(exported.folder / "backup", exported.folder / "data")
    backup.restore()
    told = exported.run("erase", "--verify", "receipt.json", **KEY)
    assert (told.exit_code, "has forgotten them" in told.output) == (3, True)
    assert "They are back" in told.output


@embedded
def test_without_the_key_nobody_is_erased_and_nobody_comes_back(exported: Place, warehouse_url: str) -> None:
    before = contents(warehouse_url)
    refused = exported.run(*ERASE)
    assert (refused.exit_code, "CALLHISTORY_PII_KEY: not set" in refused.output) == (2, True)
    refused = exported.run(*ERASE, CALLHISTORY_PII_KEY="short")
    assert (refused.exit_code, "too short" in refused.output) == (2, True)
    asked = exported.run("erase", "--customer-number", "0900000777", "--json", **KEY)
    assert (asked.exit_code, "add --yes" in asked.output) == (2, True)
    assert contents(warehouse_url)["calls"] == before["calls"]

    assert erase(exported).exit_code == 0
    other = {"CALLHISTORY_PII_KEY": "another key of the tests"}
    for settings in ({}, other):
        for command in (("backfill", *DAYS, "--force"), ("replay",), ("verify", "--offline"), ERASE):
            refused = exported.run(*command, **settings)
            assert (refused.exit_code, "CALLHISTORY_PII_KEY" in refused.output) == (2, True), refused.output
        checked = exported.run("check", **settings)
        assert (checked.exit_code, "CALLHISTORY_PII_KEY" in checked.output) == (1, True), checked.output
    assert places_that_speak_of_them(exported, warehouse_url) == []


@embedded
def test_an_archive_that_a_run_fills_is_not_erased_from_and_withholds_no_day(
    exported: Place, warehouse_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Storage(str(exported.folder / "data" / "recordings")).only_writer():
        busy = erase(exported)
        assert (busy.exit_code, "another run is writing" in busy.output) == (1, True)
        exported_meanwhile = exported.run("backfill", *DAYS, "--force", **KEY)
        assert exported_meanwhile.exit_code == 0, exported_meanwhile.output
    assert "left for the next export" in caplog.text
    assert exported.run("status", "--json", **KEY).json["erasures_due_since"]
    done = erase(exported)
    assert (done.exit_code, "it goes on" in done.stderr) == (0, True)
    assert places_that_speak_of_them(exported, warehouse_url) == []
    assert exported.run("verify", "--offline", **KEY).exit_code == 0


@embedded
def test_audio_under_legal_hold_stays_until_it_is_released(exported: Place, warehouse_url: str) -> None:
    call_id = rows_of(exported)[CUSTOMER]["id"]
    assert exported.run("recordings", "hold", call_id, "--reason", "a court case").exit_code == 0
    done = erase(exported)
    assert (done.exit_code, done.json["under_legal_hold"]) == (0, 1)
    kept = [name for name in exported.files() if call_id in name]
    assert len(kept) == 2
    assert places_that_speak_of_them(exported, warehouse_url) == [name for name in kept if name.endswith(".json")]
    assert exported.run("recordings", "release", call_id, **KEY).exit_code == 0
    assert exported.run("backfill", *DAYS, **KEY).exit_code == 0
    assert not [name for name in exported.files() if call_id in name]
    assert places_that_speak_of_them(exported, warehouse_url) == []


@embedded
def test_several_people_in_one_pass_and_once_more_is_nothing(exported: Place, warehouse_url: str) -> None:
    rows = rows_of(exported)
    agent = next(row["account"] for row in rows[OTHERS + 1 :] if row.get("account"))
    people = exported.folder / "people.txt"
    people.write_text(f"0900000777\n\nid:{agent}\n{OF_ANOTHER[:3]}\n")
    refused = exported.run("erase", "--file", "people.txt", "--yes", **KEY)
    assert (refused.exit_code, "line 4 is no phone number" in refused.output) == (2, True)
    people.write_text(f"0900000777\n\nid:{agent}\n")
    done = exported.run("erase", "--file", "people.txt", "--yes", "--json", "--receipt", "receipt.json", **KEY)
    assert done.exit_code == 0, done.output
    assert len(done.json["erasures"]) == 2
    assert not [call for call in contents(warehouse_url)["calls"] if agent in str(list(call.values()))]
    people.unlink()
    assert places_that_speak_of_them(exported, warehouse_url) == []
    again = erase(exported)
    assert (again.exit_code, "erased before" in again.stderr) == (0, True)
    assert again.json["erasures"][0] in done.json["erasures"]
    assert exported.run("verify", **KEY).exit_code == 0
    receipt = (exported.folder / "receipt.json").read_text()
    assert not PERSON.is_in(receipt)
    assert agent not in receipt
    (exported.folder / "receipt.json").write_text(receipt.replace('"tool_version": "', '"tool_version": "9'))
    changed = exported.run("erase", "--verify", "receipt.json", **KEY)
    assert (changed.exit_code, "was changed since it was written" in changed.output) == (1, True)


@embedded
def test_a_call_whose_id_is_their_number_gets_another_id(
    server: SimulatedPortal, tmp_path: Path, warehouse_url: str
) -> None:
    place = Place(server, tmp_path, warehouse_url)
    place.portal.update_call(rows_of(place)[AS_ID]["id"], id=f"{THEIRS}-x", recorded=1)
    assert place.run("backfill", *DAYS).exit_code == 0
    assert erase(place).exit_code == 0
    assert places_that_speak_of_them(place, warehouse_url) == []
    [call] = [call for call in contents(warehouse_url)["calls"] if call["call_id"].startswith("erased-")]
    assert call["is_recorded"] is None
    again = place.run("backfill", *DAYS, "--force", "--json", **KEY)
    assert (again.exit_code, again.json["calls_inserted"]) == (0, 0)
    assert place.run("verify", "--offline", **KEY).exit_code == 0


@embedded
def test_recordings_go_at_the_provider_too_if_asked(exported: Place) -> None:
    rows = rows_of(exported)
    done = erase(exported, "--at-source")
    assert done.exit_code == 0, done.output
    for position in (CUSTOMER, TWICE):
        gone = exported.run("recordings", "download", rows[position]["id"], "--to", "audio")
        assert gone.exit_code == 1, gone.output
    late = erase(exported, "--at-source")
    assert (late.exit_code, "recordings delete CALL_ID" in late.output) == (2, True)


@embedded
def test_what_is_at_the_provider_stays_unless_asked_and_goes_later_only_with_a_yes(exported: Place) -> None:
    kept = rows_of(exported)[CUSTOMER]["id"]
    with Storage(str(exported.folder / "data" / "recordings")).only_writer():
        assert erase(exported).exit_code == 1  # begun, and cut off
    asked = exported.run("erase", "--customer-number", "0900000777", "--at-source", "--json", **KEY)
    assert (asked.exit_code, "add --yes" in asked.output) == (2, True)
    assert erase(exported).exit_code == 0
    assert exported.run("recordings", "download", kept, "--to", "audio").exit_code == 0


def test_a_snapshot_of_calls_in_progress_keeps_nobody_who_is_erased(exported: Place, warehouse_url: str) -> None:
    engine = sa.create_engine(warehouse_url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO live_calls (snapshot_at, call_id, direction, customer_number, customer_number_e164)"
            f" VALUES ('2026-01-05 10:00:00.000000', 'live-1', 'inbound', '0900000777', '+{THEIRS}')"
        )
    assert erase(exported).json["found"]["live_calls"] == 1
    [row] = contents(warehouse_url)["live_calls"]
    assert (row["call_id"], row["customer_number"], row["customer_number_e164"]) == ("live-1", None, None)


@embedded
def test_a_damaged_file_is_named_and_the_erasure_is_not_called_done(exported: Place, warehouse_url: str) -> None:
    [raw, *_] = sorted((exported.folder / "data" / "lake" / "raw").rglob("*.zst"))
    whole = raw.read_bytes()
    raw.write_bytes(whole[: len(whole) // 2])
    done = erase(exported)
    assert (done.exit_code, done.json["unreadable"]) == (3, [str(raw.relative_to(exported.folder / "data" / "lake"))])
    assert done.json["erasures"][0]["completed_at"] is None
    raw.write_bytes(whole)
    assert erase(exported).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []


@embedded
@pytest.mark.parametrize("lost", ["warehouse", "lake"])
def test_a_store_that_has_lost_its_rows_keeps_the_other_from_nothing(
    exported: Place, warehouse_url: str, lost: str
) -> None:
    if lost == "lake":
        for path in (exported.folder / "data" / "lake").rglob("*.parquet"):
            path.unlink()
    else:
        with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
            for name in ("calls", "call_participants"):
                connection.execute(sa.delete(warehouse.tables[name]))
    kept = len([name for name in exported.files() if name.endswith(".parquet")])
    done = erase(exported)
    assert done.exit_code == 0, done.output
    assert places_that_speak_of_them(exported, warehouse_url) == []
    assert len([name for name in exported.files() if name.endswith(".parquet")]) == kept
    assert exported.run("replay", **KEY).exit_code == 0
    assert exported.run("verify", "--offline", **KEY).exit_code == 0
    assert places_that_speak_of_them(exported, warehouse_url) == []
