"""Rows to tables: the rules, the published samples, and anything that JSON can hold."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import GOLDEN, WINDOW_STARTS, expected_file, found, frames
from tests.unit.rows import (
    FIELDS,
    JSON_VALUES,
    ODD_CALLS,
    ROWS,
    START_MS,
    WINDOW_END,
    WINDOW_START,
    call,
    extra_of,
    normalised,
    records,
)
from transforms.call_ids import call_id_of
from transforms.calls import DIRECTIONS, KNOWN_FIELDS, STATUSES, normalise
from transforms.fields import instant_ms, whole_number
from transforms.hashing import row_hashes
from transforms.json_text import canonical_json, exact_json
from transforms.rejects import RejectReason, can_be_call
from transforms.schema import CALL_ID_MAX_LENGTH, CALL_PARTICIPANTS, CALLS, REJECTED_ROWS

TABLES = {"calls": CALLS, "participants": CALL_PARTICIPANTS, "rejects": REJECTED_ROWS}


@pytest.mark.parametrize("name", WINDOW_STARTS)
def test_golden_rows(name: str) -> None:
    assert found(name) == json.loads(expected_file(name).read_text()), "python -m tests.golden, if it is meant so"


@given(ROWS)
@settings(max_examples=100, deadline=None)
def test_any_json_gives_tables_of_the_declared_schema(rows: list[Any]) -> None:
    result = normalised(rows)
    assert len(result.calls) + len(result.rejects) == len(rows)
    assert list(result.calls.columns) == [*CALLS.value_columns, "row_hash"]
    assert list(result.participants.columns) == list(CALL_PARTICIPANTS.column_names)
    assert set(REJECTED_ROWS.column_names) - set(result.rejects.columns) == {"first_seen_at"}
    for name, frame in frames(result).items():
        schema = pa.schema([TABLES[name].arrow_schema.field(column) for column in frame.columns])
        assert dict(frame.dtypes) == {column: TABLES[name][column].type.pandas for column in frame.columns}
        table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
        table.validate(full=True)
        for field in schema:
            assert field.nullable or table[field.name].null_count == 0
        for record in records(frame):
            for value in record.values():
                if isinstance(value, str):
                    assert value != ""
                    assert "\0" not in value
                    value.encode()
    assert result.calls["participant_count"].sum() == len(result.participants)


@given(ODD_CALLS)
@settings(max_examples=200, deadline=None)
def test_whatever_was_served_is_in_a_column_or_in_extra(row: Any) -> None:
    for record in records(normalised([row]).calls):
        extra = extra_of(record)
        columns: dict[str, list[str]] = {}
        for column in CALLS.columns:
            if column.name in record and column.source.isidentifier():
                columns.setdefault(column.source, []).append(column.name)
        columns["answer_time"] = columns["first_answer_time"] = ["answered_at", "answer_seconds"]
        columns["enqueue_time"] = ["enqueued_at", "queue_seconds"]
        columns |= {"answer_duration": ["answer_seconds"], "queue_duration": ["queue_seconds"]}
        for field, value in row.items():
            if field in extra:
                assert extra[field] == value
                assert type(extra[field]) is type(value)
            elif value is None or (isinstance(value, str) and not value.strip()):
                continue
            elif field == "object_type":
                assert value == "call"
            elif field == "participants":
                assert isinstance(value, (str, list, dict))
            else:
                assert any(says_the_same(value, record[column]) for column in columns[field]), field


def says_the_same(served: Any, stored: Any) -> bool:
    """Whether a column's value tells what was served, by a reading of its own: as text, or as a number."""
    if stored is None or isinstance(stored, str):
        digits = str(int(served)) if isinstance(served, float) and served.is_integer() else str(served)
        return digits == stored or (stored is None and float(served) == 0) or stored in ("voice", "video")
    if isinstance(stored, bool):
        return str(served).strip().lower() in ({"true", "1", "1.0"} if stored else {"false", "0", "0.0", "-0.0", "-0"})
    number = stored.timestamp() * 1000 if isinstance(stored, datetime) else stored
    if isinstance(stored, datetime) and 10**9 <= float(served) < 10**11:
        return abs(number - float(served) * 1000) < 1
    return round(number) == (int(served) if not isinstance(served, str) else round(float(served)))


@given(ROWS, st.integers(0, 6))
@settings(max_examples=100, deadline=None)
def test_a_batch_can_be_cut_anywhere(rows: list[Any], cut: int) -> None:
    whole = normalised(rows)
    occurrences: Counter[str] = Counter()
    parts = [normalised(rows[:cut], occurrences), normalised(rows[cut:], occurrences)]
    for name, frame in frames(whole).items():
        assert [record for part in parts for record in records(getattr(part, name))] == records(frame)


