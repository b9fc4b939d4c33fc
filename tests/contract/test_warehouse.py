"""One suite for all warehouses: what is staged and replaced is what SQL reads back, on every database."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks.certificate import content_hash
from sinks.merge import STAGED_COLUMNS, TIMES_COLUMNS, Changes, StagedWindow, WindowCounts
from sinks.views import views
from sinks.warehouse import Warehouse
from tests import databases
from transforms.errors import BusyError, DataError, StorageError
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, REJECTED_ROWS, TABLES, Table

Row = dict[str, Any]

START = datetime(2024, 2, 29, 17, tzinfo=UTC)
END = START + timedelta(days=1)
NOW = datetime(2024, 3, 2, 1, 2, 3, 456000, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)

NOTHING = Changes(
    inserted=0, updated=0, restored=0, vanished=0, unchanged=0, rejects_added=0, rejects_removed=0, moved=()
)


def call(call_id: str, started_at: datetime = START, **values: Any) -> Row:
    """A call with the columns that may not be null, ``values``, and the hash of all of it."""
    row: Row = dict.fromkeys(STAGED_COLUMNS["calls"])
    row |= {"call_id": call_id, "started_at": started_at, "call_date": started_at.date(), "call_hour": started_at.hour}
    row |= {"direction": "inbound", "status": "answered", "channel": "voice", "participant_count": 0} | values
    row["row_hash"] = hashlib.blake2b(repr(row).encode("utf-8", "replace"), digest_size=16).hexdigest()
    return row


def participant(call_id: str, position: int, name: str | None = "user_1", started_at: datetime = START) -> Row:
    return {
        "call_id": call_id,
        "position": position,
        "participant": name,
        "kind": "user",
        "number_e164": None,
        "raw": f'"{name}"',
        "started_at": started_at,
        "call_date": started_at.date(),
    }


def reject(reject_id: str, window_start: datetime = START, payload: str = "{}") -> Row:
    return {
        "window_start": window_start,
        "reject_id": reject_id,
        "reason": "missing_id",
        "field": "id",
        "call_id": None,
        "payload": payload,
        "call_date": window_start.date(),
    }


def batch(table: Table, rows: Iterable[Row]) -> pa.Table:
    names = STAGED_COLUMNS[table.name]
    schema = pa.schema([table.arrow_schema.field(name).with_nullable(True) for name in names])
    return pa.Table.from_pylist(list(rows), schema)


def publish(
    warehouse: Warehouse,
    calls: Iterable[Row] = (),
    participants: Iterable[Row] = (),
    rejects: Iterable[Row] = (),
    *,
    now: datetime = NOW,
    window: tuple[datetime, datetime] = (START, END),
) -> tuple[Changes, WindowCounts]:
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        for table, rows in ((CALLS, calls), (CALL_PARTICIPANTS, participants), (REJECTED_ROWS, rejects)):
            staged.add(table, batch(table, rows))
        return staged.replace(*window, now), staged.counts(*window)


def read(warehouse: Warehouse, table: Table) -> list[Row]:
    """All rows and columns of a table, in the order of its key."""
    columns = warehouse.tables[table.name]
    with warehouse.reading() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(columns)).mappings()]
    return sorted(rows, key=lambda row: tuple(row[name] for name in table.key))


def snapshot(warehouse: Warehouse) -> Mapping[str, list[Row]]:
    return {table.name: read(warehouse, table) for table in TABLES}


AWKWARD = [
    "",
    " ",
    "trailing  ",
    "  leading",
    "Nguyễn Thị Ánh",
    "e\u0301 is not é",
    "👩‍👩‍👧‍👦 🇻🇳",
    "back\\slash \\n \\t \\\\ \\",
    "tab\tnewline\nreturn\rboth\r\n",
    "\n\\.\n",
    "\\.",
    "\\N",
    "\\\\N",
    "NULL",
    "null",
    "'single' \"double\" `back` ''",
    '","',
    "100%s %(x)s :name $1 ?",
    "\x01\x08\x0b\x0c\x1a\x1b\x7f\x85\u2028\ufeff\uffff",
    "a" * 70_000 + "é",
    "\t\\\n" * 100_000,
]


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
    assert (changes.updated, changes.unchanged, changes.moved) == (1, 1, ())
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
    assert (changes.updated, changes.moved, counts.calls) == (1, (START + MILLISECOND,), 1)
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
        staged.replace(START, END, LATER)
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
        assert staged.replace(START, END, NOW).inserted == len(rows)
        expected = WindowCounts(len(rows), content_hash(row["row_hash"] for row in rows))
        assert staged.counts(START, END) == expected
    assert [row["call_id"] for row in read(warehouse, CALLS)] == [row["call_id"] for row in rows]


def test_a_rolled_back_window_leaves_nothing(warehouse: Warehouse) -> None:
    publish(warehouse, [call("one")], [participant("one", 0)], [reject("r")])
    before = snapshot(warehouse)

    def fail_after_the_merge() -> None:
        with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
            staged.add(CALLS, batch(CALLS, [call("one", agent_name="An"), call("two")]))
            assert staged.replace(START, END, LATER).inserted == 1
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
                assert staged.replace(start, start + timedelta(days=1), NOW).inserted == 1
    assert len(read(warehouse, CALLS)) == 2


@pytest.mark.parametrize(
    "rows",
    [
        [call("secret-id"), call("secret-id", agent_name="An")],
        [call("secret-id") | {"status": None}],
    ],
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


def test_the_clock_is_utc_and_whole_milliseconds(warehouse: Warehouse) -> None:
    with warehouse.reading() as connection:
        now = warehouse.utc_now(connection)
    assert now.utcoffset() == timedelta(0)
    assert now.microsecond % 1000 == 0
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=5)


def test_preparing_adds_a_missing_column_and_index_and_keeps_the_rows(warehouse: Warehouse) -> None:
    row = call("one", company_name="Sông Hồng")
    publish(warehouse, [row])
    with warehouse.transaction() as connection:
        if warehouse.name != "duckdb":
            index = next(i for i in warehouse.tables["calls"].indexes if i.name == "ix_calls_updated_at")
            index.drop(connection)
        for view in views(warehouse.tables):
            connection.exec_driver_sql(f"DROP VIEW {view.name}")
        connection.exec_driver_sql("ALTER TABLE calls DROP COLUMN campaign_name")
        connection.exec_driver_sql("ALTER TABLE calls ADD COLUMN somebody_elses INTEGER")
    warehouse.prepare()
    warehouse.prepare()
    assert read(warehouse, CALLS)[0] == row | {
        "window_start": START,
        "first_seen_at": NOW,
        "updated_at": NOW,
        "deleted_at": None,
    }
    with warehouse.reading() as connection:
        assert connection.exec_driver_sql("SELECT somebody_elses FROM calls").scalars().all() == [None]
        if warehouse.name != "duckdb":
            assert sa.inspect(connection).has_index("calls", "ix_calls_updated_at")
    assert publish(warehouse, [call("one", campaign_name="Tết")], now=LATER)[0].updated == 1
    assert read(warehouse, CALLS)[0]["campaign_name"] == "Tết"


def test_preparing_in_several_threads_at_once(warehouse_url: str) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(4)

    def work() -> None:
        try:
            with Warehouse(warehouse_url) as warehouse:
                ready.wait()
                warehouse.prepare()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with Warehouse(warehouse_url) as warehouse:
        assert publish(warehouse, [call("one")])[0].inserted == 1


# SQLite has no comments.
@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql", "mariadb"], indirect=True)
def test_tables_and_columns_carry_their_descriptions(warehouse: Warehouse) -> None:
    queries = {
        "duckdb": "SELECT comment FROM duckdb_columns() WHERE table_name = 'calls' AND column_name = 'started_at'"
        " UNION ALL SELECT comment FROM duckdb_tables() WHERE table_name = 'calls'",
        "postgresql": "SELECT col_description('calls'::regclass, ordinal_position) FROM information_schema.columns"
        " WHERE table_name = 'calls' AND column_name = 'started_at'"
        " UNION ALL SELECT obj_description('calls'::regclass)",
        "mysql": "SELECT column_comment FROM information_schema.columns WHERE table_schema = database()"
        " AND table_name = 'calls' AND column_name = 'started_at' UNION ALL SELECT table_comment FROM"
        " information_schema.tables WHERE table_schema = database() AND table_name = 'calls'",
    }
    with warehouse.reading() as connection:
        comments = connection.exec_driver_sql(queries[warehouse.name]).scalars().all()
    assert sorted(comments) == sorted([CALLS["started_at"].description, CALLS.description])


def test_a_schema_of_its_own(warehouse_url: str) -> None:
    if warehouse_url.startswith(("sqlite", "mysql")):
        with pytest.raises(StorageError, match="CALLHISTORY_WAREHOUSE_SCHEMA"):
            Warehouse(warehouse_url, "call_centre")
        return
    with Warehouse(warehouse_url, "call_centre") as inside, Warehouse(warehouse_url) as outside:
        for warehouse, name in ((outside, "outside"), (inside, "inside")):
            warehouse.prepare()
            warehouse.prepare()
            publish(warehouse, [call(name)], [participant(name, 0)])
        assert [row["call_id"] for row in read(inside, CALLS)] == ["inside"]
        assert [row["call_id"] for row in read(outside, CALLS)] == ["outside"]


def test_what_is_unknown_or_has_no_driver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="CALLHISTORY_WAREHOUSE_URL"):
        Warehouse("oracle://u:hidden@host/db")
    monkeypatch.setattr("sinks.dialects.find_spec", lambda _: None)
    with pytest.raises(StorageError, match=r"callhistory\[postgresql\]"):
        Warehouse("postgresql+psycopg://u:hidden@host/db")


# --- files -------------------------------------------------------------------------------------------------------


def test_a_duckdb_file_held_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=0.3) as hasty:
        hasty.prepare()
        hold = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
        holder = subprocess.Popen(
            [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(BusyError, match="duckdb database"):
                publish(hasty, [call("one")])
            with pytest.raises(BusyError):
                hasty.prepare()
            threading.Timer(0.3, holder.stdin.close).start()
            with Warehouse(f"duckdb:///{path}", busy_timeout_seconds=30) as patient:
                assert publish(patient, [call("one")])[0].inserted == 1


def test_a_duckdb_file_is_free_between_transactions(tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
        count = (
            "import sys, duckdb; print(duckdb.connect(sys.argv[1]).execute('SELECT count(*) FROM calls').fetchall())"
        )
        found = subprocess.run([sys.executable, "-c", count, str(path)], capture_output=True, text=True, check=True)
        assert found.stdout == "[(1,)]\n"


def test_a_new_duckdb_file_has_the_storage_version_of_older_releases(tmp_path: Path) -> None:
    path = tmp_path / "new" / "warehouse.duckdb"
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
    # Bytes 12 to 20 of the main header: 64 is DuckDB 0.10 to 1.1 (https://duckdb.org/docs/internals/storage).
    assert int.from_bytes(path.read_bytes()[12:20], "little") == 64


def test_a_duckdb_file_of_any_storage_version_is_used_as_it_is(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    before = path.read_bytes()[12:20]
    with Warehouse(f"duckdb:///{path}") as warehouse:
        warehouse.prepare()
        assert publish(warehouse, [call("one")])[0].inserted == 1
    assert path.read_bytes()[12:20] == before


@pytest.mark.parametrize("name", ["duckdb", "sqlite"])
def test_a_file_that_cannot_be_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with Warehouse(f"{name}:///{tmp_path}/file/warehouse.db") as warehouse, pytest.raises(StorageError, match=r"file"):
        warehouse.prepare()
    (tmp_path / "other.db").write_text("no database, but long enough to have the header of one" * 400)
    with Warehouse(f"{name}:///{tmp_path}/other.db") as warehouse, pytest.raises(StorageError, match=r"other\.db"):
        warehouse.prepare()
    with Warehouse(f"{name}:///{tmp_path}/absent.db") as warehouse, pytest.raises(StorageError, match="yet"):
        read(warehouse, CALLS)
    assert not (tmp_path / "absent.db").exists()


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    script = """
import os, sys
from sinks.views import views
from sinks.warehouse import Warehouse
from transforms.errors import StorageError
for name in ("duckdb", "sqlite"):
    # Load every module while this user may: the superuser is not stopped by any folder's mode.
    Warehouse(f"{name}:///{sys.argv[2]}/first.{name}").prepare()
