"""PostgreSQL, MariaDB and MySQL: databases that are a server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
import sqlalchemy as sa
from typing_extensions import override

from sinks.backend import (
    BUSY,
    COLLIDED,
    DENIED,
    FULL,
    LOST,
    MISFIT,
    READ_ONLY,
    TOO_LARGE,
    UNUSABLE,
    Backend,
    Failure,
    in_full,
)
from sinks.bulk import from_csv, rows_of, tab_separated
from sinks.scratch import explained, scratch_folder
from transforms.errors import BusyError, DataError, StorageError

_ROWS_PER_STATEMENT = 10_000
_BYTES_PER_BATCH = 16 << 20

_Line = TypeVar("_Line", bytes, str | None)


def _batches(lines: Iterable[_Line], batch_rows: int) -> Iterator[list[_Line]]:
    """Yield ``lines`` in lists of up to ``batch_rows``, and of not much more than ``_BYTES_PER_BATCH``."""
    batch: list[_Line] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line or "")
        if len(batch) == batch_rows or size > _BYTES_PER_BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _csv_field(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    if isinstance(column.type, sa.String):
        return sa.func.coalesce(sa.func.concat('"', sa.func.replace(column, '"', '""'), '"'), "")
    return sa.func.coalesce(sa.cast(column, sa.CHAR), "")


class PostgreSQL(Backend):
    """A PostgreSQL server, through psycopg; rows go in by COPY."""

    has_schemas = True
    columns_query = (
        "SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
        " JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped"
        " AND c.relkind IN ('r', 'p', 'v') AND n.nspname = coalesce(:schema, current_schema())"
    )
    bytes_per_call = 1000
    read_only_options: ClassVar[dict[str, Any]] = {"postgresql_readonly": True}

    # Classes and codes: PostgreSQL documentation, appendix A; the longest prefix decides.
    _FAILURES: ClassVar[Mapping[str, Failure]] = {
        "08": LOST,
        "22": MISFIT,
        "23": MISFIT,
        "23505": COLLIDED,
        "25006": READ_ONLY,
        "40": BUSY,
        "42501": DENIED,
        "53": BUSY,
        "53100": FULL,
        "54000": MISFIT,
        "55P03": BUSY,
        "57P": LOST,
        "58": UNUSABLE,
    }

    # What a role, a database, the URL or the environment may have set otherwise, and a statement or its answer depends
    # on: PostgreSQL documentation, chapter "Server Configuration", "Client Connection Defaults" and "Compatibility".
    _SESSION: ClassVar[Mapping[str, str]] = {
        "client_encoding": "UTF8",
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "standard_conforming_strings": "on",
        "transform_null_equals": "off",
        "default_transaction_isolation": "read committed",
        "default_transaction_read_only": "off",
        "default_transaction_deferrable": "off",
        # A policy that hides rows makes an error, so that no count is one of some rows.
        "row_security": "off",
        # A window takes as long as it takes; only waiting for others is bounded.
        "statement_timeout": "0",
    }

    @override
    def engine_options(self) -> dict[str, Any]:
        options = super().engine_options()
        options["connect_args"] |= {"client_encoding": "utf8"}
        return options

    @override
    def set_up_session(self, connection: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise StorageError(
                f"the {self.label} has the encoding {encoding}, which cannot hold every name: create a database with "
                "ENCODING 'UTF8' (TEMPLATE template0), and name it in the URL"
            )
        with connection.cursor() as cursor:
            statements = [f"SET {name} = '{value}'" for name, value in self._SESSION.items()]
            cursor.execute("; ".join([*statements, f"SET lock_timeout = {round(self.busy_timeout_seconds * 1000)}"]))
        connection.commit()

    @override
    def require_schema(self, connection: sa.Connection) -> None:
        schema: str | None = connection.execute(sa.select(sa.func.current_schema())).scalar_one()
        if schema is None or schema.startswith("pg_"):
            raise StorageError(
                f"the {self.label} has no schema for tables of this user (search_path): set "
                "CALLHISTORY_WAREHOUSE_SCHEMA, or ALTER ROLE ... SET search_path = public"
            )

    @override
    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext("callhistory"))))
        yield

    @override
    def drop_temporary(self, connection: sa.Connection, table: sa.Table) -> None:
        connection.exec_driver_sql(f"DROP TABLE pg_temp.{connection.dialect.identifier_preparer.quote(table.name)}")

    @override
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        preparer = connection.dialect.identifier_preparer
        names = ", ".join(preparer.quote(name) for name in batch.column_names)
        driver_connection: Any = connection.connection.driver_connection
        with (
            driver_connection.cursor() as cursor,
            cursor.copy(f"COPY {preparer.format_table(table)} ({names}) FROM STDIN") as copy,
        ):
            for part in batch.to_batches(max_chunksize=_ROWS_PER_STATEMENT):
                copy.write(tab_separated(part))

    @override
    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.Table]:
        driver_connection: Any = connection.connection.driver_connection
        statement = f"COPY ({in_full(connection, query)}) TO STDOUT (FORMAT csv)"
        with driver_connection.cursor() as cursor, cursor.copy(statement) as copy:
            for lines in _batches(map(bytes, copy), batch_rows):
                yield from_csv(b"".join(lines), schema, pa.timestamp("us", "UTC"))

    @override
    def loaded(self, connection: sa.Connection, table: sa.Table) -> None:
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.format_table(table)}")

    @override
    def utc_now(self, connection: sa.Connection) -> datetime:
        now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    @override
    def failure(self, error: BaseException) -> Failure | None:
        import psycopg

        state: str | None = getattr(error, "sqlstate", None)
        if state is None:
            # Only a connection that broke has no SQLSTATE: there was no server left to send one.
            return LOST if isinstance(error, psycopg.OperationalError) else None
        prefixes = (state[:length] for length in range(len(state), 1, -1))
        return next((self._FAILURES[prefix] for prefix in prefixes if prefix in self._FAILURES), None)

    @override
    def code(self, error: BaseException) -> str:
        return f"{type(error).__name__} {getattr(error, 'sqlstate', None) or ''}".rstrip()


class MySQL(Backend):
    """A MariaDB or MySQL server, through PyMySQL; rows go in by LOAD DATA LOCAL, or by INSERT where that is off."""

    columns_query = (
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = coalesce(:schema, database())"
    )
    bytes_per_call = 1900

    # Numbers: MariaDB and MySQL server error references; 2000 and up are the client's.
    _FAILURES: ClassVar[Mapping[int, Failure]] = {
        1021: FULL, 1114: FULL, 1041: BUSY, 1040: BUSY, 1203: BUSY, 1205: BUSY, 1213: BUSY,
        1053: LOST, 1077: LOST, 1152: LOST, 1158: LOST, 1159: LOST, 1160: LOST, 1161: LOST, 1927: LOST,
        2002: LOST, 2003: LOST, 2006: LOST, 2013: LOST, 2014: LOST, 2055: LOST,
        1036: READ_ONLY, 1290: READ_ONLY, 1792: READ_ONLY, 1836: READ_ONLY,
        1044: DENIED, 1045: DENIED, 1142: DENIED, 1143: DENIED, 1227: DENIED, 1370: DENIED,
        1153: TOO_LARGE, 1301: TOO_LARGE,
        1062: COLLIDED,
        1048: MISFIT, 1264: MISFIT, 1265: MISFIT, 1292: MISFIT, 1364: MISFIT, 1366: MISFIT, 1406: MISFIT, 3819: MISFIT,
        4025: MISFIT,
    }  # fmt: skip
    # Forbidden by the server (MariaDB, MySQL 8), by an old server, by the client.
    _LOCAL_INFILE_OFF: ClassVar[frozenset[int]] = frozenset({1148, 2068, 3948, 4166})

    # What a server, init_connect or the URL may have set otherwise, and a statement or its answer depends on: MariaDB
    # documentation, "Server System Variables"; every name is MySQL's too. In any sql_mode these are read alike.
    _SESSION: ClassVar[Mapping[str, str]] = {
        "sql_mode": "'TRADITIONAL'",
        "time_zone": "'+00:00'",
        "timestamp": "DEFAULT",
        "sql_auto_is_null": "0",
        "sql_safe_updates": "0",
        "sql_big_selects": "1",
        "sql_select_limit": "18446744073709551615",
        "completion_type": "0",
        "innodb_strict_mode": "1",
        "unique_checks": "1",
    }

    def __init__(self, url: sa.URL, busy_timeout_seconds: float) -> None:
        super().__init__(url, busy_timeout_seconds)
        self.has_local_infile = True

    @override
    def engine_options(self) -> dict[str, Any]:
        options = super().engine_options()
        options["connect_args"] |= {"charset": "utf8mb4", "local_infile": True}
        # Gap locks would make windows that share no row wait for each other, or deadlock.
        return options | {"isolation_level": "READ COMMITTED"}

    @override
    def set_up_session(self, connection: Any) -> None:
        is_mariadb = "mariadb" in connection.get_server_info().lower()
        wait_seconds = max(1, round(self.busy_timeout_seconds))
        session = {
            **self._SESSION,
            "max_statement_time" if is_mariadb else "max_execution_time": "0",
            "innodb_lock_wait_timeout": str(wait_seconds),
            "lock_wait_timeout": str(wait_seconds),
        }
        with connection.cursor() as cursor:
            cursor.execute("SET NAMES utf8mb4")
            cursor.execute("SET SESSION TRANSACTION READ WRITE")
            cursor.execute("SET " + ", ".join(f"SESSION {name} = {value}" for name, value in session.items()))

    @override
    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        name = sa.func.concat("callhistory.", sa.func.database())
        taken = connection.execute(sa.select(sa.func.get_lock(name, self.busy_timeout_seconds))).scalar()
        if taken != 1:
            raise BusyError(f"the {self.label} {BUSY.hint}")
        try:
            yield
        finally:
            connection.execute(sa.select(sa.func.release_lock(name)))

    @override
    def create_table(self, connection: sa.Connection, table: sa.Table) -> None:
        """Create ``table`` so that text compares by its bytes, trailing spaces included, as elsewhere."""
        dialect: Any = connection.dialect
        collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
        options = {"engine": "InnoDB", "charset": "utf8mb4", "collate": collation}
        table.kwargs.update({f"{dialect.name}_{option}": value for option, value in options.items()})
        super().create_table(connection, table)

    @override
    def drop_leftover(self, connection: sa.Connection, table: sa.Table) -> None:
        self.drop_temporary(connection, table)

    @override
    def drop_temporary(self, connection: sa.Connection, table: sa.Table) -> None:
        # Without the word TEMPORARY, the statement would commit.
        name = connection.dialect.identifier_preparer.quote(table.name)
        connection.exec_driver_sql(f"DROP TEMPORARY TABLE IF EXISTS {name}")

    @override
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        for part in batch.to_batches(max_chunksize=_ROWS_PER_STATEMENT):
            if not (self.has_local_infile and self._load_local_infile(connection, table, part)):
                self._insert(connection, table, part)

    def _load_local_infile(self, connection: sa.Connection, table: sa.Table, part: pa.RecordBatch) -> bool:
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in part.schema.names)
        with tempfile.NamedTemporaryFile(dir=scratch_folder()) as file:
            with explained():
                file.write(tab_separated(part))
                file.flush()
            try:
                connection.exec_driver_sql(
                    f"LOAD DATA LOCAL INFILE %s INTO TABLE {quote(table.name)} CHARACTER SET utf8mb4"
                    r" FIELDS TERMINATED BY '\t' ESCAPED BY '\\' LINES TERMINATED BY '\n'"
                    f" ({names})",
                    (file.name,),
                )
            except sa.exc.DBAPIError as error:
                if self._number(error.orig) not in self._LOCAL_INFILE_OFF:
                    raise
                self.has_local_infile = False
                return False
        # LOCAL turns errors (a doubled key, a value cut short) into warnings.
        warning = connection.exec_driver_sql("SHOW WARNINGS LIMIT 1").first()
        if warning is not None:
            raise DataError(f"the {self.label} {MISFIT.hint} (table {table.name}, warning {warning[1]})")
        return True

    @override
    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.Table]:
        # One text per row: the driver is written in Python, and spends its time on each value.
        line = sa.func.concat_ws(",", *(_csv_field(column) for column in query.selected_columns))
        query = query.with_only_columns(sa.type_coerce(line, sa.String), maintain_column_froms=True)
        with connection.execute(query, execution_options={"yield_per": batch_rows}) as result:
            for lines in _batches(result.scalars(), batch_rows):
                if None in lines:
                    raise TOO_LARGE.kind(f"the {self.label} {TOO_LARGE.hint}")
                yield from_csv("".join(f"{line}\n" for line in lines).encode(), schema, pa.timestamp("us"))

    def _insert(self, connection: sa.Connection, table: sa.Table, part: pa.RecordBatch) -> None:
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in part.schema.names)
        marks = ", ".join(["%s"] * part.num_columns)
        connection.exec_driver_sql(
            f"INSERT INTO {quote(table.name)} ({names}) VALUES ({marks})",  # noqa: S608
            rows_of(part),
        )

    @override
    def utc_now(self, connection: sa.Connection) -> datetime:
        now: datetime = connection.execute(sa.select(sa.func.utc_timestamp(sa.literal_column("6")))).scalar_one()
        return now.replace(tzinfo=UTC)

    @staticmethod
    def _number(error: BaseException | None) -> int:
        return error.args[0] if error is not None and error.args and isinstance(error.args[0], int) else -1

    @override
    def failure(self, error: BaseException) -> Failure | None:
        import pymysql

        if isinstance(error, pymysql.err.InterfaceError):
            return LOST
        return self._FAILURES.get(self._number(error))

    @override
    def code(self, error: BaseException) -> str:
        return f"{type(error).__name__} {self._number(error)}"
