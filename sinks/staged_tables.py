"""The temporary tables of one window: what was read, and how it differs from what the warehouse holds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import sqlalchemy as sa

from sinks.row_times import TIMES
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Column, Table
from transforms.types import INSTANT, TEXT

_PREFIX = "callhistory_staged_"

INSERTED, UPDATED, RESTORED, VANISHED = "inserted", "updated", "restored", "vanished"

STAGED_COLUMNS = {
    CALLS.name: (*CALLS.value_columns, "row_hash"),
    CALL_PARTICIPANTS.name: CALL_PARTICIPANTS.column_names,
    REJECTED_ROWS.name: tuple(name for name in REJECTED_ROWS.column_names if name != "first_seen_at"),
}
"""The columns of a batch, by table: all but those that the warehouse fills in itself."""

TIMES_COLUMNS = ("call_id", *TIMES)
"""The columns that ``StagedWindow.times`` answers with."""

DIFFERENCES = Table(
    "differences",
    "Calls that the staged window adds, changes or no longer has.",
    (
        CALLS["call_id"],
        Column("kind", TEXT, "What happens to the call.", nullable=False, max_length=16),
        Column("previous_started_at", INSTANT, "When the call started as the warehouse had it; null for a new one."),
    ),
)


def temporary_table(name: str, metadata: sa.MetaData, columns: Iterable[Column]) -> sa.Table:
    """Return a temporary table of declared columns; no comments, which nobody would read."""
    sql_columns = [column.sql_column() for column in columns]
    for column in sql_columns:
        column.comment = None
    return sa.Table(_PREFIX + name, metadata, *sql_columns, prefixes=["TEMPORARY"])


@cache
def temporary_tables() -> tuple[dict[str, sa.Table], sa.Table]:
    """Return the tables that rows are staged in, by the table they go to, and that of the differences.

    Made once: SQLAlchemy compiles a statement again for every new table object in it.
    """
    metadata = sa.MetaData()
    staged = {
        t.name: temporary_table(t.name, metadata, (t[name] for name in STAGED_COLUMNS[t.name]))
        for t in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS)
    }
    return staged, temporary_table(DIFFERENCES.name, metadata, DIFFERENCES.columns)