if os.geteuid() == 0:
    os.setuid(65534)
for name in ("duckdb", "sqlite"):
    try:
        Warehouse(f"{name}:///{sys.argv[1]}/warehouse.{name}").prepare()
    except StorageError as error:
        print(error)
"""
    for parent in (folder, *folder.parents[:-2]):
        parent.chmod(parent.stat().st_mode | 0o055)
    found = subprocess.run([sys.executable, "-c", script, str(folder), str(tmp_path)], capture_output=True, text=True)
    assert found.stdout.count(str(folder)) == 2, found.stderr


def test_sqlite_readers_go_on_while_a_window_is_written(tmp_path: Path) -> None:
    with Warehouse(f"sqlite:///{tmp_path}/warehouse.db", busy_timeout_seconds=0.1) as warehouse:
        warehouse.prepare()
        publish(warehouse, [call("one")])
        with warehouse.transaction() as connection:
            connection.execute(sa.delete(warehouse.tables["calls"]))
            assert len(read(warehouse, CALLS)) == 1
            with pytest.raises(BusyError), warehouse.transaction():
                pass


# --- servers -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> databases.Server:
    found: databases.Server = request.getfixturevalue(f"{request.param}_server")
    return found


def _refusal(url: str) -> str:
    with Warehouse(url, busy_timeout_seconds=1) as warehouse, pytest.raises(StorageError) as caught:
        warehouse.prepare()
    assert databases.SECRET not in str(caught.value)
    assert "wrong-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_password_an_unknown_database_and_user_are_named(server: databases.Server) -> None:
    existing = server.url.database or "mysql"
    assert "callhistory" in _refusal(server.url_of(existing, server.user, "wrong-word"))
    assert "no_such_database" in _refusal(server.url_of("no_such_database"))


def test_an_unreachable_host_is_named() -> None:
    # Port 9 of the loopback: nobody listens there.
    assert "127.0.0.1" in _refusal(f"postgresql+psycopg://u:{databases.SECRET}@127.0.0.1:9/d".replace("%", "%25"))
    assert "127.0.0.1" in _refusal(f"mysql+pymysql://u:{databases.SECRET}@127.0.0.1:9/d".replace("%", "%25"))


def test_a_missing_right_is_named_without_the_password(server: databases.Server) -> None:
    url = server.new_database()
    try:
        if server.url.get_backend_name() == "postgresql":
            server.execute(f"REVOKE ALL ON DATABASE {sa.make_url(url).database} FROM PUBLIC")
        mine = server.url_of(sa.make_url(url).database or "", server.user, databases.SECRET)
        assert "callhistory" in _refusal(mine)
    finally:
        server.drop_database(url)


def test_a_connection_that_was_cut_is_worth_another_try(server: databases.Server) -> None:
    url = server.new_database()
    kill = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{}'",
    }[server.url.get_backend_name()].format(sa.make_url(url).database)

    def cut_while_open(warehouse: Warehouse) -> None:
        with warehouse.transaction() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
            engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
            with engine.connect() as other:
                for number in other.exec_driver_sql(kill).scalars().all():
                    if server.url.get_backend_name() == "mysql":
                        other.exec_driver_sql(f"KILL {number}")
            connection.execute(sa.select(warehouse.tables["calls"]))

    try:
        with Warehouse(url) as warehouse:
            warehouse.prepare()
            with pytest.raises(BusyError):
                cut_while_open(warehouse)
            assert publish(warehouse, [call("one")])[0].inserted == 1
    finally:
        server.drop_database(url)


def test_a_lock_that_lasts_is_busy(server: databases.Server) -> None:
    url = server.new_database()
    try:
        with Warehouse(url, busy_timeout_seconds=1) as warehouse:
            warehouse.prepare()
            publish(warehouse, [call("one")])
            with warehouse.transaction() as connection:
                connection.execute(sa.update(warehouse.tables["calls"]).values(agent_name="held"))
                with pytest.raises(BusyError):
                    publish(warehouse, [call("one", agent_name="An")], now=LATER)
    finally:
        server.drop_database(url)


def test_without_local_infile_rows_are_inserted(mariadb_server: databases.Server) -> None:
    url = mariadb_server.new_database()
    rows = [call(f"text-{number}", contact_name=text) for number, text in enumerate(AWKWARD)]
    mariadb_server.execute("SET GLOBAL local_infile = 0")
    try:
        with Warehouse(url) as warehouse:
            warehouse.prepare()
            assert publish(warehouse, rows, [participant("text-1", 0)])[0].inserted == len(rows)
            found = {row["call_id"]: row["contact_name"] for row in read(warehouse, CALLS)}
            assert found == {row["call_id"]: row["contact_name"] for row in rows}
            assert publish(warehouse, rows, [participant("text-1", 0)], now=LATER)[0].unchanged == len(rows)
    finally:
        mariadb_server.execute("SET GLOBAL local_infile = 1")
        mariadb_server.drop_database(url)
