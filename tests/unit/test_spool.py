"""The spool gives back what was read, sorted, each call once in the version that came last, and leaves nothing."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sinks.spool import BATCH_ROWS, Spool
from transforms.calls import Normalised, normalise
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

START = datetime(2026, 1, 4, 17, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)


def normalise_day(rows: list[JsonValue], occurrences: Counter[str]) -> Normalised:
    return normalise(
        rows,
        window_start=START,
        window_end=START + timedelta(days=1),
        timezone="Asia/Ho_Chi_Minh",
        region="VN",
        reject_occurrences=occurrences,
    )


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"call-{number}", "start_time": START_MS + number, "direction": 1, "status": 1, **fields}


def read(spool: Spool, table: Table, column: str) -> list[Any]:
    return [value for batch in spool.batches(table) for value in batch[column].to_pylist()]


@pytest.fixture
def spool() -> Any:
    with Spool(normalise_day) as spool:
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
    assert spool.raw.rows == apart + 2


def test_two_versions_in_one_page_are_one_call(spool: Spool) -> None:
    spool.add([row(0, contactname="old"), row(0, contactname="new")])
    spool.seal()
    assert (spool.calls, read(spool, CALLS, "contact_name")) == (1, ["new"])


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
    spool = Spool(normalise_day)
    spool.add([row(0)])
    folder = spool.folder
    assert folder.exists()
    spool.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert not folder.exists()
