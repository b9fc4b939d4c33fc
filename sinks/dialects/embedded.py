"""DuckDB and SQLite: databases that are a file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa
import stamina
from sqlalchemy.pool import NullPool
from typing_extensions import override

from sinks.backend import (
    BUSY,
    FULL,
    MISFIT,
    OUT_OF_MEMORY,
    READ_ONLY,
    UNUSABLE,
    Backend,
    Failure,
    in_full,
)
from sinks.bulk import of_schema, rows_of
from sinks.private_files import make_folder, restrict
from transforms.errors import BusyError, StorageError
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS

_ATTACHED = "callhistory_database_file"
"""The file's name in a statement; a schema of the same name would be ambiguous."""
_TO_READ = "READ_ONLY"
_ROWS_PER_STATEMENT = 10_000
_MEANINGS = frozenset(
    {
        "calendar", "default_collation", "default_null_order", "default_order", "ieee_floating_point_ops",
        "integer_division", "null_order", "old_implicit_casting", "preserve_identifier_case",
        "scalar_subquery_error_on_multiple_rows", "timezone",
    }
)  # fmt: skip
"""Options of DuckDB that would make another answer of the same statement: what a URL says of them is left out."""
_LARGE_TABLES = frozenset({CALLS.name, CALL_PARTICIPANTS.name, CALL_VERSIONS.name})


def _require_file(backend: Backend) -> None:
    # Both drivers would create an empty database instead, or speak of a permission.
    if not Path(backend.url.database or "").exists():
        raise StorageError(f"there is no {backend.label} yet: export something first (callhistory export)")


@cache
def _file_lock(path: Path) -> threading.Lock:
    return threading.Lock()


class DuckDB(Backend):
    """A file that one process has open at a time: held for a transaction only, so that others get their turn.

    The DuckDB that it is attached to stays: to begin one takes longer than a short transaction does.
    """

    has_schemas = True
    columns_query = (
        "SELECT table_name, column_name FROM duckdb_columns() WHERE database_name = current_database()"
        " AND schema_name = coalesce(:schema, current_schema())"
    )
    bytes_per_call = 660

    def __init__(self, url: sa.URL, busy_timeout_seconds: float) -> None:
        super().__init__(url, busy_timeout_seconds)
        self.path = Path(url.database or "").absolute()
        self._quoted_path = str(self.path).replace("'", "''")
        self._instance: Any = None
        self._keeper: int | None = None
        self._kept: str | None = None
        # duckdb_engine says no, without a reason: its compiler is that of PostgreSQL, which says yes. SQLAlchemy looks
        # at the class only.
        type(self.engine.dialect).supports_statement_cache = True
        sa.event.listen(self.engine, "do_connect", self._connection)

    @override
    def engine_options(self) -> dict[str, Any]:
        return {"poolclass": NullPool}

    @override
    @contextmanager
    def connect(self, *, read_only: bool) -> Iterator[sa.Connection]:
        _require_file(self)
        with self._attached(_TO_READ if read_only else "READ_WRITE"), self.engine.connect() as connection:
            yield connection

    @override
    @contextmanager
    def kept_open(self) -> Iterator[None]:
        if self._is_keeper():
            yield
            return
        with self._turn():
            self._keeper = threading.get_ident()
            try:
                yield
            finally:
                try:
                    with self._let_go_on_error():
                        self._detach_kept()
                finally:
                    self._keeper = None

    def _is_keeper(self) -> bool:
        return self._keeper == threading.get_ident()

    @contextmanager
    def _attached(self, option: str) -> Iterator[None]:
        if self._is_keeper():
            with self._let_go_on_error():
                # What is open to write can be read too.
                if self._kept is None or (self._kept != option and option != _TO_READ):
                    self._detach_kept()
                    self._attach(option)
                    self._kept = option
                yield
            return
        with self._turn(), self._let_go_on_error():
            self._attach(option)
            yield
            self._instance.execute(f"DETACH {_ATTACHED}")

    def _detach_kept(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            self._instance.execute(f"DETACH {_ATTACHED}")

    @contextmanager
    def _let_go_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # Whatever went wrong: nothing that is left of it may keep the file.
            self._kept = None
            self._end_instance()
            raise

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

    def _attach(self, option: str) -> None:
        self._begin_instance()
        for attempt in stamina.retry_context(
            on=lambda error: self.failure(error) is BUSY,
            attempts=None,
            timeout=self.busy_timeout_seconds,
            wait_initial=0.02,
            wait_max=1.0,
        ):
            with attempt:
                self._instance.execute(f"ATTACH '{self._quoted_path}' AS {_ATTACHED} ({option})")

    def _begin_instance(self) -> None:
        import duckdb

        if self._instance is not None:
            return
        # The URL's own options win, such as ?memory_limit=1GB; not those that decide what a statement means.
        given = {name: value for name, value in self.url.query.items() if name.lower() not in _MEANINGS}
        config: dict[str, Any] = {
            "memory_limit": "128MB",
            # A second thread would add memory, and no speed at the size of a window.
            "threads": 1,
            "preserve_insertion_order": False,
            # The file is detached after each transaction, which writes it back anyway: skip the log.
            "checkpoint_threshold": "1KB",
            "autoinstall_known_extensions": False,
            "temp_directory": f"{self.path}.tmp",
        } | given
        self._instance = duckdb.connect(":memory:", config=config)

    def _end_instance(self) -> None:
        instance, self._instance = self._instance, None
        if instance is not None:
            instance.close()

    def _connection(self, *_: object) -> Any:
        """Return what SQLAlchemy gets for a connection: one of the instance's, which sees the file first."""
        from duckdb_engine import ConnectionWrapper

        connection = self._instance.cursor()
        connection.execute(f"USE {_ATTACHED}")
        return ConnectionWrapper(connection)

    @override
    def close(self) -> None:
        super().close()
        with self._turn():
            self._end_instance()

    @override
    def is_there(self) -> bool:
        return Path(self.url.database or "").exists()

    @override
    def create_storage(self) -> None:
        """Create the file in storage version 1.0, which the older DuckDBs inside BI tools can open."""
        make_folder(self.path.parent)
        if not self.path.exists():
            with self._attached("STORAGE_VERSION 'v1.0.0'"):
                pass
            restrict(self.path)

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
            sa.Column(
                c.name,
                c.type,
                primary_key=has_key and c.primary_key,
                nullable=c.nullable,
                autoincrement=c.autoincrement,
                comment=c.comment,
            )
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
        # DuckDB looks up the variable. What is registered under a name instead, it keeps until the transaction ends.
        callhistory_batch = batch  # noqa: F841
        cursor.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM callhistory_batch")  # noqa: S608

    @override
    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.Table]:
        driver_connection: Any = connection.connection.driver_connection
        reader = driver_connection.sql(in_full(connection, query)).to_arrow_reader(batch_rows)
        for batch in reader:
            yield of_schema(pa.Table.from_batches([batch]), schema)

    @override
    def failure(self, error: BaseException) -> Failure | None:
        import duckdb

        # DuckDB has no error codes: a lock, a missing folder and a full disk are one class, and a disk that is full at
        # commit is several.
        text = str(error) if isinstance(error, duckdb.Error) else ""
        if "No space left" in text:
            return FULL
        if isinstance(error, duckdb.IOException):
            return BUSY if "Could not set lock" in text else UNUSABLE
        if isinstance(error, duckdb.OutOfMemoryException):
            return OUT_OF_MEMORY
        if isinstance(error, duckdb.TransactionException):
            return BUSY
        if isinstance(error, duckdb.ConstraintException | duckdb.DataError):
            return MISFIT
        return None


