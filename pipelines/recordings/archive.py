"""Draining the recordings that are wanted into the archive: oldest call first, side by side, within the budget.

The order of one recording: fetch, check, publish facts, publish audio, write its row. Killed anywhere, nothing is half
there: before the audio is published the recording is as unfetched as ever; after that, the next run finds it in the
archive, reads it back against its facts, and writes the row without asking the provider again.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, BinaryIO

from pipelines.context import Stores, open_archive, utc_now
from pipelines.recordings import outcomes
from pipelines.recordings.expire import expire_recordings
from pipelines.recordings.pace import Pace
from pipelines.stringeex.audio import EXTENSIONS, Audio, DamagedAudioError, doubt_about, inspect_audio
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.download import Fetched, RecordingNotFoundError, fetch_recording
from sinks.archive import SIDECAR_SUFFIX, Archive, archive_path
from sinks.recordings import FACTS, LOST, UNDONE, Recordings, RecordingStatus, WantedRecording
from transforms.errors import (
    AuthenticationError,
    CallHistoryError,
    NoAddressError,
    RetryableError,
    StorageError,
)

GIVE_UP_AFTER_FAILURES = 8
"""In a row, when nothing has worked in this run: then it is the API, the network or the credentials."""
_ERRORS_KEPT = 100
_LONGEST_SILENCE_SECONDS = 2.0
_ARCHIVED = RecordingStatus.ARCHIVED
_OUTCOMES = (
    _ARCHIVED,
    RecordingStatus.NOT_READY,
    RecordingStatus.MISSING,
    RecordingStatus.NONE,
    RecordingStatus.FAILED,
)


class Step(StrEnum):
    """The steps of a recording, in order, each told when it is done; and that nothing was done for some seconds."""

    BEGUN = "begun"
    RECEIVING = "receiving"
    FETCHED = "fetched"
    CHECKED = "checked"
    PUBLISHED = "published"
    SAVED = "saved"
    WAITING = "waiting"


@dataclass(frozen=True)
class Event:
    """A step done, and how far the run is: recordings done of those that were due at its beginning.

    ``eta_seconds`` is how long the rest takes at the pace so far, and not less than the request budget makes it take;
    null while nobody can know.
    """

    step: Step
    done: int
    due: int
    bytes: int
    eta_seconds: float | None


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class RecordingError:
    """Why a call's recording is not in the archive; ``error`` names no call and nobody, so it may go anywhere.

    ``status`` is what became of it, missing or failed.
    """

    call_id: str
    status: RecordingStatus
    error: str


@dataclass(frozen=True)
class ArchiveSummary:
    """What a run did, in recordings, and how the whole archive stands after it (``statuses``).

    ``adopted`` were found in the archive, where a killed run had left them, and are a part of ``archived``, as are the
    ``doubtful`` ones. ``missing`` became so in this run; ``none`` were not there either, and nobody had promised them.
    ``errors`` are of the first recordings that are lost. ``expired`` were deleted for their age.
    """

    archived: int
    expired: int
    adopted: int
    doubtful: int
    not_ready: int
    missing: int
    none: int
    failed: int
    bytes: int
    requests: int
    statuses: Mapping[RecordingStatus, int]
    errors: Sequence[RecordingError]

    @property
    def is_complete(self) -> bool:
        """Whether no recording has turned out to be missing in this run, and none is failing, of any run.

        What turned out to be missing in a run before has been told by that run.
        """
        return not self.missing and not any(self.statuses[status] for status in UNDONE)

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it."""
        return {
            "complete": self.is_complete,
            "archived": self.archived,
            "expired": self.expired,
            "adopted": self.adopted,
            "doubtful": self.doubtful,
            "not_ready": self.not_ready,
            "missing": self.missing,
            "none": self.none,
            "failed": self.failed,
            "bytes": self.bytes,
            "requests": self.requests,
            "recordings": {status.value: count for status, count in self.statuses.items()},
            "errors": [asdict(error) for error in self.errors],
        }


@dataclass(frozen=True)
class _Result:
    """What became of one recording: the columns to write, and the error that was met."""

    wanted: WantedRecording
    values: Mapping[str, object]
    adopted: bool = False
    error: CallHistoryError | None = None

    @property
    def call_id(self) -> str:
        return self.wanted.call_id

    @property
    def status(self) -> RecordingStatus:
        return RecordingStatus(str(self.values["status"]))


