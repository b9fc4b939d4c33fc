"""What a table and a column are: the forms in which `transforms.schema` declares them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from transforms.types import DATE, TEXT, LogicalType

if TYPE_CHECKING:
    import pandas as pd

CALL_ID_MAX_LENGTH = 512
"""Characters. MariaDB and MySQL bound a key to 3,072 bytes, which is 768 characters of four bytes."""
PARTITION_COLUMN = "call_date"
UNKNOWN = "unknown"
"""The word for what was not served, or is not documented, in columns of words."""


class Pii(StrEnum):
    """What a column tells about a person, if anything."""

    NONE = "none"
    PHONE = "phone"
    NAME = "name"
    EMAIL = "email"
    IDENTIFIER = "identifier"
    LINE = "line"
    """A line of the company, or instead a user's id."""
    PAYLOAD = "payload"


class Role(StrEnum):
    """Where a column's value comes from; only ``SOURCE`` columns decide whether a row has changed.

    ``DERIVED`` ones follow from those, whatever the source says.
    """

    SOURCE = "source"
    DERIVED = "derived"
    BOOKKEEPING = "bookkeeping"


@dataclass(frozen=True)
class Column:
    """One column of one table.

    ``source`` names the API's field (or fields) that it is made of; ``unit`` is empty for what has none;
    ``max_length`` counts characters and is set where a database needs a bound for a key or an index. ``needed`` is what
    every call has. ``unknown`` is the word that stands in a column without nulls where nothing is known.
    ``example`` is a value as text; every column of text has one.
    ``hashed_when_set`` is for a source column that is newer than the calls it is added to: it enters ``row_hash`` only
    where it has a value, so that a call without one keeps its hash.
    """

    name: str
    type: LogicalType
    description: str
    source: str = ""
    unit: str = ""
    nullable: bool = True
    key: bool = False
    pii: Pii = Pii.NONE
    role: Role = Role.SOURCE
    max_length: int | None = None
    index: bool = False
    needed: bool = False
    unknown: str | None = None
    hashed_when_set: bool = False
    example: str = ""

    @property
    def may_be_unknown(self) -> bool:
        """Whether a row can be without a value here."""
        return self.nullable or self.unknown is not None

    @property
    def lake_field(self) -> pa.Field[Any]:
        """The Arrow field of a Parquet file, with its description, unit and class of personal data."""
        told = {"description": self.description, "unit": self.unit, "personal_data": self.pii.value}
        return pa.field(self.name, self.type.arrow, self.nullable, metadata={k: v for k, v in told.items() if v})

    def sql_column(self) -> sa.Column[object]:
        """Return a fresh SQLAlchemy column; nothing here sets a default, so that a row is what was written."""
        return sa.Column(
            self.name,
            self.type.sql(self.max_length),
            primary_key=self.key,
            nullable=self.nullable and not self.key,
            autoincrement=False,
            comment=self.description,
        )


@dataclass(frozen=True)
class Table:
    """One table of the warehouse; ``partitioned`` ones are also Parquet files of the lake, by ``call_date``.

    ``indexes`` are those over several columns.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    partitioned: bool = False
    indexes: tuple[tuple[str, ...], ...] = ()
    _by_name: dict[str, Column] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update({column.name: column for column in self.columns})
        if len(self._by_name) != len(self.columns):
            raise ValueError(f"table {self.name} declares a column twice")

    def __getitem__(self, name: str) -> Column:
        return self._by_name[name]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in declared order, which is the order everywhere."""
        return tuple(self._by_name)

    @property
    def key(self) -> tuple[str, ...]:
        """Names of the key's columns."""
        return tuple(column.name for column in self.columns if column.key)

    @property
    def value_columns(self) -> tuple[str, ...]:
        """Names of the columns whose values follow from what the API serves."""
        return self._of(Role.SOURCE, Role.DERIVED)

    @property
    def hashed_columns(self) -> tuple[str, ...]:
        """Names of the columns that say what the API serves: a row has changed when one of these has."""
        return self._of(Role.SOURCE)

    @property
    def derived_columns(self) -> tuple[str, ...]:
        """Names of the columns that follow from the hashed ones."""
        return self._of(Role.DERIVED)

    def _of(self, *roles: Role) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.role in roles)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The Arrow schema of the whole table."""
        return pa.schema([pa.field(column.name, column.type.arrow, column.nullable) for column in self.columns])

    @cached_property
    def lake_schema(self) -> pa.Schema:
        """The schema inside a Parquet file: all but ``call_date``, which the folder's name carries.

        Spark, BigQuery and pandas refuse a file that repeats its partition column. Each field says what it is.
        """
        return pa.schema([column.lake_field for column in self.columns if column.name != PARTITION_COLUMN])

    @property
    def pandas_dtypes(self) -> dict[str, pd.ArrowDtype]:
        """Column name to pandas dtype."""
        return {column.name: column.type.pandas for column in self.columns}

    def sql_table(self, metadata: sa.MetaData, name: str | None = None, **options: object) -> sa.Table:
        """Return the table in ``metadata``, under another ``name`` if given; ``options`` go to SQLAlchemy."""
        name = name or self.name
        indexed = [*((c.name,) for c in self.columns if c.index), *self.indexes]
        indexes = [sa.Index(f"ix_{name}_{'_'.join(names)}", *names) for names in indexed]
        columns = [column.sql_column() for column in self.columns]
        return sa.Table(name, metadata, *columns, *indexes, comment=self.description, **options)  # type: ignore[arg-type]


def bookkeeping(name: str, type_: LogicalType, description: str, **options: object) -> Column:
    """Return a column whose values this package decides; ``options`` are the other fields of `Column`."""
    return Column(name, type_, description, role=Role.BOOKKEEPING, **options)  # type: ignore[arg-type]


CALL_ID = Column(
    "call_id",
    TEXT,
    "The call's id at the provider.",
    "id",
    nullable=False,
    key=True,
    max_length=CALL_ID_MAX_LENGTH,
    needed=True,
    example="call-vn-1-ABCDEFGHIJ-1767600000000",
)

CALL_DATE = Column(
    PARTITION_COLUMN, DATE, "Local day on which the call started.", source="start_time", nullable=False, index=True
)
