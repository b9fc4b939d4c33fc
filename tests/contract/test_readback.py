"""What the warehouse holds is hashed again from its values: equal where it is what was written, and only there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa

from sinks.merge import STAGED_COLUMNS, StagedWindow
from sinks.readback import recomputed_hashes
from sinks.warehouse import Warehouse
from tests.contract.windows import AWKWARD, END, NOW, START
from transforms.calls import Normalised, normalise
from transforms.errors import DataError
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS


def _normalised() -> Normalised:
    start_ms = int(START.timestamp() * 1000)
    rows: list[JsonValue] = [
        {
            "id": f"call-{number}",
            "start_time": start_ms + number,
            "answer_time": start_ms + number + 1500 if number % 2 else None,
            "status": number % 5,
            "direction": number % 3,
            "contact_name": text,
            "record": bool(number % 2),
            "duration": number,
            "unknown_field": text,
            "participants": [{"participant": "user_1"}, text][: number % 3],
        }
        for number, text in enumerate(AWKWARD)
    ]
    return normalise(rows, window_start=START, window_end=END, timezone="Asia/Ho_Chi_Minh", region="VN")


def _publish(warehouse: Warehouse, connection: sa.Connection, normalised: Normalised) -> None:
    with _staged(warehouse, connection, normalised):
        pass


@contextmanager
def _staged(warehouse: Warehouse, connection: sa.Connection, normalised: Normalised) -> Iterator[StagedWindow]:
    with StagedWindow(warehouse, connection) as staged:
        for table, frame in ((CALLS, normalised.calls), (CALL_PARTICIPANTS, normalised.participants)):
            staged.add(table, pa.Table.from_pandas(frame, preserve_index=False).select(STAGED_COLUMNS[table.name]))
        staged.compare(START, END)
        staged.replace(NOW)
        yield staged


def _wrong(warehouse: Warehouse, connection: sa.Connection) -> tuple[int, int]:
    """How many calls were read back in the transaction, and how many are not what was written."""
    wanted = sa.select(warehouse.tables["calls"].c.call_id).subquery()
    pairs = list(recomputed_hashes(connection, warehouse, wanted))
    return len(pairs), sum(stored != recomputed for stored, recomputed in pairs)


def test_what_was_written_is_read_back_in_the_same_transaction(warehouse: Warehouse) -> None:
    normalised = _normalised()
    with warehouse.transaction() as connection:
        _publish(warehouse, connection, normalised)
        assert _wrong(warehouse, connection) == (len(normalised.calls), 0)
        calls = warehouse.tables["calls"]
        wanted = sa.select(calls.c.call_id, calls.c.call_hour.label("hour")).limit(3).subquery()
        assert len(list(recomputed_hashes(connection, warehouse, wanted, calls.c.call_id == "call-1"))) <= 1
        assert list(recomputed_hashes(connection, warehouse, wanted, wanted.c.hour < 0)) == []


@pytest.mark.parametrize(
    "alter",
    [
        lambda calls, _: sa.update(calls).where(calls.c.call_id == "call-1").values(contact_name="Nguyá»…n"),
        lambda calls, _: sa.update(calls).where(calls.c.call_id == "call-1").values(answered_at=START + timedelta(1)),
        lambda calls, _: sa.update(calls).where(calls.c.call_id == "call-1").values(duration_seconds=None),
        lambda _, entries: sa.delete(entries).where(entries.c.call_id == "call-1"),
        lambda _, entries: sa.update(entries).where(entries.c.call_id == "call-1").values(participant="user_2"),
    ],
)
def test_a_value_that_is_not_what_was_written_is_noticed_beside_its_hash(
    warehouse: Warehouse, alter: Callable[[sa.Table, sa.Table], sa.Executable]
) -> None:
    with warehouse.transaction() as connection:
        _publish(warehouse, connection, _normalised())
        connection.execute(alter(warehouse.tables["calls"], warehouse.tables["call_participants"]))
        assert _wrong(warehouse, connection)[1] == 1


def test_a_derived_value_that_is_not_what_was_written_is_noticed_although_no_hash_covers_it(
    warehouse: Warehouse,
) -> None:
    calls = warehouse.tables["calls"]
    with warehouse.transaction() as connection, _staged(warehouse, connection, _normalised()) as staged:
        staged.check_written()
        later = sa.update(calls).where(calls.c.call_id == "call-1").values(started_at_local=datetime(2024, 3, 1, 9))  # noqa: DTZ001
        connection.execute(later)
        with pytest.raises(DataError, match="does not hold what was written to it, in 1 calls"):
            staged.check_written()