def _kept_as(wanted: pa.DataType) -> tuple[pa.DataType, sa.types.TypeEngine[Any]]:
    """Return how SQLite keeps a value: for Arrow, and for SQLAlchemy, which is to hand it on as it is."""
    if pa.types.is_boolean(wanted):
        return pa.int8(), sa.Integer()
    if pa.types.is_temporal(wanted):
        return pa.string(), sa.String()
    return wanted, sa.String() if pa.types.is_string(wanted) else sa.Integer()


class SQLite(Backend):
    """A file with one writer at a time, which waits its turn; readers go on meanwhile (WAL)."""

    # The columns of somebody's broken view cannot be told.
    columns_query = (
        "SELECT t.name, c.name FROM sqlite_master AS t JOIN pragma_table_info(t.name) AS c"
        " WHERE t.type = 'table' AND :schema IS NULL UNION ALL SELECT name, '*' FROM sqlite_master WHERE type = 'view'"
    )
    bytes_per_call = 1000
    read_only_options: ClassVar[dict[str, Any]] = {"callhistory_begin": "BEGIN"}

    _FAILURES: ClassVar[Mapping[int, Failure]] = {
        sqlite3.SQLITE_BUSY: BUSY,
        sqlite3.SQLITE_LOCKED: BUSY,
        sqlite3.SQLITE_FULL: FULL,
        sqlite3.SQLITE_IOERR_SHMSIZE: FULL,
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
    def is_there(self) -> bool:
        return Path(self.url.database or "").exists()

    @override
    def create_storage(self) -> None:
        path = Path(self.url.database or "").absolute()
        make_folder(path.parent)
        is_new = not path.exists()
        with self.engine.connect() as connection:
            driver_connection: Any = connection.connection.driver_connection
            driver_connection.execute("PRAGMA journal_mode = WAL").close()
        if is_new:
            restrict(path)  # the files that SQLite writes beside it get its rights

    @override
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        statement = str(sa.insert(table).values(dict.fromkeys(batch.column_names, "")).compile(connection))
        for part in batch.to_batches(max_chunksize=_ROWS_PER_STATEMENT):
            connection.exec_driver_sql(statement, rows_of(part))

    @override
    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.Table]:
        # Arrow reads texts and numbers faster than SQLAlchemy makes dates and instants of them.
        kept = {field.name: _kept_as(field.type) for field in schema}
        columns = [sa.type_coerce(c, kept[c.name][1]).label(c.name) for c in query.selected_columns]
        plain = pa.schema([(name, arrow) for name, (arrow, _) in kept.items()])
        query = query.with_only_columns(*columns, maintain_column_froms=True)
        for batch in super().fetch(connection, query, plain, batch_rows):
            yield of_schema(batch, schema)

    @override
    def delete_matching(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Delete:
        # SQLite has no DELETE ... USING.
        return sa.delete(table).where(sa.exists().where(*conditions).correlate(table))

    @override
    def failure(self, error: BaseException) -> Failure | None:
        code: int = getattr(error, "sqlite_errorcode", -1)
        return self._FAILURES.get(code, self._FAILURES.get(code & 0xFF))

    @override
    def code(self, error: BaseException) -> str:
        return getattr(error, "sqlite_errorname", type(error).__name__)