@dataclass
class _Run:
    stores: Stores
    client: StringeeXClient
    archive: Archive
    recordings: Recordings
    on_event: OnEvent
    pace: Pace
    present: Mapping[str, int] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, size: int) -> None:
        """Take note of bytes that have arrived."""
        with self._lock:
            self.received += size
        self.tell(Step.RECEIVING)

    def tell(self, step: Step) -> None:
        """Report a step."""
        self.on_event(Event(step, self.pace.done, self.pace.due, self.received, self.pace.eta_seconds()))


def archive_recordings(
    stores: Stores,
    client: StringeeXClient,
    *,
    again: bool = False,
    on_event: OnEvent | None = None,
    now: Callable[[], datetime] = utc_now,
) -> ArchiveSummary:
    """Fetch every recording that is due into the archive of ``CALLHISTORY_ARCHIVE_URL``.

    What is older than ``CALLHISTORY_RETENTION_RECORDINGS`` goes first. With ``again``, all that is missing or failed is
    due now. What is not there is asked for until it has been said so `outcomes.ANSWERS_TO_BE_MISSING` times over
    `outcomes.MISSING_AFTER`, and the call has reached the last age of ``CALLHISTORY_RECORDING_RETRIES``: then it is
    missing.

    A recording that fails does not stop the others. Ctrl-C does, as do storage that cannot be written and an API that
    answers nothing at all: StorageError, AuthenticationError, or the RetryableError that came last. Raises BusyError
    when another run is filling the same folder, and SettingsError when it is not the archive of this warehouse.
    """
    archive = open_archive(stores)
    archive.storage.check_writable()
    with archive.storage.only_writer():
        archive.storage.remove_leftovers()
        recordings = Recordings(stores.warehouse)
        recordings.want_again_after_one_answer()
        if again:
            recordings.want_lost_again()
        retention = stores.settings.retention_recordings
        expired = expire_recordings(stores, archive, now() - retention, now()) if retention else 0
        summary = _archive(stores, client, archive, recordings, on_event or (lambda _: None), now)
        return replace(summary, expired=expired)


def _archive(
    stores: Stores,
    client: StringeeXClient,
    archive: Archive,
    recordings: Recordings,
    on_event: OnEvent,
    now: Callable[[], datetime],
) -> ArchiveSummary:
    settings, began = stores.settings, now()
    pace = Pace(recordings.count_due(began), settings.recordings_per_minute, settings.requests_per_hour)
    run = _Run(stores, client, archive, recordings, on_event, pace)
    requests_before = sum(client.budget.counts().values())
    if pace.due:
        run.present = archive.storage.sizes()
    tally = _Tally()
    with closing(_drain(run, recordings.due(began), now)) as done:
        for results in done:
            if not results:
                run.tell(Step.WAITING)
                continue
            recordings.save({result.call_id: result.values for result in results})
            for result in results:
                tally.add(result)
                pace.done += 1
                run.tell(Step.SAVED)
            tally.check_anything_works()
    return ArchiveSummary(
        **{status.value: tally.counts[status] for status in _OUTCOMES},
        expired=0,
        adopted=tally.adopted,
        doubtful=tally.doubtful,
        bytes=run.received,
        requests=sum(client.budget.counts().values()) - requests_before,
        statuses=recordings.counts(),
        errors=tally.errors,
    )


@dataclass
class _Tally:
    counts: Counter[RecordingStatus] = field(default_factory=Counter)
    adopted: int = 0
    doubtful: int = 0
    errors: list[RecordingError] = field(default_factory=list)
    failures_in_a_row: int = 0
    last_error: CallHistoryError | None = None

    def add(self, result: _Result) -> None:
        self.counts[result.status] += 1
        self.adopted += result.adopted
        self.doubtful += result.values.get("doubt") is not None
        if result.status in LOST and len(self.errors) < _ERRORS_KEPT:
            self.errors.append(RecordingError(result.call_id, result.status, str(result.error)))
        if isinstance(result.error, RetryableError | AuthenticationError):
            self.failures_in_a_row += 1
            self.last_error = result.error
        else:
            self.failures_in_a_row = 0

    def check_anything_works(self) -> None:
        if self.last_error and self.failures_in_a_row >= GIVE_UP_AFTER_FAILURES and not self.counts[_ARCHIVED]:
            raise self.last_error


