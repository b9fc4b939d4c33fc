"""Arrow batches in the forms that databases without an Arrow path load fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

if TYPE_CHECKING:
    _Column = pa.Array[Any]


def plain_columns(batch: pa.RecordBatch) -> list[_Column]:
    """Return ``batch``'s columns with instants (UTC, microsecond digits) and dates as text, booleans as 0 and 1."""

    def plain(column: _Column) -> _Column:
        if pa.types.is_timestamp(column.type):
            # Six digits, as SQLAlchemy writes them: SQLite compares instants as text.
            return column.cast(pa.timestamp("us")).cast(pa.string())
        if pa.types.is_date(column.type):
            return column.cast(pa.string())
        if pa.types.is_boolean(column.type):
            return column.cast(pa.int8())
        return column

    return [plain(column) for column in batch.columns]


def rows_of(batch: pa.RecordBatch) -> list[tuple[Any, ...]]:
    """Return ``batch`` as tuples for a driver that has no bulk path."""
    return list(zip(*(column.to_pylist() for column in plain_columns(batch)), strict=True))


def tab_separated(batch: pa.RecordBatch) -> memoryview:
    r"""Return ``batch`` as lines of tab-separated text, ``\N`` for null.

    Backslash, tab, newline and carriage return are escaped as PostgreSQL's COPY (text format) and MySQL's LOAD DATA
    (``ESCAPED BY '\\'``) both read them; CSV would not do, because PostgreSQL before 18 takes a line that is ``\.``
    for the end of the data even inside quotes.
    """

    def escaped(column: _Column) -> _Column:
        if not pa.types.is_string(column.type):
            return column.cast(pa.large_string())
        text = column.cast(pa.large_string())
        data = text.buffers()[2]
        present = memoryview(data).tobytes() if data is not None else b""
        for character, escape in (("\\", r"\\"), ("\t", r"\t"), ("\n", r"\n"), ("\r", r"\r")):
            if character.encode() in present:
                text = pc.replace_substring(text, character, escape)
        return text

    # Typed loosely: the stubs know neither mixed arguments nor 64-bit strings here.
    join: Any = pc.binary_join_element_wise
    tab, newline, nothing = (pa.scalar(text, pa.large_string()) for text in ("\t", "\n", ""))
    fields = [escaped(column) for column in plain_columns(batch)]
    lines = join(*fields, tab, null_handling="replace", null_replacement=r"\N")
    data = join(lines, nothing, newline).buffers()[2]
    return memoryview(data) if data is not None else memoryview(b"")


def of_schema(batch: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return ``batch``, whose instants and dates may be text, instants in UTC without a zone, and booleans 0 and 1.

    Raises ``ValueError`` for a value that is not of its column's type.
    """

    def typed(column: pa.ChunkedArray[Any], wanted: pa.DataType) -> pa.ChunkedArray[Any]:
        if pa.types.is_timestamp(wanted) and pa.types.is_string(column.type):
            column = column.cast(pa.timestamp("us"))
        if pa.types.is_timestamp(column.type):
            # Microseconds are cut off, as they are by every way into Arrow.
            return column.cast(wanted, safe=False)
        return column.cast(wanted)

    return pa.table([typed(c, f.type) for c, f in zip(batch.columns, schema, strict=True)], schema=schema)


def from_csv(lines: bytes, schema: pa.Schema, instant: pa.DataType) -> pa.Table:
    """Return the rows that ``lines``, each with its end, hold as CSV: an empty field is null, an empty text is quoted.

    ``instant`` is the type that the database's instants are written in; local times have no zone. Raises
    ``ValueError`` for a value that is not of its column's type.
    """

    def written(wanted: pa.DataType) -> pa.DataType:
        if not pa.types.is_timestamp(wanted):
            return wanted
        return pa.timestamp("us") if wanted.tz is None else instant

    file: Any = pa.BufferReader(lines)  # The stubs know no files of Arrow's own.
    rows = csv.read_csv(
        file,
        csv.ReadOptions(column_names=schema.names, block_size=max(1, len(lines)), use_threads=False),
        csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types={f.name: written(f.type) for f in schema},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t", "1"],
            false_values=["f", "0"],
        ),
    )
    return of_schema(rows, schema)
