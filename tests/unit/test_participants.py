"""The participants of a call, in every shape that they come in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from tests.unit.rows import JSON_VALUES, START_MS, call, extra_of, normalised, records


def participants(value: Any, **fields: Any) -> list[dict[str, Any]]:
    return records(normalised([{"id": "c", "start_time": START_MS, "participants": value, **fields}]).participants)


def names(value: Any) -> list[str | None]:
    return [entry["participant"] for entry in participants(value)]


@pytest.mark.parametrize("value", [None, "", " ", ";", ";;", [], "[]", "null"])
def test_nobody(value: Any) -> None:
    record = call(participants=value)
    assert (participants(value), record["participant_count"], record["extra"]) == ([], 0, None)


@pytest.mark.parametrize(
    "value",
    [
        "user1;84900000001;",
        "user1; 84900000001 ;;",
        ["user1", "84900000001"],
        ["user1", 84900000001],
        '["user1", "84900000001"]',
        [{"userId": "user1", "type": "internal"}, {"number": "84900000001", "alias": None}],
        '[{"userId": "user1"}, {"number": 84900000001}]',
    ],
)
def test_every_shape_names_the_same_people(value: Any) -> None:
    entries = participants(value)
    assert [(e["position"], e["participant"], e["kind"], e["number_e164"]) for e in entries] == [
        (0, "user1", "user", None),
        (1, "84900000001", "phone", "+84900000001"),
    ]
    assert call(participants=value)["participant_count"] == 2


def test_order_repeats_and_gaps_are_kept() -> None:
    assert names("b;;a;b;") == ["b", None, "a", "b"]
    assert [entry["kind"] for entry in participants("b;;a")] == ["user", "unknown", "user"]


def test_the_parameters_of_an_address_are_no_participants() -> None:
    """``user=phone`` and ``ext=12`` were people."""
    entries = participants("sip:+84900000001@pbx.example.com;user=phone;user1;tel:+84900000002;ext=12;")
    assert [(entry["kind"], entry["number_e164"]) for entry in entries] == [
        ("phone", "+84900000001"),
        ("user", None),
        ("phone", "+84900000002"),
    ]
    assert names("user=phone;a=b") == ["user=phone", "a=b"]


@pytest.mark.parametrize("entry", [84900000001.0, {"number": 84900000001.0}, "+84\u00a0900000001", "tel:+84900000001"])
def test_a_participants_number_is_read_as_a_customers(entry: Any) -> None:
    (record,) = participants([entry])
    assert (record["kind"], record["number_e164"]) == ("phone", "+84900000001")


def test_an_agent_says_so_or_is_the_calls_agent() -> None:
    entries = participants(
        ["user1", {"id": "x", "role": "Agent"}, {"account": "user1"}, "84900000001"], account="user1"
    )
    assert [entry["kind"] for entry in entries] == ["agent", "agent", "agent", "phone"]
    assert [entry["kind"] for entry in participants([None, ""], account=None)] == ["unknown", "unknown"]
    by_number = participants("84900000001", account=84900000001)
    assert (by_number[0]["kind"], by_number[0]["number_e164"]) == ("agent", "+84900000001")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"name": "Mai", "number": "84900000001"}, "84900000001"),
        ({"name": "Mai", "number": " "}, "Mai"),
        ({"alias": "a", "id": 5}, "5"),
        ({"user_id": ["x"], "alias": "a"}, "a"),
        ({}, None),
        ({"colour": "red"}, None),
        (None, None),
        (True, None),
        (1.5, None),
        (["user1"], None),
        ("a\0b", "a\ufffdb"),
    ],
)
def test_who_an_entry_names(entry: Any, name: str | None) -> None:
    (record,) = participants([entry])
    assert record["participant"] == name
    assert record["kind"] == ("unknown" if name is None else "phone" if name.startswith("8490") else "user")
    assert json.loads(record["raw"]) == entry


def test_an_object_outside_a_list_is_one_participant() -> None:
    assert names({"number": "84900000001"}) == names('{"number": "84900000001"}') == ["84900000001"]


def test_text_that_only_looks_like_json_is_names() -> None:
    assert names("[broken;user1") == ["[broken", "user1"]
    assert names("nullify") == ["nullify"]
    assert names("[" * 5000) == ["[" * 5000]


@pytest.mark.parametrize("value", [5, 84900000001, True, False, 0, 1.5])
def test_what_is_no_list_of_participants_is_kept_as_served(value: Any) -> None:
    record = call(participants=value)
    assert (participants(value), record["participant_count"]) == ([], 0)
    assert extra_of(record) == {"participants": value}


def test_participants_stay_with_their_calls() -> None:
    served = [("a", "x;y"), ("b", None), ("c", "z"), ("a", "w")]
    rows = [{"id": call_id, "start_time": START_MS, "participants": people} for call_id, people in served]
    found = [(e["call_id"], e["position"], e["participant"]) for e in records(normalised(rows).participants)]
    assert found == [("a", 0, "x"), ("a", 1, "y"), ("c", 0, "z"), ("a", 0, "w")]


@given(JSON_VALUES)
@settings(max_examples=100, deadline=None)
def test_every_entry_of_a_list_is_one_row_with_its_raw_form(value: Any) -> None:
    entries = participants([value, "user1"])
    assert [json.loads(entry["raw"]) for entry in entries] == [value, "user1"]
    assert [entry["position"] for entry in entries] == [0, 1]
    assert {entry["kind"] for entry in entries} <= {"agent", "phone", "user", "unknown"}
    assert all((entry["participant"] is None) <= (entry["kind"] in ("unknown", "agent")) for entry in entries)
