"""``calls show``: everything that is held of one call, as the stores hold it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.place import Place
from tests.exports import FIRST

DAY = ("--from", str(FIRST), "--to", str(FIRST))


def recorded_row(place: Place) -> dict[str, Any]:
    """A call that has a recording and participants, as the portal serves it."""
    return next(row for row in place.portal.rows(0, 2**50) if row["recorded"] and row["participants"])


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str) -> Iterator[Place]:
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=1, calls_total=30, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    with SimulatedPortal(portal) as server:
        place = Place(server, tmp_path, warehouse_url)
        assert place.run("backfill", *DAY).exit_code == 0
        yield place


def test_a_call_is_shown_with_what_it_was_its_recording_and_its_proof(place: Place) -> None:
    row = recorded_row(place)
    place.portal.update_call(row["id"], talk_duration=4321, contactname="Lê Thị Bình")
    assert place.run("backfill", *DAY, "--force").exit_code == 0
    found = place.run("calls", "show", row["id"], "--raw", "--json").json
    assert (found["call"]["call_id"], found["call"]["talk_seconds"]) == (row["id"], 4321)
    assert len(found["participants"]) == found["call"]["participant_count"] > 0
    [change] = found["changes"]
    assert change["fields"]["talk_seconds"] == {"was": row["talk_duration"], "became": 4321}
    assert change["fields"]["contact_name"]["became"] == "Lê Thị Bình"
    assert change["read_at"] < change["replaced_at"] == found["call"]["updated_at"]
    assert found["recording"]["status"] == "pending"
    certificate = found["certificate"]
    assert (certificate["status"], certificate["api_total"]) == ("complete", 30)
    [raw] = found["raw"]
    assert json.loads(raw)["talk_duration"] == 4321

    shown = place.run("calls", "show", row["id"]).stdout
    assert "talk_seconds             4321 seconds" in shown
    assert f"talk_seconds             {row['talk_duration']} -> 4321" in shown
    assert "as it was served" not in shown


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_an_id_that_no_call_has_is_one_line(place: Place) -> None:
    done = place.run("calls", "show", "nobody's")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "error: no exported call has this id: a call in progress is shown by callhistory live\n"


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
def test_a_call_that_vanished_shows_when(place: Place) -> None:
    row = recorded_row(place)
    place.portal.remove_call(row["id"])
    for _ in range(2):
        place.run("backfill", *DAY, "--force")
    found = place.run("calls", "show", row["id"], "--json").json
    assert found["call"]["deleted_at"] is not None
    assert found["changes"][-1]["fields"] == {"deleted_at": {"was": None, "became": found["call"]["deleted_at"]}}
