"""A look at the calls in progress, kept in the warehouse on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from pipelines.context import Stores, utc_now
from pipelines.stringeex.operations import StringeeX
from sinks.live_calls import store_snapshot
from transforms.live_calls import LiveCall
from transforms.schema import LIVE_CALLS


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
        store_snapshot(stores.warehouse, taken_at, _without_erased(stores, found.calls))
    return Snapshot(taken_at, found.calls, found.api_total, found.unreadable, stores is not None)


def _without_erased(stores: Stores, calls: Sequence[LiveCall]) -> list[LiveCall]:
    """Return the calls as they may be kept: nothing of a person who is erased."""
    erased = stores.erased()
    if erased is None:
        return list(calls)
    return [replace(call, **(erased.columns_without(LIVE_CALLS, _as_row(call)) or {})) for call in calls]


def _as_row(call: LiveCall) -> dict[str, object]:
    return dict.fromkeys(LIVE_CALLS.column_names) | asdict(call)
