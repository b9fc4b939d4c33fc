"""What becomes of a recording after each attempt: the columns its row gets, and when it is asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sinks.recordings import RecordingStatus, WantedRecording
from transforms.errors import CallHistoryError

ANSWERS_TO_BE_MISSING = 3
"""So many answers "there is no such recording" are believed, when the last comes `MISSING_AFTER` the first or later."""
MISSING_AFTER = timedelta(days=1)
ATTEMPTS_BEFORE_DAMAGED = 2
"""In vain, before audio that is less than its own headers promise is kept as what the provider has."""
DAMAGED_AFTER = timedelta(days=1)
"""Since the call's end: until then it may still be being written at the provider."""
FIRST_BACK_OFF = timedelta(minutes=5)
LONGEST_BACK_OFF = timedelta(days=1)
ERROR_MAX_CHARACTERS = 2_000


def archived(path: str, values: Mapping[str, object], now: datetime) -> dict[str, object]:
    """Return the columns of a recording that is in the archive, with what is known of its audio (``values``)."""
    return {
        **values,
        "status": RecordingStatus.ARCHIVED.value,
        "archive_path": path,
        "archived_at": now,
        "verified_at": None,
        "not_found_count": None,
        "first_not_found_at": None,
        "next_attempt_at": None,
        "last_error": None,
    }


def not_found(
    wanted: WantedRecording, error: CallHistoryError, now: datetime, ages: Sequence[timedelta]
) -> dict[str, object]:
    """Return the columns of one that the provider says is not there.

    It is asked for again when the call reaches the next of ``ages``, and after the last one until the answer can be
    believed, however old the call is: a provider that mislaid its storage for an hour must not cost a recording.
    """
    count, first_at = wanted.not_found_count + 1, wanted.first_not_found_at or now
    later = next((wanted.ended_at + age for age in ages if wanted.ended_at + age > now), None)
    if later is None and (count < ANSWERS_TO_BE_MISSING or now - first_at < MISSING_AFTER):
        # Half the time: a nightly run that begins a little earlier than the last one does not miss a night.
        later = now + MISSING_AFTER / 2
    status = _never_there(wanted) if later is None else RecordingStatus.NOT_READY
    return _in_vain(wanted, status, error, later) | {"not_found_count": count, "first_not_found_at": first_at}


def without_address(wanted: WantedRecording, error: CallHistoryError) -> dict[str, object]:
    """Return the columns of one that nobody can ask for, now or ever: its call's id cannot be part of an address."""
    # No answer is counted, and yet it is not null, which would say that version 0.1.0 had asked.
    return _in_vain(wanted, _never_there(wanted), error, None) | {"not_found_count": wanted.not_found_count}


def failed(wanted: WantedRecording, error: CallHistoryError, now: datetime) -> dict[str, object]:
    """Return the columns of one that failed, and is tried again ever more rarely."""
    back_off = min(FIRST_BACK_OFF * 2 ** min(wanted.attempts, 10), LONGEST_BACK_OFF)
    return _in_vain(wanted, RecordingStatus.FAILED, error, now + back_off)


def keeps_damaged(wanted: WantedRecording, now: datetime) -> bool:
    """Return whether damaged audio is to be kept: it has been asked for often enough, and nothing better will come."""
    return wanted.attempts >= ATTEMPTS_BEFORE_DAMAGED and now - wanted.ended_at >= DAMAGED_AFTER


def _never_there(wanted: WantedRecording) -> RecordingStatus:
    return RecordingStatus.MISSING if wanted.is_promised else RecordingStatus.NONE


def _in_vain(
    wanted: WantedRecording, status: RecordingStatus, error: CallHistoryError, next_attempt_at: datetime | None
) -> dict[str, object]:
    return {
        "status": status.value,
        "attempts": wanted.attempts + 1,
        "next_attempt_at": next_attempt_at,
        "last_error": str(error)[:ERROR_MAX_CHARACTERS],
    }
