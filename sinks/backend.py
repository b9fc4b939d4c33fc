"""What the warehouse asks of a database, and what most databases answer; ``dialects`` says where they differ."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa

from transforms.databases import DATABASES
from transforms.errors import BusyError, CallHistoryError, CollisionError, DataError, StorageError

_CONNECT_TIMEOUT_SECONDS = 10
_SECRET_OPTION = re.compile("pass|secret|token|key", re.IGNORECASE)


@dataclass(frozen=True)
class Failure:
    """What a database's error means: the class to raise, and how the sentence about the database goes on."""

    kind: type[CallHistoryError]
    hint: str


BUSY = Failure(BusyError, "is busy: another process holds what this one needs; try again later")
LOST = Failure(BusyError, "closed the connection: it is restarting, or the network failed; try again later")
COLLIDED = Failure(CollisionError, "took the same row from another run at the same moment; try again")
FULL = Failure(StorageError, "has no space left: free some disk space")
READ_ONLY = Failure(StorageError, "is read-only: allow this user to write there")
DENIED = Failure(StorageError, "refuses: grant this user the right to create tables and to write them")
UNUSABLE = Failure(StorageError, "cannot be read or written: look at the file, its folder and the disk")
TOO_LARGE = Failure(StorageError, "refuses a row of this size: raise max_allowed_packet")
OUT_OF_MEMORY = Failure(
    StorageError,
    "needs more memory: set a smaller CALLHISTORY_WINDOW, or add ?memory_limit=1GB to CALLHISTORY_WAREHOUSE_URL",
)
MISFIT = Failure(DataError, "refuses a row: a value is missing, doubled, or does not fit its column")


def in_full(connection: sa.Connection, query: sa.SelectBase) -> str:
    """Return ``query`` as text without parameters, for what talks to the driver itself."""
    options = {"literal_binds": True, "render_postcompile": True}
    statement = str(query.compile(dialect=connection.dialect, compile_kwargs=options))
    return statement.replace("%%", "%") if connection.dialect.paramstyle in ("format", "pyformat") else statement