def _drain(
    run: _Run, due: Iterator[WantedRecording], now: Callable[[], datetime]
) -> Generator[list[_Result], None, None]:
    """Yield what becomes of the recordings, as they are done, and nothing now and then; a few are under way."""
    side_by_side = run.stores.settings.concurrency
    with ThreadPoolExecutor(side_by_side, thread_name_prefix="recording") as pool:
        # Not concurrent.futures.wait: Ctrl-C at the wrong instant leaves it with the locks of all futures held.
        ended: SimpleQueue[Future[_Result]] = SimpleQueue()
        under_way = 0
        try:
            while True:
                for recording in islice(due, side_by_side - under_way):
                    pool.submit(_archive_one, run, recording, now).add_done_callback(ended.put)
                    under_way += 1
                if not under_way:
                    return
                try:
                    done = [ended.get(timeout=_LONGEST_SILENCE_SECONDS)]
                except Empty:
                    done = []
                under_way -= len(done)
                yield [future.result() for future in done]
        except BaseException:
            run.stop.set()
            # Lets go of those that wait for the request budget, which can take an hour.
            run.client.close()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _archive_one(run: _Run, wanted: WantedRecording, now: Callable[[], datetime]) -> _Result:
    """Bring one recording into the archive; return the row it gets, also when that fails.

    Raises StorageError, and what else no other recording would survive.
    """
    run.tell(Step.BEGUN)
    try:
        return _adopted(run, wanted, now) or _fetched(run, wanted, now)
    except RecordingNotFoundError as error:
        ages = run.stores.settings.recording_retries
        return _Result(wanted, outcomes.not_found(wanted, error, now(), ages), error=error)
    except NoAddressError as error:
        return _Result(wanted, outcomes.without_address(wanted, error), error=error)
    except StorageError:
        raise
    except CallHistoryError as error:
        return _Result(wanted, outcomes.failed(wanted, error, now()), error=error)
    except OSError as error:
        raise StorageError(f"a recording cannot be written to this machine's disk: {error.strerror}") from error


def _adopted(run: _Run, wanted: WantedRecording, now: Callable[[], datetime]) -> _Result | None:
    """Take over what a run that was killed before it wrote the row has published; null where there is nothing."""
    for extension in EXTENSIONS:
        path = archive_path(wanted.call_id, wanted.call_date, extension)
        if path not in run.present or path + SIDECAR_SUFFIX not in run.present:
            continue
        facts, digest = run.archive.facts(path), run.archive.digest(path)
        names = ("call_id", "bytes", "sha256")
        if facts and digest and [facts.get(name) for name in names] == [wanted.call_id, digest.bytes, digest.sha256]:
            known = ("bytes", "sha256", "content_type", "duration_seconds", "doubt")
            values = {name: facts.get(name) for name in known}
            return _Result(wanted, outcomes.archived(path, values, now()), adopted=True)
    return None


def _fetched(run: _Run, wanted: WantedRecording, now: Callable[[], datetime]) -> _Result:
    facts = wanted.facts
    with run.archive.incoming() as file:
        fetched = fetch_recording(
            run.client,
            wanted.call_id,
            file,
            record_path=facts["record_path"],
            on_bytes=run.receive,
            stop=run.stop,
        )
        run.tell(Step.FETCHED)
        audio = _inspected(wanted, file, fetched, now())
        doubt = doubt_about(audio, facts["duration_seconds"], facts["talk_seconds"])
        run.tell(Step.CHECKED)
        path = archive_path(wanted.call_id, wanted.call_date, audio.extension)
        values = {
            "bytes": fetched.bytes,
            "sha256": fetched.sha256,
            "content_type": audio.content_type,
            "duration_seconds": None if audio.duration_seconds is None else round(audio.duration_seconds),
            "doubt": doubt and doubt.value,
        }
        call = {("call_duration_seconds" if name == "duration_seconds" else name): facts[name] for name in FACTS}
        run.archive.publish(file, path, call | values)
        run.tell(Step.PUBLISHED)
    return _Result(wanted, outcomes.archived(path, values, now()))


def _inspected(wanted: WantedRecording, file: BinaryIO, fetched: Fetched, now: datetime) -> Audio:
    """Return what was fetched; damaged audio too, when it has been served often enough and nothing better is to come.

    Raises NotARecordingError where a later answer may be better.
    """
    try:
        return inspect_audio(file, fetched.content_type)
    except DamagedAudioError as error:
        if outcomes.keeps_damaged(wanted, now):
            return error.audio
        raise
