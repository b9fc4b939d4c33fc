"""What a warehouse would lose by a window is found before anything is written, on every database."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from sinks.merge import StagedWindow
from sinks.warehouse import Warehouse
from sinks.window_changes import Changes, Losses
from sinks.window_rows import day_counts, ids_set_aside, live_rows
from tests.contract.windows import (
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
    snapshot,
)
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS

CODES = {"direction_code": 1, "status_code": 1}


def calls(*names: str, **values: object) -> list[Row]:
    return [call(name, START + number * MILLISECOND, **{**CODES, **values}) for number, name in enumerate(names)]


def losses(warehouse: Warehouse, rows: Iterable[Row], rejects: Iterable[Row] = ()) -> Losses:
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        staged.add(CALLS, batch(CALLS, rows))
        staged.add(REJECTED_ROWS, batch(REJECTED_ROWS, rejects))
        return staged.compare(START, END)


def without_believing_what_is_gone(warehouse: Warehouse, rows: Iterable[Row], rejects: Iterable[Row] = ()) -> Changes:
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        staged.add(CALLS, batch(CALLS, rows))
        staged.add(REJECTED_ROWS, batch(REJECTED_ROWS, rejects))
        staged.compare(START, END)
        return staged.replace(LATER, believes_gone=False)


def test_a_call_that_was_not_staged_would_vanish_unless_a_rejected_row_has_its_id(warehouse: Warehouse) -> None:
    publish(warehouse, calls("kept", "gone", "unreadable"))
    before = snapshot(warehouse)
    found = losses(
        warehouse,
        calls("kept"),
        [reject("a") | {"call_id": "unreadable"}, reject("b") | {"call_id": None}, reject("c") | {"call_id": "kept"}],
    )
    assert found == Losses(live=3, vanishing=1, unreadable=1, rows_without_id=1, emptied={})
    assert snapshot(warehouse) == before


def test_a_value_that_would_become_null_or_unknown_is_counted_by_its_column(warehouse: Warehouse) -> None:
    publish(warehouse, [*calls("a", "b"), call("never had one", START + 9 * MILLISECOND)])
    found = losses(
        warehouse,
        [
            *calls("a", "b", status="unknown", status_code=None),
            call("never had one", START + 9 * MILLISECOND, agent_id="x"),
        ],
    )
    assert found == Losses(3, 0, 0, 0, {"status": 2, "status_code": 2})


def test_a_doubtful_window_adds_and_updates_and_takes_nothing_away(warehouse: Warehouse) -> None:
    publish(warehouse, calls("a", "b", "c"), [participant("c", 0)], [reject("old")])
    changed = [call("a", START, **CODES, agent_name="An"), call("new", START + 5 * MILLISECOND, **CODES)]
    changes = without_believing_what_is_gone(warehouse, changed, [reject("new")])
    assert replace(changes, unchanged=0) == Changes(1, 1, 0, 0, 0, 1, 0)
    assert [(row["call_id"], row["deleted_at"]) for row in read(warehouse, CALLS)] == [
        (name, None) for name in ("a", "b", "c", "new")
    ]
    assert [row["reject_id"] for row in read(warehouse, REJECTED_ROWS)] == ["new", "old"]
    with warehouse.reading() as connection:
        live = {
            table: [row for rows in live_rows(warehouse, connection, table, START, END) for row in rows.to_pylist()]
            for table in (CALLS, CALL_PARTICIPANTS)
        }
    assert [row["call_id"] for row in live[CALLS]] == ["a", "b", "c", "new"]
    assert live[CALLS] == sorted(read(warehouse, CALLS), key=lambda row: row["started_at"])
    assert live[CALL_PARTICIPANTS] == read(warehouse, CALL_PARTICIPANTS)


def test_an_id_in_two_windows_is_where_it_starts_later(warehouse: Warehouse) -> None:
    later = call("x", END + timedelta(hours=1), **CODES)
    publish(warehouse, [later], window=(END, END + timedelta(days=1)))
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        staged.add(CALLS, batch(CALLS, [call("x", START, **CODES), *calls("own")]))
        assert staged.ids_that_start_later(END) == ["x"]
        staged.clear()
        staged.add(CALLS, batch(CALLS, calls("own")))
        staged.add(REJECTED_ROWS, batch(REJECTED_ROWS, [reject("r") | {"reason": "duplicate_id", "call_id": "x"}]))
        staged.compare(START, END)
        assert staged.replace(NOW).to_confirm == (END + timedelta(hours=1),)
    assert ids_set_aside(warehouse, START, END) == ["x"]
    assert ids_set_aside(warehouse, END, END + timedelta(days=1)) == []
    again, _ = publish(
        warehouse, calls("own"), rejects=[reject("r") | {"reason": "duplicate_id", "call_id": "x"}], now=LATER
    )
    assert (again.to_confirm, again.calls_changed) == ((), 0)
    # Gone from where it was, it is looked for where its row was set aside.
    gone, _ = publish(warehouse, window=(END, END + timedelta(days=1)), now=LATER)
    assert (gone.vanished, gone.left) == (1, (START,))


def test_a_call_that_starts_later_now_has_left_its_window(warehouse: Warehouse) -> None:
    publish(warehouse, calls("x"))
    moved, _ = publish(
        warehouse, [call("x", END + timedelta(hours=1), **CODES)], window=(END, END + timedelta(days=1)), now=LATER
    )
    assert (moved.updated, moved.left) == (1, (START,))


def test_the_calls_of_a_day_are_counted_with_those_gone_since(warehouse: Warehouse) -> None:
    publish(warehouse, calls("a", "b", "c"))
    publish(warehouse, calls("a"), now=LATER)
    with warehouse.reading() as connection:
        day = START.date()
        assert day_counts(warehouse, connection, day, gone_since=LATER) == (1, 2)
        assert day_counts(warehouse, connection, day, gone_since=LATER + MILLISECOND) == (1, 0)
        assert day_counts(warehouse, connection, day + timedelta(days=1), gone_since=NOW) == (0, 0)
