"""``person``: everything that is held of somebody, wherever and however it is written, and nothing of anybody else."""

from __future__ import annotations

import csv
import json
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.place import Place
from tests.exports import FIRST, range_ms

LAST = FIRST + timedelta(days=1)
DAYS = ("--from", str(FIRST), "--to", str(LAST))
THEIRS, NATIONAL, OF_ANOTHER = "84900000777", "0900 000 777", "849000007771"
CUSTOMER, IN_NOTE, TWICE, AS_CALLEE, BY_PARTICIPANT, CHANGED = range(6)


@pytest.fixture
def server() -> Iterator[SimulatedPortal]:
    """Calls of a person by their number in many places; and one of somebody whose number begins with theirs."""
    calls = generate(seed=3, start_date=FIRST, days=2, calls_total=40, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    rows = portal.rows(*range_ms(FIRST, LAST))
    changes: dict[int, dict[str, object]] = {
        CUSTOMER: {"customer_number": THEIRS, "contactname": "=An", "recorded": 1},
        IN_NOTE: {"note": f"call back at {NATIONAL}"},
        TWICE: {"customer_number": f"+{THEIRS}", "recorded": 0},
        AS_CALLEE: {"callee": NATIONAL},
        BY_PARTICIPANT: {"participants": [{"number": "(+84) 900-000-777"}]},
        CHANGED: {"customer_number": THEIRS},
        6: {"customer_number": OF_ANOTHER, "note": f"id {OF_ANOTHER}"},
        7: {"start_time": "soon", "note": THEIRS},
    }
    for position, values in changes.items():
        portal.update_call(rows[position]["id"], **values)
    with SimulatedPortal(portal) as running:
        yield running


@pytest.fixture
def exported(server: SimulatedPortal, tmp_path: Path, warehouse_url: str) -> Place:
    place = Place(server, tmp_path, warehouse_url)
    assert place.run("backfill", *DAYS).exit_code == 0
    rows = server.portal.rows(*range_ms(FIRST, LAST))
    server.portal.update_call(rows[CHANGED]["id"], customer_number="84900000888")
    assert place.run("backfill", *DAYS, "--force").exit_code == 0
    assert place.run("recordings", "archive").exit_code == 0
    return place


def found_by(place: Place, folder: str, *who: str) -> dict[str, int]:
    done = place.run("person", *who, "--output", folder, "--json")
    assert done.exit_code == 0, done.output
    rows: dict[str, int] = done.json["rows"]
    return rows


def test_all_that_is_held_of_somebody_is_written_down(exported: Place, server: SimulatedPortal) -> None:
    rows = server.portal.rows(*range_ms(FIRST, LAST))
    theirs = {rows[n]["id"] for n in (CUSTOMER, IN_NOTE, TWICE, AS_CALLEE, BY_PARTICIPANT, CHANGED)}
    folder = exported.folder / "for-them"
    counts = found_by(exported, "for-them", "--customer-number", "0900000777")
    held = json.loads((folder / "person.json").read_text())
    assert {call["call_id"] for call in held["calls"]} == theirs
    assert {name: len(found) for name, found in held.items()} == counts
    assert [version["call_id"] for version in held["call_versions"]] == [rows[CHANGED]["id"]]
    [reject] = held["rejected_rows"]
    assert reject["payload"]["note"] == THEIRS
    assert {row["call_id"] for row in held["raw_rows"]} == theirs | {rows[7]["id"]}
    assert OF_ANOTHER not in (folder / "person.json").read_text()

    [recorded] = [call for call in held["calls"] if call["call_id"] == rows[CUSTOMER]["id"]]
    audio = [path for path in (folder / "recordings").rglob("*") if path.is_file()]
    assert any(recorded["call_id"] in path.name for path in audio)
    assert len([path for path in audio if path.suffix != ".json"]) == sum(
        recording["status"] == "archived" for recording in held["recordings"]
    )
    with (folder / "calls.csv").open(encoding="utf-8-sig", newline="") as file:
        by_id = {row["call_id"]: row for row in csv.DictReader(file)}
    assert by_id[recorded["call_id"]]["contact_name"] == "'=An"
    assert by_id[recorded["call_id"]]["customer_number_e164"] == f"'+{THEIRS}"
    modes = {stat.filemode(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert modes == {"drwx------", "-rw-------"}


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_nobody_a_used_folder_and_a_number_that_is_none(exported: Place) -> None:
    assert set(found_by(exported, "nobody", "--customer-number", "0900111222").values()) == {0}
    used = exported.run("person", "--customer-number", "0900000777", "--output", "nobody")
    assert (used.exit_code, "choose another folder" in used.output) == (2, True)
    refused = exported.run("person", "--customer-number", "user_2", "--output", "other")
    assert (refused.exit_code, "is no phone number" in refused.output) == (2, True)
    assert not (exported.folder / "other").exists()
    assert exported.run("person", "--output", "other").exit_code == 2


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_an_agent_is_found_by_id_and_by_address(exported: Place, server: SimulatedPortal) -> None:
    rows = server.portal.rows(*range_ms(FIRST, LAST))
    agent = next(row for row in rows[8:] if row.get("account") and row.get("account_email"))
    expected = {row["id"] for row in rows if row.get("account") == agent["account"]}
    ways = {"by-id": ("--agent-id", agent["account"]), "by-mail": ("--email", agent["account_email"].upper())}
    for folder, who in ways.items():
        found_by(exported, folder, *who)
        held = json.loads((exported.folder / folder / "person.json").read_text())
        assert {call["call_id"] for call in held["calls"]} >= expected - {rows[7]["id"]}


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_a_recording_is_held_and_released(exported: Place, server: SimulatedPortal, warehouse_url: str) -> None:
    call_id = server.portal.rows(*range_ms(FIRST, LAST))[CUSTOMER]["id"]
    for reason in ("court case 7", "court case 8"):
        assert exported.run("recordings", "hold", call_id, "--reason", reason).exit_code == 0
    shown = exported.run("calls", "show", call_id, "--json").json["recording"]
    assert (shown["legal_hold"], shown["hold_reason"]) == (True, "court case 8")
    kept = exported.run("recordings", "delete", "--older-than", "1d", "--json")
    assert kept.json["plan"]["under_legal_hold"] == 1
    assert exported.run("recordings", "release", call_id).exit_code == 0
    shown = exported.run("calls", "show", call_id, "--json").json["recording"]
    assert (shown["legal_hold"], shown["hold_reason"], shown["held_at"]) == (False, None, None)
    for arguments in (("hold", "no-such-call", "--reason", "x"), ("release", "no-such-call")):
        refused = exported.run("recordings", *arguments)
        assert (refused.exit_code, "no recording of this call is known" in refused.output) == (1, True)
    assert exported.run("recordings", "hold", call_id, "--reason", " ").exit_code == 2


def test_a_snapshot_of_calls_in_progress_is_searched_too(exported: Place, warehouse_url: str) -> None:
    engine = sa.create_engine(warehouse_url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO live_calls (snapshot_at, call_id, direction, customer_number)"
            f" VALUES ('2026-01-05 10:00:00', 'live-1', 'inbound', '{THEIRS}')"
        )
    engine.dispose()
    assert found_by(exported, "live", "--customer-number", f"+{THEIRS}")["live_calls"] == 1


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_half_a_character_stops_neither_a_person_nor_a_call(
    server: SimulatedPortal, tmp_path: Path, warehouse_url: str
) -> None:
    place = Place(server, tmp_path, warehouse_url)
    call_id = server.portal.rows(*range_ms(FIRST, LAST))[CUSTOMER]["id"]
    server.portal.update_call(call_id, note="half \ud800 of it")
    assert place.run("backfill", *DAYS).exit_code == 0
    shown = place.run("calls", "show", call_id, "--json")
    assert (shown.exit_code, shown.json["call"]["extra"]["note"]) == (0, "half \ud800 of it")
    found_by(place, "for-them", "--customer-number", THEIRS)
    held = json.loads((place.folder / "for-them" / "person.json").read_text())
    [call] = [call for call in held["calls"] if call["call_id"] == call_id]
    assert call["extra"]["note"] == "half \ud800 of it"
