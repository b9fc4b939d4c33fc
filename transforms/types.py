"""The logical types of the warehouse and the lake: each one's pandas, Arrow and SQLAlchemy type side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from transforms.databases import DATABASES

if TYPE_CHECKING:
    import pandas as pd

_MYSQL_FAMILY = tuple(database.name for database in DATABASES.values() if database.is_mysql)


class Instant(TypeDecorator[datetime]):
    """A moment: aware UTC in Python; ``TIMESTAMPTZ`` where the database has it, a UTC ``DATETIME`` elsewhere."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the column type of ``dialect``; MariaDB and MySQL need six digits asked for to keep milliseconds."""
        if dialect.name in _MYSQL_FAMILY:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        if dialect.name == "sqlite":
            return dialect.type_descriptor(sa.DateTime())
        return dialect.type_descriptor(sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Send UTC; raises ``ValueError`` on a naive value, whose moment is anybody's guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant needs a time zone")
        value = value.astimezone(UTC)
        return value if DATABASES[dialect.name].keeps_zone else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give back aware UTC, whatever the session's time zone is."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _text(max_length: int | None) -> TypeEngine[Any]:
    """Unbounded text, except where a key or an index needs a bound (MariaDB and MySQL cannot index ``TEXT``)."""
    if max_length is not None:
        return sa.String(max_length)
    return sa.Text().with_variant(mysql.LONGTEXT(), *_MYSQL_FAMILY)


@dataclass(frozen=True)
class LogicalType:
    """One kind of value, and what it is called in each of the three type systems.

    ``sql`` takes the column's ``max_length`` (characters), which only text heeds.
    """

    name: str
    arrow: pa.DataType
    sql: Callable[[int | None], TypeEngine[Any]]

    @property
    def pandas(self) -> pd.ArrowDtype:
        """The nullable pandas dtype; it stores the Arrow type itself, so nothing is converted on the way."""
        import pandas as pd  # takes a third of a second, which most commands do without

        return pd.ArrowDtype(self.arrow)


TEXT = LogicalType("text", pa.string(), _text)
JSON = LogicalType("json", pa.string(), _text)
"""A JSON document as text: one representation that all databases and Parquet give back unchanged."""
INTEGER = LogicalType("integer", pa.int64(), lambda _: sa.BigInteger())
SMALL_INTEGER = LogicalType("small_integer", pa.int32(), lambda _: sa.Integer())
BOOLEAN = LogicalType("boolean", pa.bool_(), lambda _: sa.Boolean())
INSTANT = LogicalType("instant", pa.timestamp("ms", tz="UTC"), lambda _: Instant())
LOCAL_TIME = LogicalType(
    "local_time", pa.timestamp("ms"), lambda _: sa.DateTime().with_variant(mysql.DATETIME(fsp=6), *_MYSQL_FAMILY)
)
"""A wall clock's time: no moment, for it names no zone."""
DATE = LogicalType("date", pa.date32(), lambda _: sa.Date())

LOGICAL_TYPES = (TEXT, JSON, INTEGER, SMALL_INTEGER, BOOLEAN, INSTANT, LOCAL_TIME, DATE)
