"""The SQL warehouse: its tables, how they come to be, and the one way to open a transaction on them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache, cached_property
from types import MappingProxyType, TracebackType
from typing import Any

import orjson
import pyarrow as pa
import sqlalchemy as sa
import stamina
from sqlalchemy.schema import CreateColumn, CreateSchema, SetColumnComment

from sinks.backend import BUSY, LOST, Backend, in_full
from sinks.dialects import backend_for
from sinks.views import MASKED_NAMES, VIEWS, View, all_relations, views
from sinks.views.version import DIGEST
from transforms.errors import BusyError, CallHistoryError, CollisionError, DataError, StorageError
from transforms.hashing import digest
from transforms.schema import PIPELINE_STATE, TABLES, Table

once_more_on_collision = stamina.retry(on=CollisionError, attempts=5, wait_initial=0.02, wait_max=0.5)
"""For what inserts a row where there is none: should another process do the same, it is done again and finds it."""

VIEW_STATE_PREFIX = "view "
"""Begins the names in ``pipeline_state`` that tell which views this database has."""

_ROWS_PER_FETCH = 2_000
_DECLARATION = f"{VIEW_STATE_PREFIX}and index declarations"


class _UndoneError(Exception):
    """Ends a transaction that was only a trial."""


@dataclass(frozen=True)
class _Declaration:
    """What a warehouse is to have; ``digest`` changes with all of it that the names of the columns do not tell."""

    tables: Mapping[str, sa.Table]
    view_names: Sequence[str]
    digest: str
    schema: str | None
    is_server: bool

    @cached_property
    def views(self) -> Sequence[View]:
        """Every view, in the order to create them in. Most processes find them there, and need not know their SQL."""
        return views(self.tables, self.schema, masked=self.is_server) if self.view_names else []


@cache
def _declaration(declared: tuple[Table, ...], schema: str | None, is_server: bool) -> _Declaration:
    metadata = sa.MetaData(schema=schema)
    tables = {table.name: table.sql_table(metadata) for table in declared}
    view_names = (*VIEWS, *(MASKED_NAMES if is_server else ())) if PIPELINE_STATE.name in tables else ()
    indexes = sorted(str(index.name) for table in tables.values() for index in table.indexes)
    version = digest("\n".join([DIGEST, *indexes]).encode())
    return _Declaration(MappingProxyType(tables), view_names, version, schema, is_server)


class Warehouse:
    """The tables of ``schema.TABLES``, and their views, in the database that ``url`` (SQLAlchemy, with driver) names.

    ``schema`` puts them into that schema, where the database has schemas; ``StorageError`` where it has none.
    ``busy_timeout_seconds`` bounds each wait for a lock. ``setting`` is what errors call the setting of the URL.
    ``declared`` are other tables; those without ``pipeline_state`` have no views. Nothing is opened before the
    first use. A warehouse may be used by several threads; ``close`` it, or use it as a context manager, to give its
    connections back.
    """

    def __init__(
        self,
        url: str,
        schema: str | None = None,
        *,
        busy_timeout_seconds: float = 60.0,
        setting: str = "CALLHISTORY_WAREHOUSE_URL",
        declared: Sequence[Table] = TABLES,
    ) -> None:
        self._backend = backend_for(url, busy_timeout_seconds)
        self._busy_timeout_seconds = busy_timeout_seconds
        self._setting = setting
        if schema is not None and not self._backend.has_schemas:
            schema_setting = setting.replace("_URL", "_SCHEMA")
            raise StorageError(f"{schema_setting}: a {self.name} database has no schemas; leave it unset")
        self._schema = schema
        self._declaration = _declaration(tuple(declared), schema, not self._backend.is_embedded)
        self.tables = self._declaration.tables
        self._has_answered = False

    @property
    def name(self) -> str:
        """The backend's name: duckdb, sqlite, postgresql, mysql or mariadb."""
        return self._backend.url.get_backend_name()

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a file that one process writes at a time."""
        return self._backend.is_embedded

    @property
    def backend(self) -> Backend:
        """What is particular to this database; for the other modules of this package."""
        return self._backend

    def __enter__(self) -> Warehouse:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; the next use opens new ones."""
        self._backend.close()

    def is_there(self) -> bool:
        """Whether there is a database: a server is, as far as can be told without asking; a file may not be."""
        return self._backend.is_there()

    def missing_tables(self) -> list[str]:
        """Return the names of the tables that `prepare` would create; nothing is changed. Raises as ``transaction``."""
        with self.reading() as connection:
            present = self._backend.columns(connection, self._schema)
        return [name for name in self.tables if name not in present]

    def try_to_write(self) -> None:
        """Create a table and take it back. Raises ``StorageError`` that says what to fix."""
        table = sa.Table(f"callhistory_probe_{uuid.uuid4().hex[:8]}", sa.MetaData(), sa.Column("probe", sa.Integer))
        try:
            with self.transaction() as connection:
                self._backend.create_table(connection, table)
                table.drop(connection)
                raise _UndoneError
        except _UndoneError:
            return

    def prepare(self) -> None:
        """Create what is missing of tables, columns, comments, indexes and views; leave all else as it is.

        Columns are only ever added, and to an existing table as nullable ones, for its rows have no value there.
        Doing it again, or in two processes at once, is harmless. Raises ``StorageError`` that names what to fix, and
        ``BusyError`` if somebody else holds the database for longer than ``busy_timeout_seconds``.
        """
        for attempt in stamina.retry_context(
            on=BusyError, attempts=None, timeout=self._busy_timeout_seconds, wait_initial=0.05, wait_max=1.0
        ):
            with attempt:
                self._create_storage()
                # To look needs no turn among those who write.
                with self.reading() as connection:
                    if self._is_prepared(connection):
                        return
                with self.transaction() as connection, self._backend.schema_lock(connection):
                    if not self._is_prepared(connection):
                        self._create_missing(connection)

    def _create_storage(self) -> None:
        try:
            self._backend.create_storage()
        except OSError as error:
            raise StorageError(f"cannot create the {self._backend.label}: {error.strerror}") from error
        except self._backend.driver_error as error:
            raise self._explained(error, is_open=False) from error

    def _is_prepared(self, connection: sa.Connection) -> bool:
        present = self._backend.columns(connection, self._schema)
        if not all(set(table.columns.keys()) <= present.get(name, set()) for name, table in self.tables.items()):
            return False
        if not self._declaration.view_names:
            return True
        are_there = all(name in present for name in self._declaration.view_names)
        return are_there and self._remembered(connection).get(_DECLARATION) == self._declaration.digest

    def _create_missing(self, connection: sa.Connection) -> None:
        if self._schema is not None:
            connection.execute(CreateSchema(self._schema, if_not_exists=True))
        else:
            self._backend.require_schema(connection)
        present = self._backend.columns(connection, self._schema)
        for table in self.tables.values():
            if table.name not in present:
                self._backend.create_table(connection, table)
                continue
            for column in table.columns:
                if column.name not in present[table.name]:
                    self._add_column(connection, column)
            self._backend.create_indexes(connection, table)
        if self._declaration.view_names:
            self._create_views(connection, present.keys())

    def _create_views(self, connection: sa.Connection, present: Collection[str]) -> None:
        """Create the views that are not there or are other ones than before, and those that select from such a view.

        A view that is made anew loses the rights that were given to it: so the others stay.
        """
        remembered = self._remembered(connection)
        statements: dict[str, str] = {}
        digests: dict[str, str] = {}
        anew: list[View] = []
        for view in self._declaration.views:
            statement = in_full(connection, view.query)
            digests[view.name] = digest(f"{statement} {view.description} {view.columns}".encode())
            is_same = view.name in present and remembered.get(VIEW_STATE_PREFIX + view.name) == digests[view.name]
            if not is_same or view.selects_from & {other.name for other in anew}:
                anew.append(view)
                statements[view.name] = statement
        for view in reversed(anew):
            self._execute(connection, f"DROP VIEW IF EXISTS {self._quoted(connection, view.name)}")
        for view in anew:
            self._create_view(connection, view, statements[view.name])
            self._remember(connection, VIEW_STATE_PREFIX + view.name, digests[view.name])
        self._remember(connection, _DECLARATION, self._declaration.digest)

    def _create_view(self, connection: sa.Connection, view: View, statement: str) -> None:
        label = self._quoted(connection, view.name)
        self._execute(connection, f"CREATE VIEW {label} AS {statement}")
        if connection.dialect.supports_comments and not connection.dialect.inline_comments:
            comments = {f"VIEW {label}": view.description} | {f"COLUMN {label}.{c}": d for c, d in view.columns.items()}
            quoted = {subject: comment.replace("'", "''") for subject, comment in comments.items()}
            self._execute(connection, "; ".join(f"COMMENT ON {s} IS '{comment}'" for s, comment in quoted.items()))

    def _quoted(self, connection: sa.Connection, name: str) -> str:
        return connection.dialect.identifier_preparer.format_table(sa.Table(name, sa.MetaData(schema=self._schema)))

    @staticmethod
    def _execute(connection: sa.Connection, statement: str) -> None:
        """Execute a statement as it is: a driver that is given parameters would look for ``%`` in it."""
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def _remembered(self, connection: sa.Connection) -> dict[str, str]:
        """Return the digests of the views that are there, and of the whole declaration, by name."""
        t = self.tables[PIPELINE_STATE.name]
        query = sa.select(t.c.name, t.c.value).where(t.c.name.startswith(VIEW_STATE_PREFIX))
        return {name: orjson.loads(value) for name, value in connection.execute(query).tuples()}

    def _remember(self, connection: sa.Connection, name: str, value: str) -> None:
        t, json = self.tables[PIPELINE_STATE.name], orjson.dumps(value).decode()
        connection.execute(sa.delete(t).where(t.c.name == name))
        connection.execute(sa.insert(t).values(name=name, value=json, updated_at=self.utc_now(connection)))

    def _add_column(self, connection: sa.Connection, column: sa.Column[object]) -> None:
        # A copy in a table of its own: the declared column stays NOT NULL where it is.
        added = sa.Column(column.name, column.type, comment=column.comment)
        table = sa.Table(column.table.name, sa.MetaData(schema=self._schema), added)
        name = connection.dialect.identifier_preparer.format_table(table)
        definition = CreateColumn(added).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {name} ADD COLUMN {definition}".replace("%", "%%"))
        if connection.dialect.supports_comments and not connection.dialect.inline_comments:
            connection.execute(SetColumnComment(added))

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction for writing; commit at the end, roll back on any exception.

        Raises ``BusyError`` on a lock that lasts, a deadlock or a lost connection, ``StorageError`` on a full disk,
        a missing right and their like, ``DataError`` on a value that the tables cannot hold.
        """
        with self._connected(read_only=False) as connection, connection.begin():
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection to read from; what is written on it is refused or undone. Raises as ``transaction``."""
        with self._connected(read_only=True) as connection:
            yield connection

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Spare short transactions of this thread, one after the other, the opening of a database that is a file.

        To open a DuckDB file takes longer than to ask it something. Meanwhile nobody else can write to it: so nothing
        that takes long, and nothing that waits for anybody, belongs inside. Raises as ``transaction``.
        """
        try:
            with self._backend.kept_open():
                yield
        except self._backend.driver_error as error:
            raise self._explained(error, is_open=True) from error

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """Open a connection to read from that sees all tables as they are at one moment. Raises as ``transaction``.

        An embedded database's always does.
        """
        with self.reading() as connection:
            if not self.is_embedded:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @property
    def views(self) -> Sequence[View]:
        """Every view that `prepare` creates, in the order in which it does."""
        return self._declaration.views

    def relations(self) -> dict[str, sa.FromClause]:
        """Return every table and view by its name, as something to select from."""
        return all_relations(self.tables, self._declaration.views, self._schema)

    def fetch(self, connection: sa.Connection, table: Table, query: sa.Select[tuple[Any, ...]]) -> Iterator[pa.Table]:
        """Yield the rows of ``query``, which selects columns of ``table``, in batches, in the declared types.

        ``connection`` is one of this warehouse. Raises ``DataError`` for a value that is not of its column's type.
        """
        names = [column.name for column in query.selected_columns]
        schema = pa.schema([pa.field(name, table.arrow_schema.field(name).type) for name in names])
        try:
            yield from self._backend.fetch(connection, query, schema, _ROWS_PER_FETCH)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(
                f"table {table.name} of the warehouse holds a value that is not of its column's type"
            ) from error

    def utc_now(self, connection: sa.Connection) -> datetime:
        """Return the database server's clock (an embedded one's is the machine's): aware UTC, whole milliseconds."""
        now = self._backend.utc_now(connection)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    @contextmanager
    def _connected(self, *, read_only: bool) -> Iterator[sa.Connection]:
        is_open = False
        try:
            with self._backend.connect(read_only=read_only) as connection:
                is_open = self._has_answered = True
                yield connection
        except sa.exc.TimeoutError as error:
            raise BusyError(f"the {self._backend.label} {BUSY.hint}") from error
        except sa.exc.DBAPIError as error:
            raise self._explained(error.orig or error, is_open) from error
        except self._backend.driver_error as error:
            # The bulk paths talk to the driver itself.
            raise self._explained(error, is_open) from error

    def _explained(self, error: BaseException, is_open: bool) -> CallHistoryError:
        """Return what to raise for a driver's ``error``, whose own words may hold a row's values."""
        failure = self._backend.failure(error)
        is_held = failure is not None and failure.kind is BusyError and (failure is not LOST or self._has_answered)
        if not is_open and not is_held:
            reason = self._backend.reason(error)
            return StorageError(f"cannot open the {self._backend.label}: {reason} ({self._setting})")
        code = self._backend.code(error)
        if failure is None:
            return StorageError(f"the {self._backend.label} refuses a statement ({code})")
        return failure.kind(f"the {self._backend.label} {failure.hint} ({code})")
