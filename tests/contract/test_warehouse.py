"""One suite for all warehouses: what a window does to the tables, on every database."""

from __future__ import annotations

import threading
from datetime import timedelta

import pyarrow as pa
import pytest

from sinks.content_hash import content_hash
from sinks.merge import StagedWindow
from sinks.staged_tables import TIMES_COLUMNS
from sinks.warehouse import Warehouse
from sinks.window_changes import Changes
from sinks.window_rows import WindowCounts
from tests.contract.windows import (
    END,
    LATER,
    MILLISECOND,
    NOTHING,
    NOW,
    START,
    batch,
    call,
    participant,
    publish,
    read,
    reject,
    snapshot,
)
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, REJECTED_ROWS


def test_doing_a_window_again_changes_nothing(warehouse: Warehouse) -> None:
    rows = (
        [call("one"), call("two", agent_name="An")],
        [participant("two", 0), participant("two", 1, None)],
        [reject("r1"), reject("r2", payload="[1]")],
    )
    publish(warehouse, *rows)
    before = snapshot(warehouse)
    changes, counts = publish(warehouse, *rows, now=LATER)
    assert changes == Changes(**(vars(NOTHING) | {"unchanged": 2}))
    assert counts.calls == 2
    assert snapshot(warehouse) == before


def test_a_changed_call_keeps_its_past(warehouse: Warehouse) -> None:
    old, new = call("one", agent_name="An"), call("one", START + MILLISECOND, agent_name="Bình")
    other = call("two")
    publish(warehouse, [old, other], [participant("one", 0), participant("one", 1), participant("two", 0)])
    changes, _ = publish(warehouse, [new, other], [participant("one", 0, "user_9"), participant("two", 0)], now=LATER)
    assert (changes.updated, changes.unchanged, changes.left) == (1, 1, ())
    past = old | {"window_start": START, "first_seen_at": NOW, "updated_at": NOW, "deleted_at": None}
    first, second = read(warehouse, CALLS)
    assert first == past | new | {"updated_at": LATER}
    assert second["updated_at"] == NOW
    assert read(warehouse, CALL_VERSIONS) == [past | {"superseded_at": LATER}]
    assert read(warehouse, CALL_PARTICIPANTS) == [participant("one", 0, "user_9"), participant("two", 0)]


def test_a_value_that_becomes_null_is_null(warehouse: Warehouse) -> None:
    publish(warehouse, [call("one", agent_name="An", is_recorded=True, talk_seconds=3, ended_at=END)])
    publish(warehouse, [call("one")], now=LATER)
    (row,) = read(warehouse, CALLS)
    assert [row[name] for name in ("agent_name", "is_recorded", "talk_seconds", "ended_at")] == [None] * 4


def test_a_call_vanishes_and_comes_back(warehouse: Warehouse) -> None:
    gone, stays = call("gone"), call("stays")
    publish(warehouse, [gone, stays], [participant("gone", 0)])

    changes, counts = publish(warehouse, [stays], now=LATER)
    assert (changes.vanished, changes.unchanged, counts.calls) == (1, 1, 1)
    deleted = read(warehouse, CALLS)[0]
    past = gone | {"window_start": START, "first_seen_at": NOW, "updated_at": NOW, "deleted_at": None}
    assert deleted == past | {"updated_at": LATER, "deleted_at": LATER}
    assert read(warehouse, CALL_VERSIONS) == [past | {"superseded_at": LATER}]
    assert read(warehouse, CALL_PARTICIPANTS) == [participant("gone", 0)]

    before = snapshot(warehouse)
    assert publish(warehouse, [stays], now=LATER + MILLISECOND)[0].vanished == 0
    assert snapshot(warehouse) == before

    back = LATER + timedelta(days=1)
    changes, counts = publish(warehouse, [gone, stays], [participant("gone", 0, "user_2")], now=back)
    assert (changes.restored, changes.inserted, counts.calls) == (1, 0, 2)
    assert read(warehouse, CALLS)[0] == past | {"updated_at": back}
    assert [row["superseded_at"] for row in read(warehouse, CALL_VERSIONS)] == [LATER, back]
    assert read(warehouse, CALL_PARTICIPANTS) == [participant("gone", 0, "user_2")]


def test_a_call_moves_to_another_window(warehouse: Warehouse) -> None:
    next_window = (END, END + timedelta(days=1))
    publish(warehouse, [call("moves", START + MILLISECOND), call("stays")])
    changes, counts = publish(warehouse, [call("moves", END)], now=LATER, window=next_window)
    assert (changes.updated, changes.left, counts.calls) == (1, (START + MILLISECOND,), 1)
    moved = read(warehouse, CALLS)[0]
    assert (moved["window_start"], moved["started_at"], moved["first_seen_at"]) == (END, END, NOW)
    changes, counts = publish(warehouse, [call("stays")], now=LATER + MILLISECOND)
    assert (changes.vanished, counts.calls) == (0, 1)


