"""The spool gives back what was read, sorted, each call once in the row that came last, and leaves nothing."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sinks.spool import BATCH_ROWS, Spool
from transforms.calls import CallTables, tables_of
from transforms.json_text import JsonValue
from transforms.rejects import can_be_call
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

START = datetime(2026, 1, 4, 17, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


def normalise_day(rows: list[JsonValue], occurrences: Counter[str], superseded: Collection[int]) -> CallTables:
    return tables_of(
        rows,
        window_start=START,
        window_end=START + timedelta(days=1),
        timezone="Asia/Ho_Chi_Minh",
        region="VN",
        reject_occurrences=occurrences,
        superseded=superseded,
    )


def new_spool() -> Spool:
    return Spool(normalise_day, lambda row: can_be_call(row, START, START + timedelta(days=1)))


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"call-{number}", "start_time": START_MS + number, "direction": 1, "status": 1, **fields}


def read(spool: Spool, table: Table, column: str) -> list[Any]:
    return [value for batch in spool.batches(table) for value in batch[column].to_pylist()]


@pytest.fixture
def spool() -> Any:
    with new_spool() as spool:
        yield spool


def test_rows_come_back_sorted_and_in_bounded_batches(spool: Spool) -> None:
    numbers = list(range(2 * BATCH_ROWS + 7))
    random.Random(1).shuffle(numbers)
    for first in range(0, len(numbers), 100):
        spool.add([row(number) for number in numbers[first : first + 100]])
    spool.seal()
    assert spool.calls == len(numbers)
    assert read(spool, CALLS, "call_id") == [f"call-{number}" for number in sorted(numbers)]
    assert max(batch.num_rows for batch in spool.batches(CALLS)) <= BATCH_ROWS


@pytest.mark.parametrize("apart", [0, 1, BATCH_ROWS + 1])
def test_of_a_call_that_comes_twice_the_later_counts_with_its_participants(spool: Spool, apart: int) -> None:
    spool.add([row(0, contactname="old", participants="user1;user2;user3;")])
    spool.add([row(number) for number in range(1, apart + 1)])
    spool.add([row(0, contactname="new", participants="user9;")])
    spool.seal()
    assert spool.calls == apart + 1
    assert read(spool, CALLS, "contact_name")[0] == "new"
    assert read(spool, CALL_PARTICIPANTS, "participant") == ["user9"]
    assert spool.rows == spool.calls + spool.rejected == apart + 2
    assert read(spool, REJECTED_ROWS, "reason") == ["duplicate_id"]
    assert json.loads(read(spool, REJECTED_ROWS, "payload")[0])["contactname"] == "old"


@pytest.mark.parametrize("equal", [True, False])
def test_three_rows_of_one_id_are_one_call_and_two_rejects(spool: Spool, equal: bool) -> None:
    names = ["same"] * 3 if equal else ["first", "second", "last"]
    spool.add([row(0, contactname=name) for name in names])
    spool.seal()
    assert (spool.calls, read(spool, CALLS, "contact_name")) == (1, names[-1:])
    assert sorted(json.loads(p)["contactname"] for p in read(spool, REJECTED_ROWS, "payload")) == sorted(names[:2])
    assert len(set(read(spool, REJECTED_ROWS, "reject_id"))) == 2


def test_a_row_that_cannot_be_a_call_supersedes_none(spool: Spool) -> None:
    spool.add([row(0, contactname="call"), row(0, contactname="broken", start_time="soon")])
    spool.seal()
    assert (spool.calls, read(spool, CALLS, "contact_name")) == (1, ["call"])
    assert read(spool, REJECTED_ROWS, "reason") == ["unusable_start_time"]


def test_ids_that_differ_in_white_space_are_two_calls_and_a_number_is_its_digits(spool: Spool) -> None:
    spool.add([row(0, id="5 "), row(1, id="5"), row(2, id=5)])
    spool.seal()
    assert read(spool, CALLS, "call_id") == ["5 ", "5"]
    assert read(spool, CALLS, "started_at")[1] == START + timedelta(milliseconds=2)
    assert spool.rejected == 1


def test_rows_of_an_id_that_another_window_has_later_are_set_aside(spool: Spool) -> None:
    spool.add([row(number % 5) for number in range(BATCH_ROWS + 3)])
    spool.seal()
    assert (spool.calls, spool.rejected) == (5, BATCH_ROWS - 2)
    spool.set_aside(["call-3"])
    assert (spool.calls, spool.rejected) == (4, BATCH_ROWS - 1)
    assert "call-3" not in read(spool, CALLS, "call_id")
    assert spool.usable["id"] == spool.rows


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), max_size=40), st.data())
def test_of_any_rows_each_id_is_its_last_row_and_every_row_is_somewhere(ids: list[int], data: st.DataObject) -> None:
    rows: list[JsonValue] = [
        row(number, id=f"id-{name}", company_id=str(n))
        for n, (number, name) in enumerate(zip(data.draw(st.permutations(range(len(ids)))), ids, strict=True))
    ]
    with new_spool() as spool:
        spool.add(rows)
        spool.seal()
        last = {f"id-{name}": str(n) for n, name in enumerate(ids)}
        found = zip(read(spool, CALLS, "call_id"), read(spool, CALLS, "company_id"), strict=True)
        assert dict(found) == last
        assert spool.calls == len(last)
        assert spool.rejected == len(rows) - len(last)
        starts = read(spool, CALLS, "started_at")
        assert starts == sorted(starts)


def test_equal_rejects_are_counted_each_however_the_batches_fall(spool: Spool) -> None:
    reject: JsonValue = {"start_time": START_MS}
    spool.add([reject, *[row(number) for number in range(BATCH_ROWS)], reject, "no object"])
    spool.seal()
    assert (spool.calls, spool.rejected) == (BATCH_ROWS, 3)
    assert len(set(read(spool, REJECTED_ROWS, "reject_id"))) == 3


def test_an_empty_window_has_no_batches(spool: Spool) -> None:
    spool.seal()
    assert (spool.calls, spool.rejected, list(spool.batches(CALLS))) == (0, 0, [])


def test_nothing_is_left_behind_even_after_an_error() -> None:
    spool = new_spool()
    spool.add([row(0)])
    folder = spool.folder
    assert folder.exists()
    spool.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not folder.exists()
