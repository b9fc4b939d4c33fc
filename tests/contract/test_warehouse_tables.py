"""How the tables come to be and to grow, on every database."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from sinks.warehouse import Warehouse
from tests.contract.windows import LATER, NOW, START, call, participant, publish, read
from transforms.errors import StorageError
from transforms.schema import CALLS, TABLES


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
        for view in reversed(warehouse.views):
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


@pytest.mark.parametrize("warehouse_url", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_an_index_that_was_not_declared_before_is_added(warehouse_url: str) -> None:
    calls = replace(CALLS, columns=tuple(replace(column, index=False) for column in CALLS.columns))
    without = [calls if table is CALLS else table for table in TABLES]
    for declared, has_index in ((without, False), (TABLES, True)):
        with Warehouse(warehouse_url, declared=declared) as warehouse:
            warehouse.prepare()
            with warehouse.reading() as connection:
                assert sa.inspect(connection).has_index("calls", "ix_calls_updated_at") == has_index


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
def test_a_broken_view_of_somebody_elses_is_no_obstacle(warehouse: Warehouse) -> None:
    with warehouse.transaction() as connection:
        connection.exec_driver_sql("CREATE TABLE theirs (a INTEGER)")
        connection.exec_driver_sql("CREATE VIEW broken AS SELECT a FROM theirs")
        connection.exec_driver_sql("DROP TABLE theirs")
    warehouse.prepare()
    assert publish(warehouse, [call("one")])[0].inserted == 1


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


@pytest.mark.parametrize("schema", ["call_centre", "callhistory"])
def test_a_schema_of_its_own(warehouse_url: str, schema: str) -> None:
    if warehouse_url.startswith(("sqlite", "mysql")):
        with pytest.raises(StorageError, match="CALLHISTORY_WAREHOUSE_SCHEMA"):
            Warehouse(warehouse_url, schema)
        return
    with Warehouse(warehouse_url, schema) as inside, Warehouse(warehouse_url) as outside:
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
