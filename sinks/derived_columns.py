"""Columns that follow from others, given to what an earlier version has written without them.

No call counts as changed by it: ``row_hash`` does not cover them, and ``updated_at`` stays as it is.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import sqlalchemy as sa

from sinks.parquet import Lake, LakeWriter
from sinks.raw import raw_folder
from sinks.scratch import scratch_folder
from sinks.staged_tables import temporary_table
from sinks.warehouse import Warehouse
from transforms.local_time import with_derived_columns
from transforms.schema import CALL_VERSIONS, CALLS, PARTITION_COLUMN, Table

_log = logging.getLogger("callhistory.lake")


def fill_warehouse(warehouse: Warehouse, zone: ZoneInfo) -> None:
    """Fill in the derived columns of all calls and versions that have none, a local day in a transaction.

    Cut off at any point, it goes on when it is called again. Raises as ``Warehouse.transaction``.
    """
    for table in (CALLS, CALL_VERSIONS):
        for call_date in _dates_without(warehouse, table):
            with warehouse.transaction() as connection:
                _fill_day(warehouse, connection, table, call_date, zone)


def fill_lake(lake: Lake) -> int:
    """Write those files of calls anew that lack a derived column; return how many.

    Each file is swapped in as an export does it. Cut off at any point, it goes on when it is called again. A file that
    cannot be read stays as it is, and the log names it. Raises ``StorageError``.
    """
    days = [day for day in lake.call_dates(CALLS) if lake.lacks_columns(CALLS, day)]
    return sum(_fill_file(lake, day) for day in days)


def _fill_file(lake: Lake, call_date: date) -> bool:
    with ExitStack() as stack:
        # Under the lock, nobody publishes this day between reading the file and swapping it.
        stack.enter_context(lake.storage.locked(raw_folder(call_date)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_folder())))
        writer = stack.enter_context(LakeWriter.taking_over(lake, CALLS, call_date, folder))
        try:
            writer.finish()
        except (OSError, KeyError, ValueError):  # what Arrow raises on a file that is damaged
            _log.warning(
                "%s is damaged, and stays as it is: callhistory replay rebuilds it", lake.file_name(CALLS, call_date)
            )
            return False
        return writer.publish()


def _is_empty(table: sa.Table) -> sa.ColumnElement[bool]:
    return sa.or_(*(table.c[name].is_(None) for name in CALLS.derived_columns))


def _dates_without(warehouse: Warehouse, table: Table) -> Sequence[date]:
    t = warehouse.tables[table.name]
    with warehouse.reading() as connection:
        query = sa.select(t.c[PARTITION_COLUMN]).where(_is_empty(t)).distinct().order_by(t.c[PARTITION_COLUMN])
        return connection.execute(query).scalars().all()


def _fill_day(warehouse: Warehouse, connection: sa.Connection, table: Table, call_date: date, zone: ZoneInfo) -> None:
    t, backend = warehouse.tables[table.name], warehouse.backend
    names = [*table.key, *CALLS.derived_columns]
    filled = temporary_table("derived_columns", sa.MetaData(), (table[name] for name in names))
    backend.drop_leftover(connection, filled)
    backend.create_table(connection, filled)
    query = sa.select(*(t.c[name] for name in table.key), t.c.started_at)
    rows = list(warehouse.fetch(connection, table, query.where(t.c[PARTITION_COLUMN] == call_date, _is_empty(t))))
    backend.load(connection, filled, with_derived_columns(pa.concat_tables(rows), zone).select(names))
    backend.loaded(connection, filled)
    same_row = [t.c[name] == filled.c[name] for name in table.key]
    connection.execute(sa.update(t).values({name: filled.c[name] for name in CALLS.derived_columns}).where(*same_row))
    backend.drop_temporary(connection, filled)
