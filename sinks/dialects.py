"""What the four databases do differently; no other module asks which one it is talking to.

How each is reached, how a batch of Arrow rows is loaded in bulk, and what its error codes mean.
"""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
import stamina
from sqlalchemy.pool import NullPool
from typing_extensions import override

from sinks.backend import (
    BUSY,
    COLLIDED,
    DENIED,
    FULL,
    LOST,
    MISFIT,
    OUT_OF_MEMORY,
    READ_ONLY,
    TOO_LARGE,
    UNUSABLE,
    Backend,
    Failure,
)
from sinks.bulk import rows_of, tab_separated
from transforms.errors import BusyError, DataError, StorageError
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS

_ROWS_PER_STATEMENT = 10_000
_LARGE_TABLES = frozenset({CALLS.name, CALL_PARTICIPANTS.name, CALL_VERSIONS.name})


def _require_file(backend: Backend) -> None:
    # Both drivers would create an empty database instead, or speak of a permission.
    if not Path(backend.url.database or "").exists():
        raise StorageError(f"there is no {backend.label} yet: export something first (callhistory export)")


@cache
def _file_lock(path: Path) -> threading.Lock:
    return threading.Lock()


class DuckDB(Backend):
    """A file that one process has open at a time: held for a transaction only, so that others get their turn."""

    is_embedded = True
    has_schemas = True
    driver = "duckdb_engine"

    def __init__(self, url: sa.URL, busy_timeout_seconds: float) -> None:
        super().__init__(url, busy_timeout_seconds)
        self.path = Path(url.database or "").absolute()
        options = self.engine_options()
        options["connect_args"] |= {"read_only": True}
        self.read_only_engine = sa.create_engine(url, hide_parameters=True, **options)

    @override
    def engine_options(self) -> dict[str, Any]:
        # The URL's own options win, such as ?memory_limit=1GB.
        config = {
            "memory_limit": "256MB",
            # A second thread would add memory, and no speed at the size of a window.
            "threads": 1,
            "preserve_insertion_order": False,
            # The file is closed after each transaction, which writes it back anyway: skip the log.
            "checkpoint_threshold": "1KB",
            "autoinstall_known_extensions": False,
        }
        return {"poolclass": NullPool, "connect_args": {"config": config}}

    @override
    @contextmanager
    def connect(self, *, read_only: bool) -> Iterator[sa.Connection]:
        _require_file(self)
        engine = self.read_only_engine if read_only else self.engine
        with self._turn(), self._open(engine) as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the other threads of this process, which may have the file open in another mode."""
        lock = _file_lock(self.path)
        if not lock.acquire(timeout=self.busy_timeout_seconds):
            raise BusyError(f"the {self.label} {BUSY.hint}")
        try:
            yield
        finally:
            lock.release()

    def _open(self, engine: sa.Engine) -> sa.Connection:
        for attempt in stamina.retry_context(
            on=self._is_locked, attempts=None, timeout=self.busy_timeout_seconds, wait_initial=0.02, wait_max=1.0
        ):
            with attempt:
                return engine.connect()
        raise AssertionError("unreachable")

    def _is_locked(self, error: Exception) -> bool:
        return isinstance(error, sa.exc.DBAPIError) and self.failure(error.orig or error) is BUSY

    @override
    def create_storage(self) -> None:
        """Create the file in storage version 1.0, which the older DuckDBs inside BI tools can open."""
        import duckdb

        self.path.parent.mkdir(parents=True, exist_ok=True)
        quoted = str(self.path).replace("'", "''")
        with self._turn():
            if not self.path.exists():
                with duckdb.connect(":memory:") as connection:
                    connection.execute(f"ATTACH '{quoted}' AS warehouse (STORAGE_VERSION 'v1.0.0')")

    @override
    def column_names(self, connection: sa.Connection, table: sa.Table) -> set[str]:
        # duckdb-engine's reflection does not work with DuckDB 2.
        found = connection.execute(
            sa.text(
                "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database()"
                " AND schema_name = coalesce(:schema, current_schema()) AND table_name = :name"
            ),
            {"schema": table.schema, "name": table.name},
        )
        return set(found.scalars())

    @override
    def create_indexes(self, connection: sa.Connection, table: sa.Table) -> None:
        """Create none, as ``create_table`` says."""

    @override
    def create_table(self, connection: sa.Connection, table: sa.Table) -> None:
        # No indexes: row groups are skipped by their minima and maxima. And no key on the large tables, where its index
        # doubles the file and the time of a window: the merge keeps them unique, because what is staged has a key, only
        # calls that are not there are inserted, and there is one writer at a time.
        has_key = table.name not in _LARGE_TABLES
        columns = (
            sa.Column(c.name, c.type, primary_key=has_key and c.primary_key, nullable=c.nullable, comment=c.comment)
            for c in table.columns
        )
        options: dict[str, Any] = {"comment": table.comment, "schema": table.schema, "prefixes": table._prefixes}
        table = sa.Table(table.name, sa.MetaData(), *columns, **options)
        super().create_table(connection, table)

    @override
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        cursor: Any = connection.connection.driver_connection
        names = ", ".join(connection.dialect.identifier_preparer.quote(name) for name in batch.column_names)
        target = connection.dialect.identifier_preparer.format_table(table)
        cursor.register("callhistory_batch", batch)
        cursor.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM callhistory_batch")  # noqa: S608
        # Not after an error: the transaction is aborted then, and its connection about to be closed.
        cursor.unregister("callhistory_batch")

    @override
    def failure(self, error: BaseException) -> Failure | None:
        import duckdb

        if isinstance(error, duckdb.IOException):
            # DuckDB has no error codes: a lock, a missing folder and a full disk are one class.
            text = str(error)
            if "Could not set lock" in text:
                return BUSY
            return FULL if "No space left" in text else UNUSABLE
        if isinstance(error, duckdb.OutOfMemoryException):
            return OUT_OF_MEMORY
        if isinstance(error, duckdb.TransactionException):
            return BUSY
        if isinstance(error, duckdb.ConstraintException | duckdb.DataError):
            return MISFIT
        return None


class SQLite(Backend):
    """A file with one writer at a time, which waits its turn; readers go on meanwhile (WAL)."""

    is_embedded = True
    driver = "sqlite3"
    read_only_options: ClassVar[dict[str, Any]] = {"callhistory_begin": "BEGIN"}

    _FAILURES: ClassVar[Mapping[int, Failure]] = {
        sqlite3.SQLITE_BUSY: BUSY,
        sqlite3.SQLITE_LOCKED: BUSY,
        sqlite3.SQLITE_FULL: FULL,
        sqlite3.SQLITE_READONLY: READ_ONLY,
        sqlite3.SQLITE_PERM: READ_ONLY,
        sqlite3.SQLITE_CANTOPEN: UNUSABLE,
        sqlite3.SQLITE_IOERR: UNUSABLE,
        sqlite3.SQLITE_CORRUPT: UNUSABLE,
        sqlite3.SQLITE_NOTADB: UNUSABLE,
        sqlite3.SQLITE_CONSTRAINT: MISFIT,
        sqlite3.SQLITE_MISMATCH: MISFIT,
        sqlite3.SQLITE_TOOBIG: MISFIT,
    }

    def __init__(self, url: sa.URL, busy_timeout_seconds: float) -> None:
        super().__init__(url, busy_timeout_seconds)
        sa.event.listen(self.engine, "begin", self._begin)

    @override
    def engine_options(self) -> dict[str, Any]:
        return {"poolclass": NullPool, "connect_args": {"timeout": self.busy_timeout_seconds}}

    @override
    def set_up_session(self, connection: Any) -> None:
        # The driver would begin transactions by itself, and only at the first write.
        connection.isolation_level = None

    @override
    @contextmanager
    def connect(self, *, read_only: bool) -> Iterator[sa.Connection]:
        _require_file(self)
        with super().connect(read_only=read_only) as connection:
            yield connection

    @staticmethod
    def _begin(connection: sa.Connection) -> None:
        # A transaction that starts as a reader may not become a writer while another one writes.
        connection.exec_driver_sql(connection.get_execution_options().get("callhistory_begin", "BEGIN IMMEDIATE"))

    @override
    def create_storage(self) -> None:
        Path(self.url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        with self.engine.connect() as connection:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.execute("PRAGMA journal_mode = WAL").close()

    @override
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        statement = str(sa.insert(table).values(dict.fromkeys(batch.column_names, "")).compile(connection))
        for part in batch.to_batches(max_chunksize=_ROWS_PER_STATEMENT):
            connection.exec_driver_sql(statement, rows_of(part))

    @override
    def delete_matching(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Delete:
        # SQLite has no DELETE ... USING.
        return sa.delete(table).where(sa.exists().where(*conditions).correlate(table))

    @override
    def failure(self, error: BaseException) -> Failure | None:
        return self._FAILURES.get(getattr(error, "sqlite_errorcode", -1) & 0xFF)

    @override
    def code(self, error: BaseException) -> str:
        return getattr(error, "sqlite_errorname", type(error).__name__)


class PostgreSQL(Backend):
    """A PostgreSQL server, through psycopg; rows go in by COPY."""

    has_schemas = True
    driver = "psycopg"
    extra = "postgresql"
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

    @override
    def set_up_session(self, connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(f"SET lock_timeout = {round(self.busy_timeout_seconds * 1000)}")
        connection.commit()

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
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(quote(name) for name in batch.column_names)
        driver_connection: Any = connection.connection.driver_connection
        with (
            driver_connection.cursor() as cursor,
            cursor.copy(f"COPY {quote(table.name)} ({names}) FROM STDIN") as copy,
        ):
            for part in batch.to_batches(max_chunksize=_ROWS_PER_STATEMENT):
                copy.write(tab_separated(part))

    @override
    def loaded(self, connection: sa.Connection, table: sa.Table) -> None:
        connection.exec_driver_sql(f"ANALYZE {connection.dialect.identifier_preparer.quote(table.name)}")

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

    driver = "pymysql"
    extra = "mysql"

    # Numbers: MariaDB and MySQL server error references; 2000 and up are the client's.
    _FAILURES: ClassVar[Mapping[int, Failure]] = {
        1021: FULL, 1114: FULL, 1041: BUSY, 1040: BUSY, 1203: BUSY, 1205: BUSY, 1213: BUSY,
        1053: LOST, 1077: LOST, 1152: LOST, 1158: LOST, 1159: LOST, 1160: LOST, 1161: LOST, 1927: LOST,
        2002: LOST, 2003: LOST, 2006: LOST, 2013: LOST, 2014: LOST, 2055: LOST,
        1036: READ_ONLY, 1290: READ_ONLY, 1792: READ_ONLY, 1836: READ_ONLY,
        1044: DENIED, 1045: DENIED, 1142: DENIED, 1143: DENIED, 1227: DENIED, 1370: DENIED,
        1153: TOO_LARGE, 1301: TOO_LARGE,
        1062: COLLIDED,
        1048: MISFIT, 1264: MISFIT, 1265: MISFIT, 1292: MISFIT, 1364: MISFIT, 1366: MISFIT, 1406: MISFIT,
    }  # fmt: skip
    # Forbidden by the server (MariaDB, MySQL 8), by an old server, by the client.
    _LOCAL_INFILE_OFF: ClassVar[frozenset[int]] = frozenset({1148, 2068, 3948, 4166})

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
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION sql_mode = 'TRADITIONAL', time_zone = '+00:00'")
            cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {max(1, round(self.busy_timeout_seconds))}")

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
        with tempfile.NamedTemporaryFile(prefix="callhistory-") as file:
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


_BACKENDS: Mapping[str, type[Backend]] = {
    "duckdb": DuckDB,
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "mysql": MySQL,
    "mariadb": MySQL,
}


def backend_for(url: str, busy_timeout_seconds: float) -> Backend:
    """Return the backend of a SQLAlchemy URL; raises ``StorageError`` if it or its driver is not there."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise StorageError("CALLHISTORY_WAREHOUSE_URL is not a SQLAlchemy URL") from None
    backend = _BACKENDS.get(parsed.get_backend_name())
    if backend is None:
        raise StorageError(f"CALLHISTORY_WAREHOUSE_URL should be of {', '.join(_BACKENDS)}")
    if find_spec(backend.driver) is None:
        raise StorageError(f"the warehouse needs a driver: pip install 'callhistory[{backend.extra}]'")
    return backend(parsed, busy_timeout_seconds)
