"""The simulated portal when its calls are wrong: fields and calls that are gone or odd, with counts that agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from pipelines.simulator import Fault, OddRows, Portal, SpawnedPortal, spawn
from pipelines.simulator import faults as f
from pipelines.simulator.faults import fault_from_json
from tests.unit.portals import DAY, FIRST, HISTORY, LAST, ask, make, read_all, serving

Rows = list[dict[str, Any]]


def read(portal: Portal, version: int, **parameters: Any) -> tuple[Rows, set[int]]:
    """All rows of a window, and the counts that its pages gave."""
    rows: Rows = []
    totals = set()
    with serving(portal) as http:
        page, more = 1, {}
        while True:
            data = ask(http, version=version, **({"page": page} | more | parameters))["data"]
            totals.add(data["totalCount"])
            if not data["rows"]:
                return rows, totals
            rows += data["rows"]
            page += 1
            more = {"search_after": data["search_after"]} if version == 2 else {}


def renamed(row: dict[str, Any], name: str, to: str) -> dict[str, Any]:
    return {to if key == name else key: value for key, value in row.items()}


@pytest.mark.parametrize("version", [1, 2])
class TestFields:
    @pytest.mark.parametrize(
        ("fault", "served"),
        [
            (f.RenameField(field="id", to="call_id"), lambda row: renamed(row, "id", "call_id")),
            (f.DropField(field="status"), lambda row: {k: v for k, v in row.items() if k != "status"}),
            (f.NullField(field="start_time"), lambda row: row | {"start_time": None}),
            (
                f.FieldAs(field="start_time", form="seconds"),
                lambda row: row | {"start_time": row["start_time"] // 1000},
            ),
            (f.FieldAs(field="duration", form="text"), lambda row: row | {"duration": str(row["duration"])}),
            (f.FieldAs(field="direction", form="float"), lambda row: row | {"direction": float(row["direction"])}),
        ],
        ids=lambda value: type(value).__name__ if isinstance(value, Fault) else "",
    )
    def test_every_row_is_served_so(
        self, fault: Fault, served: Callable[[dict[str, Any]], dict[str, Any]], version: int
    ) -> None:
        portal = make(250)
        truth = portal.rows(FIRST, LAST, version)
        portal.faults[:] = [fault]
        assert read(portal, version) == ([served(row) for row in truth], {250})
        assert portal.rows(FIRST, LAST, version) == truth
        portal.faults.clear()
        assert read(portal, version) == (truth, {250})

    @pytest.mark.parametrize(
        ("form", "ending"), [("iso8601", "Z"), ("iso8601_local", "+07:00"), ("iso8601_without_offset", "")]
    )
    def test_instants_as_text_are_the_same_instants(self, form: Any, ending: str, version: int) -> None:
        portal = make(5, faults=[f.FieldAs(field="answer_time", form=form)])
        for row, was in zip(read(portal, version)[0], portal.rows(FIRST, LAST, version), strict=True):
            if not was["answer_time"]:
                assert row["answer_time"] == was["answer_time"]
                continue
            text = row["answer_time"]
            assert text.endswith(ending)
            instant = datetime.fromisoformat(text if ending else text + "Z")
            assert round(instant.timestamp() * 1000) == was["answer_time"]

    def test_a_byte_that_is_no_utf8_in_one_row_and_other_faults_beside_it(self, version: int) -> None:
        portal = make(30)
        victim = next(row for row in portal.rows(FIRST, LAST) if row["contactname"])
        portal.faults[:] = [
            f.FieldAs(field="contactname", form="invalid_utf8", call_id=victim["id"]),
            f.DropField(field="status"),
        ]
        with serving(portal) as http:
            body = http.get(HISTORY, params={"limit": 100, "version": version}).content
        assert body.count(b"\xff") == 1
        name = victim["contactname"]
        assert name[0].encode() + b"\xff" + name[1:].encode() in body
        rows = json.loads(body.decode(errors="replace"))["data"]["rows"]
        assert len(rows) == 30
        assert all("status" not in row for row in rows)

    def test_odd_rows_pass_a_fault_and_stay_odd(self, version: int) -> None:
        odd = OddRows(0.5, seed=1)
        portal, plain = make(300, odd_rows=odd, faults=[f.DropField(field="account")]), make(300, odd_rows=odd)
        rows, _ = read(portal, version)
        wanted = [{k: v for k, v in row.items() if k != "account"} for row in plain.rows(FIRST, LAST, version)]
        assert rows == wanted

    def test_a_value_in_every_row(self, version: int) -> None:
        portal = make(50, faults=[f.SetField(field="status", value={"odd": 1})])
        assert all(row["status"] == {"odd": 1} for row in read(portal, version)[0])

    def test_a_share_of_the_rows(self, version: int) -> None:
        portal = make(300, faults=[f.NullField(field="status", share=0.3, seed=2)])
        rows, _ = read(portal, version)
        hit = {row["id"] for row in rows if row["status"] is None}
        assert 60 < len(hit) < 120
        assert hit == {row["id"] for row in read(portal, version, sort_order="desc")[0] if row["status"] is None}


@pytest.mark.parametrize("version", [1, 2])
class TestCalls:
    def test_only_the_first_calls_of_a_window_are_there(self, version: int) -> None:
        portal = make(300, faults=[f.FewerRows(keep=130)])
        truth = portal.rows(FIRST, LAST, version)
        assert read(portal, version) == (truth[:130], {130})
        assert read(portal, version, sort_order="desc") == (truth[:130][::-1], {130})
        by_length = read(portal, version, sort_by="duration")[0]
        assert sorted(row["id"] for row in by_length) == sorted(row["id"] for row in truth[:130])
        for row in (truth[0], truth[-1]):
            found, _ = read(portal, version, call_id=row["id"])
            assert [each["id"] for each in found] == ([row["id"]] if row == truth[0] else [])
        portal.faults[:] = [f.FewerRows(keep=0)]
        assert read(portal, version) == ([], {0})

    def test_a_share_of_the_calls_is_the_same_in_every_window(self, version: int) -> None:
        portal = make(300, faults=[f.OnlyShare(share=0.3, seed=4)])
        rows, totals = read(portal, version)
        assert totals == {len(rows)}
        assert 60 < len(rows) < 120
        by_day = [read(portal, version, time=f"{FIRST + day * DAY}-{FIRST + (day + 1) * DAY - 1}") for day in range(3)]
        assert [row for day, _ in by_day for row in day] == rows

    def test_another_portals_calls_are_all_others(self, version: int) -> None:
        fault = f.OtherPortal(seed=1)
        portal = make(300, faults=[fault])
        rows, totals = read(portal, version)
        assert (len(rows), totals) == (300, {300})
        assert rows == fault.portal_asked(portal).rows(FIRST, LAST, version)
        assert not {row["id"] for row in rows} & {row["id"] for row in portal.rows(FIRST, LAST)}
        assert read(make(300, faults=[f.OtherPortal(seed=2, calls=7)]), version)[1] == {7}
        assert read(make(0, faults=[f.OtherPortal()]), version) == ([], {0})

    @pytest.mark.parametrize("field", ["contactname", None])
    def test_some_calls_have_a_second_row_behind_the_first(self, version: int, field: str | None) -> None:
        portal = make(300, faults=[f.DuplicateIds(share=0.3, seed=4, field=field)])
        rows, totals = read(portal, version)
        assert totals == {len(rows)}
        assert 360 < len(rows) < 420
        truth = portal.rows(FIRST, LAST, version)
        second = [row for before, row in pairwise(rows) if before["id"] == row["id"]]
        assert len(second) == len(rows) - 300
        first = [rows[0], *(row for before, row in pairwise(rows) if before["id"] != row["id"])]
        assert first == truth
        assert all((row["contactname"] == "the second row") == (field is not None) for row in second)
        assert read(portal, version, sort_order="desc")[0] == rows[::-1]


def test_faults_of_the_calls_act_beside_one_that_passes() -> None:
    portal = make(50, faults=[f.OnlyShare(share=0.5), f.Status(count=1), f.Cut(count=1), f.DropField(field="status")])
    with serving(portal) as http:
        assert http.get(HISTORY).status_code == 503
        portal.faults.pop(2)
        rows = read_all(http)
    assert 0 < len(rows) < 50
    assert all("status" not in row for row in rows)
    assert [entry.fault for entry in portal.log][:2] == ["Status+OnlyShare+DropField", "OnlyShare+DropField"]


def test_a_page_that_is_repeated_gets_the_fault_of_its_rows_once() -> None:
    portal = make(20, faults=[f.RepeatPage(after=1), f.FieldAs(field="callee", form="invalid_utf8")])
    with serving(portal) as http:
        one, again = (http.get(HISTORY, params={"version": 2}).content for _ in range(2))
    assert again == one


def test_a_portal_of_its_own_process_takes_the_same_faults() -> None:
    def statuses(portal: SpawnedPortal) -> list[Any]:
        with _client(portal) as http:
            return [row.get("status", "gone") for row in read_all(http)]

    drop = {"fault": "DropField", "field": "status"}
    with spawn(
        20, 3, start_date="2026-01-05", limits=False, faults=[drop, {"fault": "FewerRows", "keep": 4}]
    ) as portal:
        assert statuses(portal) == ["gone"] * 4
        portal.clear_faults()
        assert len(statuses(portal)) == 20
        portal.add_fault("OtherPortal", seed=3, calls=5)
        assert len(statuses(portal)) == 5


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"fault": "FieldAs", "field": "id", "form": "hours"}, "choose one of seconds"),
        ({"fault": "RenameField", "field": "id"}, "to"),
        ({"fault": "Nonsense"}, "Nonsense"),
    ],
)
def test_a_fault_that_is_none_is_refused_with_the_reason(description: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fault_from_json(description)


def _client(portal: SpawnedPortal) -> Any:
    import httpx

    from tests.unit.portals import NO_CERTIFICATES, token

    return httpx.Client(
        base_url=portal.base_url, headers={"X-STRINGEE-AUTH": token()}, timeout=30, verify=NO_CERTIFICATES
    )


def served_by(fault: Fault) -> bytes:
    with serving(make(1, faults=[fault])) as http:
        return http.get(HISTORY, params={"version": 2}).content


def test_a_row_can_hold_a_key_twice_or_a_number_that_no_double_holds() -> None:
    served = served_by(f.RepeatKey(field="contactname", earlier="Lan"))
    assert b'[{"contactname":"Lan",' in served
    assert served.count(b'"contactname":') == 2
    assert b'"duration":0.1234567890123456789,' in served_by(f.LongNumber(field="duration"))
