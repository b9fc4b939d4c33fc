"""A window of calls for the warehouse tests: its rows, how they get in, and what SQL reads back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from sinks.merge import StagedWindow
from sinks.staged_tables import STAGED_COLUMNS
from sinks.warehouse import Warehouse
from sinks.window_changes import Changes
from sinks.window_rows import WindowCounts
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, TABLES, Table

Row = dict[str, Any]

START = datetime(2024, 2, 29, 17, tzinfo=UTC)
END = START + timedelta(days=1)
NOW = datetime(2024, 3, 2, 1, 2, 3, 456000, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
MILLISECOND = timedelta(milliseconds=1)

NOTHING = Changes(inserted=0, updated=0, restored=0, vanished=0, unchanged=0, rejects_added=0, rejects_removed=0)


def call(call_id: str, started_at: datetime = START, **values: Any) -> Row:
    """A call with the columns that may not be null, ``values``, and the hash of all of it."""
    row: Row = dict.fromkeys(STAGED_COLUMNS["calls"])
    row |= {"call_id": call_id, "started_at": started_at, "call_date": started_at.date(), "call_hour": started_at.hour}
    row |= {"started_at_local": started_at.replace(tzinfo=None)}
    row |= {"direction": "inbound", "status": "answered", "channel": "voice", "participant_count": 0} | values
    row["row_hash"] = hashlib.blake2b(repr(row).encode("utf-8", "replace"), digest_size=16).hexdigest()
    return row


def participant(call_id: str, position: int, name: str | None = "user_1", started_at: datetime = START) -> Row:
    return {
        "call_id": call_id,
        "position": position,
        "participant": name,
        "kind": "user",
        "number_e164": None,
        "raw": f'"{name}"',
        "started_at": started_at,
        "call_date": started_at.date(),
    }


def reject(reject_id: str, window_start: datetime = START, payload: str = "{}") -> Row:
    return {
        "window_start": window_start,
        "reject_id": reject_id,
        "reason": "missing_id",
        "field": "id",
        "call_id": None,
        "payload": payload,
        "call_date": window_start.date(),
    }


def batch(table: Table, rows: Iterable[Row]) -> pa.Table:
    names = STAGED_COLUMNS[table.name]
    schema = pa.schema([table.arrow_schema.field(name).with_nullable(True) for name in names])
    return pa.Table.from_pylist(list(rows), schema)


def publish(
    warehouse: Warehouse,
    calls: Iterable[Row] = (),
    participants: Iterable[Row] = (),
    rejects: Iterable[Row] = (),
    *,
    now: datetime = NOW,
    window: tuple[datetime, datetime] = (START, END),
) -> tuple[Changes, WindowCounts]:
    with warehouse.transaction() as connection, StagedWindow(warehouse, connection) as staged:
        for table, rows in ((CALLS, calls), (CALL_PARTICIPANTS, participants), (REJECTED_ROWS, rejects)):
            staged.add(table, batch(table, rows))
        staged.compare(*window)
        return staged.replace(now), staged.counts(*window)


def read(warehouse: Warehouse, table: Table) -> list[Row]:
    """All rows and columns of a table, in the order of its key."""
    columns = warehouse.tables[table.name]
    with warehouse.reading() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(columns)).mappings()]
    return sorted(rows, key=lambda row: tuple(row[name] for name in table.key))


def snapshot(warehouse: Warehouse) -> Mapping[str, list[Row]]:
    return {table.name: read(warehouse, table) for table in TABLES}


AWKWARD = [
    "",
    " ",
    "trailing  ",
    "  leading",
    "Nguyễn Thị Ánh",
    "e\u0301 is not é",
    "👩‍👩‍👧‍👦 🇻🇳",
    "back\\slash \\n \\t \\\\ \\",
    "tab\tnewline\nreturn\rboth\r\n",
    "\n\\.\n",
    "\\.",
    "\\N",
    "\\\\N",
    "NULL",
    "null",
    "'single' \"double\" `back` ''",
    '","',
    "100%s %(x)s :name $1 ?",
    "\x01\x08\x0b\x0c\x1a\x1b\x7f\x85\u2028\ufeff\uffff",
    "a" * 70_000 + "é",
    "\t\\\n" * 100_000,
]
