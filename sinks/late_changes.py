"""The table ``late_changes``: what each re-read of a closed window found changed."""

from __future__ import annotations

from datetime import date, datetime, timedelta

import sqlalchemy as sa

from sinks.warehouse import Warehouse
from sinks.window_changes import Changes
from transforms.schema import LATE_CHANGES

_DAY = timedelta(days=1)


def add_late_changes(
    warehouse: Warehouse,
    connection: sa.Connection,
    window_start: datetime,
    window_end: datetime,
    call_date: date,
    changes: Changes,
    *,
    found_at: datetime,
    previous_read_at: datetime,
) -> None:
    """Note what a re-read changed, in the caller's transaction."""
    connection.execute(
        sa.insert(warehouse.tables[LATE_CHANGES.name]).values(
            window_start=window_start,
            found_at=found_at,
            call_date=call_date,
            previous_read_at=previous_read_at,
            age_days=(found_at - window_end) // _DAY,
            previous_age_days=(previous_read_at - window_end) // _DAY,
            inserted=changes.inserted,
            updated=changes.updated,
            restored=changes.restored,
            vanished=changes.vanished,
        )
    )
