"""The table ``live_calls``: snapshots of the calls in progress."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from sinks.warehouse import Warehouse
from transforms.live_calls import LiveCall


def store_snapshot(warehouse: Warehouse, snapshot_at: datetime, calls: Sequence[LiveCall]) -> None:
    """Add a snapshot, and mark the one before it as superseded, in one transaction; an empty one does that, too."""
    t = warehouse.tables["live_calls"]
    with warehouse.transaction() as connection:
        connection.execute(sa.update(t).where(t.c.superseded_at.is_(None)).values(superseded_at=snapshot_at))
        if calls:
            connection.execute(
                sa.insert(t), [{**asdict(call), "snapshot_at": snapshot_at, "superseded_at": None} for call in calls]
            )
