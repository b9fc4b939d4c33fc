"""The declaration of tables: its three type systems agree, and it says what a reader needs."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import StatementError
from sqlalchemy.schema import CreateTable

from tests.golden import DIALECTS
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    EXPORT_WINDOWS,
    PARTITION_COLUMN,
    PIPELINE_STATE,
    REJECTED_ROWS,
    REQUEST_BUDGET,
    TABLES,
    Column,
    Pii,
    Role,
    Table,
)
from transforms.types import LOGICAL_TYPES, TEXT

EXPECTED: dict[str, tuple[str, str, str, str, str, str]] = {
    "text": ("string[pyarrow]", "string", "TEXT", "LONGTEXT", "TEXT", "TEXT"),
    "json": ("string[pyarrow]", "string", "TEXT", "LONGTEXT", "TEXT", "TEXT"),
    "integer": ("int64[pyarrow]", "int64", "BIGINT", "BIGINT", "BIGINT", "BIGINT"),
    "small_integer": ("int32[pyarrow]", "int32", "INTEGER", "INTEGER", "INTEGER", "INTEGER"),
    "boolean": ("bool[pyarrow]", "bool", "BOOLEAN", "BOOL", "BOOLEAN", "BOOLEAN"),
    "instant": (
        "timestamp[ms, tz=UTC][pyarrow]",
        "timestamp[ms, tz=UTC]",
        "TIMESTAMP WITH TIME ZONE",
        "DATETIME(6)",
        "DATETIME",
        "TIMESTAMP WITH TIME ZONE",
    ),
    "local_time": (
        "timestamp[ms][pyarrow]",
        "timestamp[ms]",
        "TIMESTAMP WITHOUT TIME ZONE",
        "DATETIME(6)",
        "DATETIME",
        "TIMESTAMP WITHOUT TIME ZONE",
    ),
    "date": ("date32[day][pyarrow]", "date32[day]", "DATE", "DATE", "DATE", "DATE"),
}
"""Each logical type in pandas, Arrow, and the databases in the order of ``DIALECTS``; written out by hand."""

DECLARED = (*TABLES, REQUEST_BUDGET)
COLUMNS = [
    pytest.param(table, column, id=f"{table.name}.{column.name}") for table in DECLARED for column in table.columns
]

VALUES: dict[str, list[Any]] = {
    "text": ["Nguyễn 👩🏽‍💻", "x" * 70_000],
    "json": ['{"a":1}'],
    "integer": [2**63 - 1, -(2**63)],
    "small_integer": [2**31 - 1, 0],
    "boolean": [True, False],
    "instant": [datetime(2025, 6, 29, 22, 39, 7, 978_000, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)],
    "local_time": [datetime(2025, 6, 30, 5, 39, 7, 978_000), datetime(9999, 12, 30)],  # noqa: DTZ001
    "date": [date(2025, 6, 30)],
}


def test_the_table_of_expectations_is_complete() -> None:
    assert {logical.name for logical in LOGICAL_TYPES} == set(EXPECTED) == set(VALUES)
    assert {column.type.name for table in DECLARED for column in table.columns} <= set(EXPECTED)


@pytest.mark.parametrize("dialect", list(DIALECTS))
@pytest.mark.parametrize("table", DECLARED, ids=lambda table: table.name)
def test_ddl_of_every_column(table: Table, dialect: str) -> None:
    ddl = str(CreateTable(table.sql_table(sa.MetaData())).compile(dialect=DIALECTS[dialect]))
    lines = {line.strip(' \t`"').split()[0].strip('`"'): line for line in ddl.splitlines() if line.startswith("\t")}
    for column in table.columns:
        bound = column.max_length is not None
        unbounded = EXPECTED[column.type.name][2 + list(DIALECTS).index(dialect)]
        expected = f"VARCHAR({column.max_length})" if bound else unbounded
        declaration = lines[column.name].split(" COMMENT ")[0].strip(" \t,")
        null = "" if column.nullable else " NOT NULL"
        assert re.sub(r'^[`"]?\w+[`"]? ', "", declaration) == expected + null
    assert f"PRIMARY KEY ({', '.join(table.key)})" in ddl.replace("`", "").replace('"', "")


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_pandas_and_arrow_types_of_every_column(table: Table, column: Column) -> None:
    pandas_type, arrow_type, *_ = EXPECTED[column.type.name]
    assert str(table.pandas_dtypes[column.name]) == pandas_type
    assert str(table.arrow_schema.field(column.name).type) == arrow_type
    assert table.arrow_schema.field(column.name).nullable is column.nullable


@pytest.mark.parametrize("logical", LOGICAL_TYPES, ids=lambda logical: logical.name)
def test_values_survive_pandas_arrow_and_a_database(logical: Any) -> None:
    values = [*VALUES[logical.name], None]
    series = pd.Series(values, dtype=logical.pandas)
    assert pa.array(series.array, logical.arrow).to_pylist() == values
    table = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer), sa.Column("v", logical.sql(None)))
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(table.insert(), [{"n": n, "v": value} for n, value in enumerate(values)])
        assert list(connection.scalars(sa.select(table.c.v).order_by(table.c.n))) == values
    engine.dispose()


def test_an_instant_is_stored_in_utc_and_must_have_a_zone() -> None:
    table = sa.Table("t", sa.MetaData(), sa.Column("v", CALLS["started_at"].type.sql(None)))
    engine = sa.create_engine("sqlite://")
    with engine.begin() as connection:
        table.create(connection)
        local = datetime(2025, 6, 30, 5, 39, tzinfo=timezone(timedelta(hours=7)))
        connection.execute(table.insert(), {"v": local})
        assert connection.scalar(sa.text("SELECT v FROM t")) == "2025-06-29 22:39:00.000000"
        assert connection.scalar(sa.select(table.c.v)) == local
        with pytest.raises(StatementError, match="time zone"):
            connection.execute(table.insert(), {"v": datetime(2025, 6, 30)})  # noqa: DTZ001
    engine.dispose()


def test_every_table_has_comments_and_indexes_in_the_database() -> None:
    table = CALLS.sql_table(sa.MetaData(), name="staged_calls")
    assert table.comment == CALLS.description
    assert {index.name for index in table.indexes} == {
        f"ix_staged_calls_{column.name}" for column in CALLS.columns if column.index
    } | {"ix_staged_calls_customer_number_e164_started_at"}
    assert {column.name: column.comment for column in table.columns} == {c.name: c.description for c in CALLS.columns}


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_every_column_says_what_a_reader_needs(table: Table, column: Column) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
    assert column.description.endswith(".")
    units = {"_seconds": "seconds", "_minutes": "minutes", "_at": "UTC instant", "_hour": "hour of day"}
    for suffix, unit in units.items():
        if column.name.endswith(suffix):
            assert column.unit == unit
    if column.name in ("window_start", "window_end"):
        assert column.unit == "UTC instant"
    if column.key:
        assert not column.nullable
        assert column.type is not TEXT or column.max_length is not None
    if column.index and column.type is TEXT:
        assert column.max_length is not None, "MariaDB and MySQL cannot index unbounded text"


def test_keys() -> None:
    assert {table.name: table.key for table in DECLARED} == {
        "calls": ("call_id",),
        "call_participants": ("call_id", "position"),
        "rejected_rows": ("window_start", "reject_id"),
        "export_windows": ("window_start",),
        "certificates": ("number",),
        "call_versions": ("call_id", "superseded_at"),
        "late_changes": ("window_start", "found_at"),
        "source_fields": ("window_start", "field", "json_type"),
        "pipeline_state": ("name",),
        "recordings": ("call_id",),
        "live_calls": ("snapshot_at", "call_id"),
        "metric_parameters": ("name",),
        "erasures": ("erasure_id",),
        "request_budget": ("api",),
    }


@pytest.mark.parametrize("table", DECLARED, ids=lambda table: table.name)
def test_a_key_fits_into_an_index_of_mariadb(table: Table) -> None:
    sizes = {"text": 4, "integer": 8, "small_integer": 4, "instant": 8, "date": 3}
    size = sum(sizes[table[name].type.name] * (table[name].max_length or 1) for name in table.key)
    assert size <= 3072


def test_what_the_source_decides() -> None:
    assert CALLS.value_columns[0] == "call_id"
    assert CALLS.value_columns[-1] == "extra"
    assert CALLS.derived_columns == ("started_at_local",)
    assert [name for name in CALLS.value_columns if name not in CALLS.derived_columns] == [*CALLS.hashed_columns]
    bookkeeping = {"row_hash", "window_start", "first_seen_at", "updated_at", "deleted_at"}
    assert set(CALLS.column_names) - set(CALLS.value_columns) == bookkeeping
    assert all(column.source for column in CALLS.columns if column.role is not Role.BOOKKEEPING)
    assert set(CALL_VERSIONS.column_names) == {*CALLS.column_names, "superseded_at"}
    assert CALL_VERSIONS.value_columns == EXPORT_WINDOWS.value_columns == PIPELINE_STATE.value_columns == ()


def test_columns_that_tell_of_a_person_are_marked() -> None:
    personal = {
        "customer_number",
        "customer_number_e164",
        "stringee_number",
        "agent_id",
        "agent_name",
        "agent_email",
        "from_user_id",
        "callee",
        "contact_name",
        "extra",
    }
    assert {column.name for column in CALLS.columns if column.pii is not Pii.NONE} == personal
    assert {column.name for column in CALL_PARTICIPANTS.columns if column.pii is not Pii.NONE} == {
        "participant",
        "number_e164",
        "raw",
    }
    assert {column.name for column in REJECTED_ROWS.columns if column.pii is not Pii.NONE} == {"payload"}


def test_a_lake_file_leaves_out_what_its_folder_says() -> None:
    for table in (CALLS, CALL_PARTICIPANTS):
        assert table.partitioned
        assert [*table.lake_schema.names, PARTITION_COLUMN] == [
            *(name for name in table.column_names if name != PARTITION_COLUMN),
            PARTITION_COLUMN,
        ]


def test_a_table_refuses_a_column_declared_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        Table("t", "T.", (CALLS["call_id"], CALLS["call_id"]))
