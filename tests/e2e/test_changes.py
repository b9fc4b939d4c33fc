"""``changes``: what became different, late or gone, by day and by field."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.place import Place
from tests.exports import FIRST

DAY = ("--from", str(FIRST), "--to", str(FIRST))


def export(place: Place) -> None:
    assert place.run("backfill", *DAY, "--force").exit_code == 0


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str) -> Iterator[Place]:
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=1, calls_total=30, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    with SimulatedPortal(portal) as server:
        place = Place(server, tmp_path, warehouse_url)
        export(place)
        yield place


def test_each_change_is_told_by_day_by_field_and_by_call(place: Place) -> None:
    nothing = place.run("changes")
    assert (nothing.exit_code, "No call has changed since" in nothing.stdout) == (0, True)

    first, second, third, gone = (row for row in place.portal.rows(0, 2**50)[:4])
    place.portal.update_call(first["id"], talk_duration=4321)
    place.portal.update_call(second["id"], talk_duration=4321, account_name="An")
    place.portal.remove_call(gone["id"])
    place.portal.add_call(third | {"id": "call-vn-1-LATE000000-1"})
    export(place)
    export(place)
    place.portal.update_call(first["id"], talk_duration=1)
    place.portal.add_call(gone)
    export(place)

    found = place.run("changes", "--json").json
    by_call = {(change["call_id"], change["kind"]) for change in found["changes"]}
    assert by_call == {
        (first["id"], "different"),
        (second["id"], "different"),
        (gone["id"], "gone"),
        (gone["id"], "back"),
        ("call-vn-1-LATE000000-1", "late"),
    }
    assert found["days"] == [{"call_date": str(FIRST), "different": 3, "gone": 1, "back": 1, "late": 1}]
    assert found["fields"] == {"talk_seconds": 3, "agent_name": 1}
    assert [change["fields"] for change in found["changes"] if change["call_id"] == first["id"]] == [
        ["talk_seconds"]
    ] * 2

    shown = place.run("changes", "--since", "1h").stdout
    assert "talk_seconds: another value in 3" in shown
    assert place.run("changes", "--since", "1m", "--json").json["since"] > found["since"]


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("since", "says"),
    [("3x", "is no date"), ("9999-01-01", "is in the future"), ("d", "--since 'd'"), ("", "is no date")],
)
def test_a_wrong_since_is_one_line(place: Place, since: str, says: str) -> None:
    done = place.run("changes", "--since", since)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
