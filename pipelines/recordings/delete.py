"""Deleting recordings at the source: only what is archived, was read back a moment ago, and is under no legal hold.

Cut off anywhere, nothing is lost. Before the request, a recording is archived as before. After it, the row may still
say ``archived``: the next run reads it back and asks again, and hears that there is no such recording any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from pipelines.context import Stores, open_archive, utc_now
from pipelines.recordings.verify import Finding, by_content
from pipelines.stringeex.download import RecordingNotFoundError
from pipelines.stringeex.operations import StringeeX
from pipelines.windows import local_date
from sinks.archive import Archive
from sinks.recordings import KeptRecording, Recordings, RecordingStatus
from transforms.errors import ApiError, RetryableError

GIVE_UP_AFTER_FAILURES = 5
_GONE = frozenset({404, 410})


@dataclass(frozen=True)
class DeletionPlan:
    """What would be deleted at the source: archived recordings of calls that started before an instant.

    Those ``under_legal_hold`` stay, and so do those that are ``doubtful``, until somebody names them one by one.
    """

    started_before: datetime
    recordings: int
    bytes: int
    first_date: date | None
    last_date: date | None
    under_legal_hold: int
    doubtful: int
    hours: float

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        return {
            "started_before": self.started_before.isoformat(),
            "recordings": self.recordings,
            "bytes": self.bytes,
            "first_date": self.first_date and self.first_date.isoformat(),
            "last_date": self.last_date and self.last_date.isoformat(),
            "under_legal_hold": self.under_legal_hold,
            "doubtful": self.doubtful,
            "hours": self.hours,
        }


@dataclass
class Deletion:
    """What was deleted at the source (``already_gone``: it had been before), and why something was not."""

    deleted: int = 0
    already_gone: int = 0
    refused: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the deletion as JSON can hold it."""
        return {"deleted": self.deleted, "already_gone": self.already_gone, "not_deleted": list(self.refused)}


def plan_deletion(stores: Stores, older_than: timedelta, now: datetime) -> DeletionPlan:
    """Return what is archived, older than ``older_than`` at ``now``, under no legal hold, and not doubtful."""
    recordings = Recordings(stores.warehouse)
    started_before = now - older_than
    count = size = 0
    first: datetime | None = None
    last: datetime | None = None
    for kept in recordings.deletable(started_before):
        count, size = count + 1, size + kept.bytes
        if kept.started_at is not None:
            first = min(first or kept.started_at, kept.started_at)
            last = max(last or kept.started_at, kept.started_at)
    per_hour = stores.settings.requests_per_hour
    return DeletionPlan(
        started_before=started_before,
        recordings=count,
        bytes=size,
        first_date=local_date(first, stores.timezone) if first else None,
        last_date=local_date(last, stores.timezone) if last else None,
        under_legal_hold=recordings.count_held(),
        doubtful=recordings.count_doubtful_deletable(started_before),
        hours=round(count / per_hour, 2) if per_hour else 0.0,
    )


def delete_planned(
    stores: Stores,
    api: StringeeX,
    plan: DeletionPlan,
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    now: Callable[[], datetime] = utc_now,
) -> Deletion:
    """Delete what ``plan`` covers and is still deletable when its turn comes; see `delete_kept`."""
    kept = Recordings(stores.warehouse).deletable(plan.started_before)
    return delete_kept(stores, api, kept, on_progress=on_progress, now=now)


def delete_kept(
    stores: Stores,
    api: StringeeX,
    kept: Iterable[KeptRecording],
    *,
    on_progress: Callable[[int], None] = lambda _: None,
    now: Callable[[], datetime] = utc_now,
) -> Deletion:
    """Delete recordings at the source, one after the other, each read back from the archive just before.

    A recording that cannot be read back, or is under legal hold by then, is left and told of. Each request is sent
    once; one that got no answer is told of, too. Raises AuthenticationError, StorageError, and the last RetryableError
    of several in a row; SettingsError when the archive is not the one of this warehouse.
    """
    recordings, archive = Recordings(stores.warehouse), open_archive(stores, only_look=True)
    deletion, unanswered = Deletion(), 0
    for done, recording in enumerate(kept, start=1):
        problem = _unsafe(recordings, archive, recording, now)
        if problem is None:
            try:
                is_new = _delete_at_source(recordings, archive, api, recording.call_id)
            except (ApiError, RetryableError) as error:
                problem = str(error)
                unanswered = unanswered + 1 if isinstance(error, RetryableError) else 0
                if unanswered >= GIVE_UP_AFTER_FAILURES:
                    raise
            else:
                recordings.save({recording.call_id: _deleted(now())})
                deletion.deleted += is_new
                deletion.already_gone += not is_new
                unanswered = 0
        if problem is not None:
            deletion.refused.append(f"{recording.archive_path}: {problem}")
        on_progress(done)
    return deletion


def delete_without_copy(stores: Stores, api: StringeeX, call_id: str, now: datetime) -> Deletion:
    """Delete one recording at the source that is not in the archive; a legal hold is respected all the same."""
    recordings = Recordings(stores.warehouse)
    if recordings.is_held(call_id):
        return Deletion(refused=["the recording is under legal hold"])
    archive = open_archive(stores, only_look=True)
    is_new = _delete_at_source(recordings, archive, api, call_id)
    recordings.save({call_id: _deleted(now)})
    return Deletion(deleted=int(is_new), already_gone=int(not is_new))


def _unsafe(
    recordings: Recordings, archive: Archive, recording: KeptRecording, now: Callable[[], datetime]
) -> str | None:
    """Return why a recording must not be deleted at the source; null when it has just been read back and is right."""
    finding = by_content(archive, recording)
    if finding is not Finding.RIGHT:
        problem = f"the archived copy is {finding.value}, so the one at the source is left"
        recordings.save({recording.call_id: {"last_error": problem}})
        return problem
    if not recordings.confirm_deletable(recording.call_id, now()):
        return "the recording is under legal hold, or not archived any more"
    return None


def _delete_at_source(recordings: Recordings, archive: Archive, api: StringeeX, call_id: str) -> bool:
    """Send the request; return false when the provider has no such recording any more.

    A 404 alone does not show that: the operation itself may be elsewhere. So the recording is asked for.
    """
    try:
        api.delete_recording(call_id)
    except ApiError as error:
        if error.status not in _GONE:
            raise
        try:
            with archive.incoming() as file:
                api.download_recording(call_id, file, recordings.record_path(call_id))
        except RecordingNotFoundError:
            return False
        raise
    return True


def _deleted(now: datetime) -> dict[str, object]:
    return {"status": RecordingStatus.DELETED_AT_SOURCE.value, "source_deleted_at": now, "next_attempt_at": None}
