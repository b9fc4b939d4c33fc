"""A warehouse's rows into another warehouse, whatever the two databases are, and what proves that they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from sinks.content_hash import content_hash
from sinks.warehouse import VIEW_STATE_PREFIX, Warehouse
from transforms.hashing import text_digests
from transforms.schema import METRIC_PARAMETERS, PIPELINE_STATE, TABLES, Table


@dataclass(frozen=True)
class TableContents:
    """What a table holds: its rows, and a hash of all their values that does not depend on their order."""

    rows: int
    content_hash: str


def copy_tables(source: Warehouse, target: Warehouse, on_rows: Callable[[str, int], None]) -> None:
    """Copy every table of ``source``, as it is at one moment, in one transaction on ``target``, whose tables are empty.

    Memory is bounded by a batch. ``on_rows`` is told each table's name and how many of its rows are copied so far.
    Raises ``DataError`` for a value that a table cannot hold; nothing is in ``target`` then, nor when it is killed.
    """
    with source.snapshot() as from_connection, target.transaction() as to_connection:
        for table in TABLES:
            target_table = target.tables[table.name]
            to_connection.execute(sa.delete(target_table).where(*_portable(target, table)))
            copied = 0
            for batch in source.fetch(from_connection, table, _portable_rows(source, table)):
                target.backend.load(to_connection, target_table, batch)
                copied += batch.num_rows
                on_rows(table.name, copied)
            target.backend.loaded(to_connection, target_table)


def is_in_use(warehouse: Warehouse) -> bool:
    """Whether the warehouse holds anything that was exported."""
    with warehouse.reading() as connection:
        return any(
            connection.scalar(sa.select(sa.literal(1)).select_from(warehouse.tables[table.name]).limit(1)) is not None
            for table in TABLES
            if table not in (PIPELINE_STATE, METRIC_PARAMETERS)
        )


def contents(warehouse: Warehouse) -> dict[str, TableContents]:
    """Count and hash every table, as they are at one moment, in bounded memory."""
    found = {}
    with warehouse.snapshot() as connection:
        for table in TABLES:
            rows = 0

            def digests(batches: Iterator[pa.Table]) -> Iterator[str]:
                nonlocal rows
                for batch in batches:
                    rows += batch.num_rows
                    yield from _digests(batch)

            digest = content_hash(digests(warehouse.fetch(connection, table, _portable_rows(warehouse, table))))
            found[table.name] = TableContents(rows, digest)
    return found


def _portable_rows(warehouse: Warehouse, table: Table) -> sa.Select[tuple[object, ...]]:
    return sa.select(warehouse.tables[table.name]).where(*_portable(warehouse, table))


def _portable(warehouse: Warehouse, table: Table) -> list[sa.ColumnElement[bool]]:
    """Return the condition of the rows that are to be the same on every database: all but which views it has."""
    if table is not PIPELINE_STATE:
        return []
    return [~warehouse.tables[table.name].c.name.startswith(VIEW_STATE_PREFIX)]


def _digests(batch: pa.Table) -> list[str]:
    # A null and an empty text are one in `text_digests`, and must not be here.
    columns = [column.combine_chunks() for column in batch.columns]
    digests: list[Any] = text_digests([*columns, *(column.is_null() for column in columns)]).to_pylist()
    return digests
