"""Audio that is older than ``CALLHISTORY_RETENTION_RECORDINGS`` goes from the archive; the rows that tell of it stay.

Cut off anywhere, a row may still say ``archived`` of a file that is gone: the next run takes it up again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pipelines.context import Stores
from pipelines.windows import local_date
from sinks.archive import Archive
from sinks.recordings import Recordings

_ROWS_AT_ONCE = 200


@dataclass(frozen=True)
class Expiry:
    """What has been kept for long enough, of calls that started before an instant.

    ``recordings`` are in the archive. ``not_fetched`` are not, and are not fetched any more. Those ``under_legal_hold``
    stay.
    """

    started_before: datetime
    recordings: int
    bytes: int
    first_date: date | None
    last_date: date | None
    not_fetched: int
    under_legal_hold: int

    def to_dict(self) -> dict[str, Any]:
        """Return the expiry as JSON can hold it."""
        return {
            "started_before": self.started_before.isoformat(),
            "recordings": self.recordings,
            "bytes": self.bytes,
            "first_date": self.first_date and self.first_date.isoformat(),
            "last_date": self.last_date and self.last_date.isoformat(),
            "not_fetched": self.not_fetched,
            "under_legal_hold": self.under_legal_hold,
        }


def plan_expiry(stores: Stores, retention: timedelta, now: datetime) -> Expiry:
    """Return what is older than ``retention`` at ``now``; nothing is changed."""
    recordings, started_before = Recordings(stores.warehouse), now - retention
    count = size = 0
    dates: set[date] = set()
    for kept in recordings.expirable(started_before):
        count, size = count + 1, size + kept.bytes
        if kept.started_at is not None:
            dates.add(local_date(kept.started_at, stores.timezone))
    return Expiry(
        started_before=started_before,
        recordings=count,
        bytes=size,
        first_date=min(dates, default=None),
        last_date=max(dates, default=None),
        not_fetched=recordings.count_wanted(started_before),
        under_legal_hold=recordings.count_held(),
    )


def expire_recordings(
    stores: Stores,
    archive: Archive,
    started_before: datetime,
    now: datetime,
    on_progress: Callable[[int], None] = lambda _: None,
) -> int:
    """Delete the audio of calls that started before an instant, and what lies beside it; return of how many.

    What is under legal hold stays. What was not fetched yet is not fetched any more. The caller is the only writer of
    ``archive``. Raises ``StorageError``.
    """
    recordings = Recordings(stores.warehouse)
    recordings.expire_wanted(started_before, now)
    done: list[str] = []
    count = 0
    for kept in recordings.expirable(started_before):
        if recordings.is_held(kept.call_id):
            continue
        archive.remove(kept.archive_path)
        done.append(kept.call_id)
        count += 1
        if len(done) == _ROWS_AT_ONCE:
            recordings.expire(done, now)
            on_progress(count)
            done = []
    recordings.expire(done, now)
    return count