class Backend(ABC):
    """One database, reached by one URL; subclasses say what is special about theirs."""

    has_schemas: ClassVar[bool] = False
    columns_query: ClassVar[str]
    """Gives a row for each column: its table's or view's name in ``:schema``, and its own."""
    bytes_per_call: ClassVar[int]
    """About what a call takes in the database, with its participants and indexes: seen with 20,000 simulated ones."""

    def __init__(self, url: sa.URL, busy_timeout_seconds: float) -> None:
        self.url = url
        self.busy_timeout_seconds = busy_timeout_seconds
        self.engine = sa.create_engine(url, hide_parameters=True, **self.engine_options())
        # Before SQLAlchemy asks the session how text and names are quoted in it.
        sa.event.listen(self.engine, "connect", self._set_up_or_close, insert=True)

    def _set_up_or_close(self, connection: Any, _: object) -> None:
        try:
            self.set_up_session(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the idle connections; the next use opens new ones."""
        self.engine.dispose()

    @property
    def is_embedded(self) -> bool:
        """Whether the database is a file that this process opens."""
        return DATABASES[self.url.get_backend_name()].is_file

    @property
    def label(self) -> str:
        """How messages name the database: its address, never its user's password or its options."""
        if self.is_embedded:
            return f"{self.url.get_backend_name()} database {self.url.database}"
        host = self.url.host or "localhost"
        return f"{self.url.get_backend_name()} database {self.url.database} at {host}"

    def engine_options(self) -> dict[str, Any]:
        """Keyword arguments of ``sqlalchemy.create_engine``."""
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_TIMEOUT_SECONDS}}

    def set_up_session(self, connection: Any) -> None:
        """Prepare a new driver-level ``connection``, so that a statement means the same on every server.

        Raises ``StorageError`` for a database that cannot hold every text.
        """

    @contextmanager
    def connect(self, *, read_only: bool) -> Iterator[sa.Connection]:
        """Open a connection, outside of any transaction."""
        with self.engine.connect() as connection:
            if read_only:
                connection = connection.execution_options(**self.read_only_options)
            yield connection

    read_only_options: ClassVar[dict[str, Any]] = {}

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keep open, between the transactions of this thread, what takes long to open: see `Warehouse.kept_open`."""
        yield

    def is_there(self) -> bool:
        """Whether the database exists; of a server that is not asked here."""
        return True

    def create_storage(self) -> None:
        """Create what has to be there before a first connection."""

    def require_schema(self, connection: sa.Connection) -> None:
        """Raise ``StorageError`` where the database's own default is no schema that tables can stay in."""

    @contextmanager
    def schema_lock(self, connection: sa.Connection) -> Iterator[None]:
        """Keep other processes from preparing the same tables; ``connection`` is in a transaction."""
        yield

    def columns(self, connection: sa.Connection, schema: str | None) -> dict[str, set[str]]:
        """Names of the columns of each table in ``schema``, or in the usual one; of a view at least one name."""
        found: dict[str, set[str]] = {}
        for table, column in connection.execute(sa.text(self.columns_query), {"schema": schema}).tuples():
            found.setdefault(table, set()).add(column)
        return found

    def has_table(self, connection: sa.Connection, table: sa.Table) -> bool:
        """Whether the database has ``table``."""
        return table.name in self.columns(connection, table.schema)

    def create_indexes(self, connection: sa.Connection, table: sa.Table) -> None:
        """Create the indexes of an existing ``table`` that are missing."""
        for index in table.indexes:
            index.create(connection, checkfirst=True)

    def create_table(self, connection: sa.Connection, table: sa.Table) -> None:
        """Create ``table``, which is not there, with its comments and indexes."""
        table.create(connection, checkfirst=False)

    def drop_leftover(self, connection: sa.Connection, table: sa.Table) -> None:
        """Drop a temporary ``table`` that a rolled-back transaction may have left on this connection."""

    def drop_temporary(self, connection: sa.Connection, table: sa.Table) -> None:
        """Drop a temporary ``table``."""
        table.drop(connection, checkfirst=False)

    @abstractmethod
    def load(self, connection: sa.Connection, table: sa.Table, batch: pa.Table) -> None:
        """Append ``batch``, whose columns are ``table``'s by name, by the fastest way this database has."""

    def fetch(
        self, connection: sa.Connection, query: sa.Select[Any], schema: pa.Schema, batch_rows: int
    ) -> Iterator[pa.Table]:
        """Yield the rows of ``query`` as tables of ``schema``, about ``batch_rows`` each, by the fastest way there is.

        Raises ``TypeError``, ``ValueError`` or ``OverflowError`` for a value that is not of its column's type.
        """
        with connection.execute(query, execution_options={"yield_per": batch_rows}) as result:
            for rows in result.partitions():
                columns = zip(*rows, strict=True)
                yield pa.table([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)

    def loaded(self, connection: sa.Connection, table: sa.Table) -> None:
        """Tell the database's planner that ``table`` has been filled."""

    def delete_matching(self, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.Delete:
        """Return a DELETE of ``table``'s rows that meet ``conditions``, which join it to other tables."""
        return sa.delete(table).where(*conditions)

    def utc_now(self, connection: sa.Connection) -> datetime:
        """Return the machine's clock: an embedded database has no other."""
        return datetime.now(UTC)

    @abstractmethod
    def failure(self, error: BaseException) -> Failure | None:
        """Say what a driver's ``error`` means, by its class or code; ``None`` for what has no other meaning."""

    @property
    def driver_error(self) -> type[Exception]:
        """The root of the driver's own exceptions."""
        dbapi: Any = self.engine.dialect.loaded_dbapi
        root: type[Exception] = dbapi.Error
        return root

    def reason(self, error: BaseException) -> str:
        """Return, on one line and without the password, the driver's words on why it could not connect."""
        words = " ".join(str(error.args[-1] if error.args else error).split())
        options = [value for name, value in self.url.query.items() if _SECRET_OPTION.search(name)]
        for secret in (self.url.password, *options):
            if isinstance(secret, str) and secret:
                words = words.replace(secret, "***")
        return words

    def code(self, error: BaseException) -> str:
        """Return the driver's name for ``error``: its class, and its code where it has one."""
        return type(error).__name__