@given(ROWS)
@settings(max_examples=50, deadline=None)
def test_normalise_is_pure(rows: list[Any]) -> None:
    before = copy.deepcopy(rows)
    first, second = normalised(rows), normalised(rows)
    assert rows == before
    for name, frame in frames(first).items():
        pd.testing.assert_frame_equal(frame, getattr(second, name))


@given(JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_json_text_is_exact_and_storable(value: Any) -> None:
    for text in (exact_json(value), canonical_json(value)):
        assert json.loads(text) == value
        assert "\0" not in text
        text.encode()


def test_json_text_of_what_json_cannot_say_or_python_not_recurse() -> None:
    assert (
        exact_json({"b": [float("nan"), float("inf")], "a": -float("inf")})
        == '{"b":["NaN","Infinity"],"a":"-Infinity"}'
    )
    assert canonical_json({"b": [{}, [], float("nan")], "a": "é\0"}) == r'{"a":"é\u0000","b":[{},[],"NaN"]}'
    deep = "[" * 1020 + '1,{"a":[]}' + "]" * 1020
    assert exact_json(orjson.loads(deep)) == deep
    assert extra_of_text(orjson.loads(deep)) == f'{{"x":{deep}}}'


def extra_of_text(value: Any) -> str:
    return str(call(x=value)["extra"])


def test_known_fields_are_the_documented_ones() -> None:
    assert set(FIELDS) == KNOWN_FIELDS


def test_the_schema_names_every_known_field_as_a_source() -> None:
    prose = " ".join(column.source for column in CALLS.columns).replace(",", " ").split()
    assert KNOWN_FIELDS - set(prose) == {"object_type"}
    assert {word for word in prose if "_" in word} <= KNOWN_FIELDS


# Rejects -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason", "field", "call_id"),
    [
        (None, RejectReason.NOT_AN_OBJECT, None, None),
        ("text", RejectReason.NOT_AN_OBJECT, None, None),
        ({}, RejectReason.MISSING_ID, "id", None),
        ({"id": ""}, RejectReason.MISSING_ID, "id", None),
        ({"id": 1.5}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": True}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": ["a"]}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": "a\0"}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": "a\ud800"}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": "a" * (CALL_ID_MAX_LENGTH + 1)}, RejectReason.UNUSABLE_ID, "id", None),
        ({"id": "a"}, RejectReason.MISSING_START_TIME, "start_time", "a"),
        ({"id": 5, "start_time": "0"}, RejectReason.MISSING_START_TIME, "start_time", "5"),
        ({"id": "a", "start_time": "soon"}, RejectReason.UNUSABLE_START_TIME, "start_time", "a"),
        ({"id": "a", "start_time": -5}, RejectReason.UNUSABLE_START_TIME, "start_time", "a"),
        ({"id": "a", "start_time": 1_751_302_800_000}, RejectReason.START_TIME_OUTSIDE_WINDOW, "start_time", "a"),
        ({"id": "a", "start_time": 1_751_216_399_999}, RejectReason.START_TIME_OUTSIDE_WINDOW, "start_time", "a"),
    ],
)
def test_reject_reasons(row: Any, reason: RejectReason, field: str | None, call_id: str | None) -> None:
    result = normalised([row])
    (record,) = records(result.rejects)
    assert (record["reason"], record["field"], record["call_id"]) == (reason, field, call_id)
    assert record["call_date"] == date(2025, 6, 30)
    assert json.loads(record["payload"]) == row
    assert len(result.calls) == 0


def test_the_windows_first_and_last_millisecond_and_the_longest_id_are_in() -> None:
    rows = [{"id": "a" * CALL_ID_MAX_LENGTH, "start_time": ms} for ms in (1_751_216_400_000, 1_751_302_799_999)]
    assert len(normalised(rows).calls) == 2


def test_equal_rejects_stay_apart_and_keep_their_ids() -> None:
    rows = [{"x": 1, "y": 2}, {"y": 2, "x": 1}, {"x": 2}, {"x": 1, "y": 2}]
    ids = [record["reject_id"] for record in records(normalised(rows).rejects)]
    assert len(set(ids)) == 4
    assert [record["reject_id"] for record in records(normalised([rows[1], rows[2]]).rejects)] == [ids[0], ids[2]]
    assert [record["payload"] for record in records(normalised(rows).rejects)][:2] == ['{"x":1,"y":2}', '{"y":2,"x":1}']


# Row hashes ----------------------------------------------------------------------------------------------------------


def test_equal_rows_have_equal_hashes_whatever_form_their_values_came_in() -> None:
    plain = call(duration=60, recorded=True, status=1, contactname=None, unknown=None)
    assert call(duration="60.0", recorded="1", status="1", contactname="")["row_hash"] == plain["row_hash"]