def test_a_window_is_half_open_to_the_millisecond(warehouse: Warehouse) -> None:
    times = {"before": START - MILLISECOND, "first": START, "last": END - MILLISECOND, "after": END}
    day = timedelta(days=1)
    publish(warehouse, [call("before", times["before"])], window=(START - day, START))
    publish(warehouse, [call("after", times["after"])], window=(END, END + day))
    publish(warehouse, [call("first", times["first"]), call("last", times["last"])])
    changes, counts = publish(warehouse, now=LATER)
    assert (changes.vanished, counts) == (2, WindowCounts(0, content_hash([])))
    assert {row["call_id"] for row in read(warehouse, CALLS) if row["deleted_at"]} == {"first", "last"}


def test_rejected_rows_become_those_of_the_last_read(warehouse: Warehouse) -> None:
    next_window = (END, END + timedelta(days=1))
    publish(warehouse, rejects=[reject("same"), reject("gone")])
    publish(warehouse, rejects=[reject("same", END)], window=next_window)
    changes, _ = publish(warehouse, rejects=[reject("same"), reject("new")], now=LATER)
    assert (changes.rejects_added, changes.rejects_removed) == (1, 1)
    found = [(row["window_start"], row["reject_id"], row["first_seen_at"]) for row in read(warehouse, REJECTED_ROWS)]
    assert found == [(START, "new", LATER), (START, "same", NOW), (END, "same", NOW)]
    # The same day read in smaller windows: the row stands under the window that serves it now.
    publish(warehouse, window=(START, START + timedelta(hours=1)), now=LATER)
    assert {row["window_start"] for row in read(warehouse, REJECTED_ROWS)} == {END}


def test_times_are_those_of_the_live_calls_between_two_starts(warehouse: Warehouse) -> None:
    rows = [call(name, START + number * MILLISECOND) for number, name in enumerate(("early", "kept", "gone", "late"))]
    publish(warehouse, rows)
    changed = call("kept", START + MILLISECOND, agent_name="An")
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        staged.add(CALLS, batch(CALLS, [rows[0], changed, rows[3], call("new", START + 2 * MILLISECOND)]))
        staged.compare(START, END)
        staged.replace(LATER)
        times = staged.times(START + MILLISECOND, START + 2 * MILLISECOND)
        nothing = staged.times(END, END)
    assert times.schema.equals(pa.schema([CALLS.arrow_schema.field(name) for name in TIMES_COLUMNS]))
    assert sorted(times.to_pylist(), key=lambda row: row["call_id"]) == [
        {"call_id": "kept", "window_start": START, "first_seen_at": NOW, "updated_at": LATER},
        {"call_id": "new", "window_start": START, "first_seen_at": LATER, "updated_at": LATER},
    ]
    assert nothing.schema.equals(times.schema)
    assert nothing.num_rows == 0


def test_many_batches_are_one_window(warehouse: Warehouse) -> None:
    rows = [call(f"call-{number:05}", START + number * MILLISECOND) for number in range(12_000)]
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        for first in range(0, len(rows), 5_000):
            staged.add(CALLS, batch(CALLS, rows[first : first + 5_000]))
        staged.compare(START, END)
        assert staged.replace(NOW).inserted == len(rows)
        expected = WindowCounts(len(rows), content_hash(row["row_hash"] for row in rows))
        assert staged.counts(START, END) == expected
    assert [row["call_id"] for row in read(warehouse, CALLS)] == [row["call_id"] for row in rows]


def test_a_rolled_back_window_leaves_nothing(warehouse: Warehouse) -> None:
    publish(warehouse, [call("one")], [participant("one", 0)], [reject("r")])
    before = snapshot(warehouse)

    def fail_after_the_merge() -> None:
        with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
            staged.add(CALLS, batch(CALLS, [call("one", agent_name="An"), call("two")]))
            staged.compare(START, END)
            assert staged.replace(LATER).inserted == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_after_the_merge()
    assert snapshot(warehouse) == before
    assert publish(warehouse, [call("one")], [participant("one", 0)], [reject("r")], now=LATER)[0].unchanged == 1


def test_two_windows_in_one_transaction(warehouse: Warehouse) -> None:
    with warehouse.transaction() as connection:
        for number in range(2):
            with StagedWindow(warehouse, connection) as staged:
                start = START + number * timedelta(days=1)
                staged.add(CALLS, batch(CALLS, [call(f"call-{number}", start)]))
                staged.compare(start, start + timedelta(days=1))
                assert staged.replace(NOW).inserted == 1
    assert len(read(warehouse, CALLS)) == 2


def test_two_threads_publish_different_windows(warehouse: Warehouse) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(2)

    def work(first_day: int) -> None:
        try:
            ready.wait()
            for day in range(first_day, first_day + 3):
                start = START + day * timedelta(days=1)
                rows = [call(f"{day}-{number}", start + number * MILLISECOND) for number in range(200)]
                publish(warehouse, rows, window=(start, start + timedelta(days=1)))
                publish(warehouse, rows[1:], window=(start, start + timedelta(days=1)), now=LATER)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first_day,)) for first_day in (0, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    calls = read(warehouse, CALLS)
    assert len(calls) == 1_200
    assert sum(row["deleted_at"] is not None for row in calls) == 6
