"""Raw copies that are older than ``CALLHISTORY_RETENTION_RAW`` go; tables and certificates stay.

What was served cannot be made anew from there then: a difference that ``verify`` finds on such a day needs a backup, or
the API while it still has the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, datetime

from pipelines.context import Stores
from pipelines.logs import logger
from pipelines.windows import Window, day_bounds
from sinks.ledger import LedgerRow, WindowStatus
from sinks.raw import believed_states, raw_dates, raw_files, raw_folder


def expire_raw(stores: Stores, now: datetime) -> int:
    """Delete the raw copies of days that are old enough, and return how many files went.

    A day stays while it is not proven complete as a whole, for its raw copy may be all there is; and while a run is at
    work on it. Raises ``StorageError``.
    """
    storage, removed = stores.lake.storage, 0
    for day in _expired_days(stores, now):
        with storage.locked(raw_folder(day)):
            for file in raw_files(storage, day):
                removed += storage.remove(file.name)
    if removed:
        logger.info("%d raw copies were kept for long enough, and deleted", removed)
    return removed


def is_raw_expired(stores: Stores, window: Window, now: datetime) -> bool:
    """Whether the raw copy of a window has been kept for long enough, and is gone."""
    if not _is_old(stores, window.call_date, now):
        return False
    return not believed_states(stores.lake.storage, window.call_date, window.start, window.end)


def _is_old(stores: Stores, day: date, now: datetime) -> bool:
    retention = stores.settings.retention_raw
    return retention is not None and day_bounds(day, stores.timezone)[1] + retention < now


def _expired_days(stores: Stores, now: datetime) -> Iterator[date]:
    if stores.settings.retention_raw is None:
        return
    rows: dict[date, list[LedgerRow]] = {}
    for row in stores.ledger.rows():
        rows.setdefault(row.call_date, []).append(row)
    for day in sorted(raw_dates(stores.lake.storage)):
        of_day = rows.get(day, [])
        is_proven = bool(of_day) and all(row.status is WindowStatus.COMPLETE for row in of_day)
        is_claimed = any(row.claim_expires_at is not None and row.claim_expires_at > now for row in of_day)
        if _is_old(stores, day, now) and is_proven and not is_claimed:
            yield day