@pytest.mark.parametrize(
    "change",
    [
        {"duration": 61},
        {"contactname": "Mai"},
        {"contactname": None, "companyname": "Lan"},
        {"recorded": 1},
        {"new_field": 1},
        {"participants": "a;c"},
        {"participants": "b;a"},
        {"participants": [{"id": "a"}, "b"]},
        {"start_time": START_MS + 1},
    ],
)
def test_any_change_changes_the_hash(change: dict[str, Any]) -> None:
    row = {"duration": 60, "contactname": "Lan", "participants": "a;b"}
    assert call(**row)["row_hash"] != call(**(row | change))["row_hash"]


def test_the_hash_of_a_row_stays_what_it_was() -> None:
    """A new value here makes every row of every warehouse look changed: only on purpose."""
    golden = json.loads((GOLDEN / "version_2.expected.json").read_text())
    row = json.loads((GOLDEN / "version_2.rows.json").read_text())
    filler = [{"id": f"other {i}", "start_time": START_MS, "participants": "a;b"} for i in range(3)]
    calls = records(normalised([*filler, *row]).calls)
    assert calls[-1]["row_hash"] == golden["calls"][0]["row_hash"] == "634eec1c363a391f74a2e57b0c83afa0"


def test_a_column_that_is_added_later_changes_the_hash_only_where_it_has_a_value() -> None:
    columns = [pa.array(["a", "b", "c"]), pa.array([0, 1, 0])]
    entries, offsets = [pa.array(["user_1"])], pa.array([0, 0, 1, 1], pa.int32())
    before = row_hashes(columns, entries, offsets).to_pylist()
    added = {"queue_name": pa.array(["sales", None, "sales"]), "skill": pa.array([None, None, 7])}
    after = row_hashes(columns, entries, offsets, added).to_pylist()
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
    renamed = {"skill_name": added["queue_name"], "skill": added["skill"]}
    assert row_hashes(columns, entries, offsets, renamed)[0].as_py() != after[0]
    assert row_hashes(columns, entries, offsets, dict(reversed(added.items()))).to_pylist()[:2] == after[:2]


@given(ROWS)
@settings(max_examples=60, deadline=None)
def test_what_can_be_used_is_counted_over_calls_and_rejects(rows: list[Any]) -> None:
    result = normalised(rows)
    assert result.usable["id"] == sum(call_id_of(row) is not None for row in rows)
    is_usable: dict[str, Callable[[Any], bool]] = {
        "start_time": lambda value: instant_ms(value) is not None,
        "direction": lambda value: whole_number(value) in DIRECTIONS,
        "status": lambda value: whole_number(value) in STATUSES,
    }
    for field, says in is_usable.items():
        assert result.usable[field] == sum(says(row.get(field)) for row in rows if isinstance(row, dict))
    assert [record["call_id"] for record in records(result.calls)] == [
        call_id_of(row) for row in rows if can_be_call(row, WINDOW_START, WINDOW_END)
    ]


def test_one_row_given_twice_is_counted_twice() -> None:
    """The two were taken for one: by which of the objects was admitted, and not by place."""
    row: Any = {"id": "a", "start_time": START_MS, "status": 1, "direction": 0}
    result = normalised([row, row], superseded={0})
    assert (len(result.calls), len(result.rejects)) == (1, 1)
    assert result.usable == {"id": 2, "start_time": 2, "status": 2, "direction": 2}


@pytest.mark.parametrize(
    ("value", "call_id"),
    [("5 ", "5 "), (" ", " "), (5, "5"), (2**70, str(2**70)), (5.0, None), (True, None), ("", None), (None, None)],
)
def test_an_id_is_the_exact_text_or_an_integers_digits(value: Any, call_id: str | None) -> None:
    assert call_id_of({"id": value}) == call_id
    rows = records(normalised([{"id": value, "start_time": START_MS}]).calls)
    assert [row["call_id"] for row in rows] == ([] if call_id is None else [call_id])


def test_rows_that_are_not_the_call_of_their_id_are_rejects() -> None:
    rows: list[Any] = [{"id": "a", "start_time": START_MS}, {"id": "a"}, {"id": "a", "start_time": START_MS + 1}]
    result = normalise(
        rows,
        window_start=WINDOW_START,
        window_end=WINDOW_END,
        timezone="Asia/Ho_Chi_Minh",
        region="VN",
        superseded={0, 1},
    )
    assert len(result.calls) == 1
    assert [(r["reason"], r["field"], r["call_id"]) for r in records(result.rejects)] == [
        ("duplicate_id", "id", "a"),
        ("missing_start_time", "start_time", "a"),
    ]
    assert json.loads(records(result.rejects)[0]["payload"]) == rows[0]


def test_no_rows() -> None:
    result = normalised([])
    assert [len(frame) for frame in frames(result).values()] == [0, 0, 0]
