"""A look at the calls in progress, kept in the warehouse on demand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pipelines.context import Stores, utc_now
from pipelines.stringeex.operations import StringeeX
from sinks.live_calls import store_snapshot
from transforms.live_calls import LiveCall


@dataclass(frozen=True)
class Snapshot:
    """The calls in progress at an instant; see `RealtimeCalls` for the counts."""

    taken_at: datetime
    calls: tuple[LiveCall, ...]
    api_total: int | None
    unreadable: int
    is_stored: bool


def take_snapshot(api: StringeeX, stores: Stores | None = None) -> Snapshot:
    """Ask for the calls in progress; with ``stores``, write them to ``live_calls`` as the newest snapshot."""
    found = api.realtime_calls()
    taken_at = utc_now()
    if stores is not None:
        store_snapshot(stores.warehouse, taken_at, found.calls)
    return Snapshot(taken_at, found.calls, found.api_total, found.unreadable, stores is not None)
