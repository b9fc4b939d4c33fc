"""The quarantine through the command: what lies there and why, and how rows get out of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import transforms.fields
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests.e2e.command import Finished, callhistory_here
from tests.exports import FIRST, ZONE, Export, export_of, range_ms
from transforms.schema import CALLS, REJECTED_ROWS


@dataclass
class Quarantine:
    """A day with three rows that are no calls."""

    portal: Portal
    export: Export
    folder: Path
    odd: list[dict[str, Any]]

    def command(self, *arguments: str) -> Finished:
        settings = {
            "CALLHISTORY_WAREHOUSE_URL": self.export.settings.warehouse_url.get_secret_value(),
            "CALLHISTORY_LAKE_URL": self.export.settings.lake_url,
        }
        done = callhistory_here("rejects", *arguments, cwd=self.folder, settings=settings)
        assert done.exit_code == 0, done.output
        return done


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    portal = Portal(generate(seed=3, start_date=FIRST, days=1, calls_total=60), PortalOptions(rate_limits=NO_LIMITS))
    one, two, three = (dict(row) for row in portal.rows(*range_ms(FIRST, FIRST))[3:6])
    odd = [one | {"id": None}, two | {"id": "x" * 600}, three | {"id": "call-vn-1-SOON000000-1", "start_time": "soon"}]
    for number, (row, good) in enumerate(zip(odd, (one, two, three), strict=True)):
        portal.add_call(row, call_id=f"odd {number}", start_ms=good["start_time"])
    with SimulatedPortal(portal) as server:
        export = export_of(server.base_url, f"duckdb:///{tmp_path}/warehouse.duckdb", tmp_path)
        export.run(FIRST, FIRST)
        yield Quarantine(portal, export, tmp_path, odd)


def test_the_list_says_why_and_where_and_how_many_and_nobodys_data(quarantine: Quarantine) -> None:
    done = quarantine.command("list", "--json")
    start = day_bounds(FIRST, ZONE)[0].isoformat()
    found = [(r["reason"], r["field"], r["call_date"], r["window_start"], r["rows"]) for r in done.json["rejects"]]
    assert sorted(found) == [
        ("missing_id", "id", str(FIRST), start, 1),
        ("unusable_id", "id", str(FIRST), start, 1),
        ("unusable_start_time", "start_time", str(FIRST), start, 1),
    ]
    assert done.json["rejected_rows"] == 3
    shown = quarantine.command("list").stdout
    assert "unusable_start_time" in shown
    assert "3 rows in quarantine" in shown
    number = str(quarantine.odd[0]["customer_number"])
    assert number not in done.output + shown
    assert quarantine.command("list", "--json", "--from", "2026-01-06").json["rejects"] == []


def test_payloads_are_shown_where_they_are_asked_for(quarantine: Quarantine) -> None:
    groups = quarantine.command("list", "--json", "--show-payload").json["rejects"]
    payloads = [json.loads(payload) for group in groups for payload in group["payloads"]]
    assert sorted(payloads, key=str) == sorted(quarantine.odd, key=str)


def test_a_row_mended_at_the_source_leaves_by_itself(quarantine: Quarantine) -> None:
    quarantine.portal.remove_call("odd 2")
    mended = quarantine.odd[2] | {"start_time": range_ms(FIRST, FIRST)[0] + 77}
    quarantine.portal.add_call(mended)
    quarantine.export.run(FIRST, FIRST, force=True)
    reasons = {group["reason"] for group in quarantine.command("list", "--json").json["rejects"]}
    assert reasons == {"missing_id", "unusable_id"}
    assert mended["id"] in quarantine.export.warehouse(CALLS)["call_id"].to_pylist()


def test_retry_makes_calls_of_what_a_new_version_understands(
    quarantine: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = quarantine.export.warehouse(CALLS)
    done = quarantine.command("retry", "--json")
    assert (done.json["rejected_rows_before"], done.json["rejected_rows"]) == (3, 3)
    assert quarantine.export.warehouse(CALLS).equals(before)

    requests = sum(quarantine.portal.counts.values())
    understood, soon = transforms.fields.whole_number, range_ms(FIRST, FIRST)[0] + 77
    monkeypatch.setattr("transforms.fields.whole_number", lambda value: soon if value == "soon" else understood(value))
    done = quarantine.command("retry", "--json")

    assert (done.json["rejected_rows_before"], done.json["rejected_rows"]) == (3, 2)
    assert sum(quarantine.portal.counts.values()) == requests
    after = quarantine.export.warehouse(CALLS)
    assert set(after["call_id"].to_pylist()) - set(before["call_id"].to_pylist()) == {"call-vn-1-SOON000000-1"}
    assert quarantine.export.lake(CALLS).equals(after)
    assert quarantine.export.warehouse(REJECTED_ROWS).num_rows == 2
    old = after.filter([call_id != "call-vn-1-SOON000000-1" for call_id in after["call_id"].to_pylist()])
    assert old.equals(before)
