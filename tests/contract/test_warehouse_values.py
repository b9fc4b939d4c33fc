"""What is staged is what SQL reads back, value for value, on every database."""

from __future__ import annotations

import gc
from datetime import UTC, date, datetime

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.content_hash import content_hash
from sinks.merge import StagedWindow
from sinks.staged_tables import STAGED_COLUMNS
from sinks.warehouse import Warehouse
from sinks.window_rows import WindowCounts
from tests.contract.windows import (
    AWKWARD,
    END,
    LATER,
    MILLISECOND,
    NOW,
    START,
    Row,
    batch,
    call,
    participant,
    publish,
    read,
    reject,
)
from transforms.errors import DataError
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, REJECTED_ROWS


def test_every_awkward_value_is_read_back_as_it_was(warehouse: Warehouse) -> None:
    calls = [
        call(f"text-{number}", contact_name=text, extra=text, portal=None, is_recorded=bool(number % 2))
        for number, text in enumerate(AWKWARD)
    ]
    calls += [
        call("numbers", project_id=2**63 - 1, direction_code=-(2**63), talk_seconds=2**31 - 1, hold_seconds=-(2**31)),
        call("instants", START + MILLISECOND, ended_at=datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)),
        call("dates", call_date=date(1970, 1, 1), answered_at=datetime(1970, 1, 1, 0, 0, 0, 1000, tzinfo=UTC)),
        call("last-date", call_date=date(9999, 12, 31), enqueued_at=END - MILLISECOND),
        call("é" * 512, customer_number_e164="+84900000001"),
        *(call(call_id) for call_id in ("a", "A", "a ", "á", "ａ", "ß", "ss", "\\N", "tab\tid")),
    ]
    participants = [participant("a", position, text) for position, text in enumerate(AWKWARD)]
    rejects = [reject(f"{number:032x}", payload=text) for number, text in enumerate(AWKWARD)]

    changes, counts = publish(warehouse, calls, participants, rejects)

    assert changes.inserted == len(calls)
    assert changes.rejects_added == len(rejects)
    bookkeeping = {"window_start": START, "first_seen_at": NOW, "updated_at": NOW, "deleted_at": None}
    assert read(warehouse, CALLS) == sorted((row | bookkeeping for row in calls), key=lambda row: row["call_id"])
    assert read(warehouse, CALL_PARTICIPANTS) == participants
    assert read(warehouse, REJECTED_ROWS) == [row | {"first_seen_at": NOW} for row in rejects]
    assert counts == WindowCounts(len(calls), content_hash(row["row_hash"] for row in calls))
    assert publish(warehouse, calls, participants, rejects, now=LATER)[0].unchanged == len(calls)


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
EPOCH, LAST_DAY = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
INSTANTS = st.integers(0, (LAST_DAY - EPOCH) // MILLISECOND).map(lambda count: EPOCH + count * MILLISECOND)
CALL_ROWS = st.lists(
    st.builds(
        call,
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12),
        INSTANTS,
        agent_name=TEXTS,
        extra=TEXTS,
        customer_number=TEXTS,
        ended_at=st.none() | INSTANTS,
        call_date=st.dates(date(1970, 1, 1)),
        project_id=st.none() | st.integers(-(2**63), 2**63 - 1),
        talk_seconds=st.none() | st.integers(-(2**31), 2**31 - 1),
        has_voicemail=st.none() | st.booleans(),
    ),
    max_size=8,
    unique_by=lambda row: row["call_id"],
)


@settings(max_examples=6, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=CALL_ROWS, second=CALL_ROWS)
def test_two_versions_of_any_window_leave_the_second_one(
    warehouse: Warehouse, first: list[Row], second: list[Row]
) -> None:
    window = (EPOCH, LAST_DAY + MILLISECOND)
    publish(warehouse, first, window=window)
    changes, counts = publish(warehouse, second, window=window, now=LATER)
    live = [row for row in read(warehouse, CALLS) if row["deleted_at"] is None]
    names = STAGED_COLUMNS["calls"]
    assert [{name: row[name] for name in names} for row in live] == sorted(second, key=lambda row: row["call_id"])
    assert counts == WindowCounts(len(second), content_hash(row["row_hash"] for row in second))
    assert changes.inserted + changes.updated + changes.restored + changes.unchanged == len(second)
    with warehouse.transaction() as connection:
        for table in (CALLS, CALL_VERSIONS):
            connection.execute(sa.delete(warehouse.tables[table.name]))


@pytest.mark.parametrize(
    "rows",
    [[call("secret-id"), call("secret-id", agent_name="An")], [call("secret-id") | {"status": None}]],
    ids=["a key twice", "a null"],
)
def test_a_row_that_cannot_be_is_refused_without_its_values(warehouse: Warehouse, rows: list[Row]) -> None:
    with pytest.raises(DataError) as caught:
        publish(warehouse, rows)
    assert "secret-id" not in str(caught.value)
    assert read(warehouse, CALLS) == []
    assert publish(warehouse, [call("fine")])[0].inserted == 1


def test_a_batch_of_other_columns_is_refused(warehouse: Warehouse) -> None:
    with (
        pytest.raises(DataError, match="table calls"),
        warehouse.transaction() as connection,
        StagedWindow(warehouse, connection) as staged,
    ):
        staged.add(CALLS, pa.table({"call_id": ["x"]}))


def test_a_text_too_long_for_its_column_is_never_cut(warehouse: Warehouse) -> None:
    row = call("x" * 600)
    if warehouse.is_embedded:
        # DuckDB and SQLite heed no length.
        publish(warehouse, [row])
        assert read(warehouse, CALLS)[0]["call_id"] == "x" * 600
    else:
        with pytest.raises(DataError) as caught:
            publish(warehouse, [row])
        assert "xxx" not in str(caught.value)
        assert read(warehouse, CALLS) == []


def test_a_batch_is_let_go_when_it_is_staged_and_not_at_the_end(warehouse: Warehouse) -> None:
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        staged.add(CALLS, batch(CALLS, [call("before")]))
        gc.collect()
        allocated = pa.total_allocated_bytes()
        for number in range(3):
            staged.add(CALLS, batch(CALLS, [call(f"call {number}", contact_name=str(number) * 1000)]))
            gc.collect()
            assert pa.total_allocated_bytes() == allocated
