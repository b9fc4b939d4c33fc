"""The table ``source_fields``: which fields each window's rows had, and of which JSON types."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import sqlalchemy as sa

from sinks.warehouse import Warehouse
from transforms.field_types import FieldTypes
from transforms.schema import SOURCE_FIELDS


def replace_source_fields(
    warehouse: Warehouse,
    connection: sa.Connection,
    window_start: datetime,
    call_date: date,
    counts: FieldTypes,
    now: datetime,
) -> None:
    """Make the window's rows those of ``counts``, in the caller's transaction; what is equal is not touched."""
    t = warehouse.tables[SOURCE_FIELDS.name]
    in_window = t.c.window_start == window_start
    query = sa.select(t.c.field, t.c.json_type, t.c.row_count).where(in_window)
    held = {(field, json_type): rows for field, json_type, rows in connection.execute(query).tuples()}
    for field, json_type in held.keys() - counts.keys():
        connection.execute(sa.delete(t).where(in_window, t.c.field == field, t.c.json_type == json_type))
    for key in held.keys() & counts.keys():
        if held[key] != counts[key]:
            where = (in_window, t.c.field == key[0], t.c.json_type == key[1])
            connection.execute(sa.update(t).where(*where).values(row_count=counts[key]))
    new = [
        {
            "window_start": window_start,
            "field": field,
            "json_type": json_type,
            "call_date": call_date,
            "row_count": counts[field, json_type],
            "first_seen_at": now,
        }
        for field, json_type in sorted(counts.keys() - held.keys())
    ]
    if new:
        warehouse.backend.load(connection, t, pa.Table.from_pylist(new, schema=SOURCE_FIELDS.arrow_schema))
