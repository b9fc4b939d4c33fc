"""The way of a window: fetch, keep raw, normalise, stage, merge, swap in, certify. Plain Python, no scheduler."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import pyarrow as pa
import stamina

from pipelines.context import Pipeline, utc_now
from pipelines.planner import DayPlan, Due, PlannedWindow, next_reread
from pipelines.windows import Window
from sinks.bookkeeping import all_new, as_in_warehouse
from sinks.ledger import Certificate, ClaimedDay, Ledger, LedgerRow
from sinks.merge import Changes, StagedWindow
from sinks.parquet import LakeWriter
from sinks.raw import RawFile, publish_raw
from sinks.recordings import Recordings
from sinks.spool import Spool
from transforms.calls import Normalised, normalise
from transforms.errors import (
    CallHistoryError,
    ClaimLostError,
    RetryableError,
    SettingsError,
    TransportError,
    UnsettledWindowError,
)
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

LEASE = timedelta(minutes=10)
READ_ATTEMPTS = 3


class Step(StrEnum):
    """The steps of a window, in order; each is told when it is done."""

    CLAIMED = "claimed"
    BEGUN = "begun"
    PAGE_READ = "page_read"
    FETCHED = "fetched"
    RAW_PUBLISHED = "raw_published"
    STAGED = "staged"
    MERGED = "merged"
    LAKE_CALLS_PUBLISHED = "lake_calls_published"
    LAKE_PARTICIPANTS_PUBLISHED = "lake_participants_published"
    CERTIFIED = "certified"
    COMMITTED = "committed"
    FAILED = "failed"


_STOPPABLE = frozenset({Step.CLAIMED, Step.BEGUN, Step.PAGE_READ, Step.FETCHED})
"""Where a run that is told to stop does so: before it publishes, which takes seconds, it finishes first."""


@dataclass(frozen=True)
class Event:
    """A step done: of which window, and how many of its calls have been read of how many (null: not known yet)."""

    step: Step
    window: Window
    rows_read: int = 0
    rows_expected: int | None = None


OnEvent = Callable[[Event], None]


class Outcome(StrEnum):
    """What became of a planned window in a run."""

    COMPLETE = "complete"
    FAILED = "failed"
    CLAIMED_ELSEWHERE = "claimed_elsewhere"
    DONE_ELSEWHERE = "done_elsewhere"


@dataclass(frozen=True)
class WindowResult:
    """What a run did with one window; ``changes`` and ``certificate`` are null unless it is complete.

    ``may_succeed_later`` is whether a failed window is worth another try as it is.
    """

    window: Window
    due: Due
    outcome: Outcome
    certificate: Certificate | None = None
    changes: Changes | None = None
    files_written: int = 0
    error: str | None = None
    may_succeed_later: bool = False


class Stopped(KeyboardInterrupt):
    """The run was told to stop; what was under way is undone and due again."""


@dataclass(frozen=True)
class Run:
    """One run: its pipeline and id, who is told of its steps, the event that tells it to stop, and its clock."""

    pipeline: Pipeline
    run_id: str
    on_event: OnEvent
    stop: threading.Event
    clock: Callable[[], datetime] = utc_now

    def tell(self, step: Step, window: Window, rows_read: int = 0, rows_expected: int | None = None) -> None:
        """Report a step, and stop here if the run has been told to."""
        self.on_event(Event(step, window, rows_read, rows_expected))
        if self.stop.is_set() and step in _STOPPABLE:
            raise Stopped


def export_day(run: Run, day: DayPlan) -> list[WindowResult]:
    """Claim a local day and export its due windows in order.

    A day that another run has claimed is left to it. A window that fails is noted in the ledger with its reason and
    the day goes on; what no other window could survive either is raised: a ``SettingsError``, or the ``TransportError``
    of a server that has not answered once.
    """
    ledger = run.pipeline.ledger
    claim = ClaimedDay(day.call_date, day.lock_start, day.lock_end, run.run_id)
    before = ledger.claim_day(claim, day.windows, LEASE)
    if before is None:
        return [WindowResult(p.window, p.due, Outcome.CLAIMED_ELSEWHERE) for p in day.windows]
    results: list[WindowResult] = []
    try:
        with _keep_claim(ledger, claim) as claim_lost:
            run.tell(Step.CLAIMED, day.windows[0].window)
            for planned in day.windows:
                row = before.get(planned.start)
                if row is None:
                    results.append(WindowResult(planned.window, planned.due, Outcome.DONE_ELSEWHERE))
                else:
                    is_last, whole_day = planned is day.windows[-1], day.window_count == 1
                    work = _Work(run, claim, claim_lost, planned, row, whole_day=whole_day, is_last=is_last)
                    results.append(_export_window(work))
    finally:
        # The last window's own transaction gives the claim back: a transaction saved, where each opens a file.
        if not results or results[-1].outcome is not Outcome.COMPLETE or len(results) < len(day.windows):
            ledger.release_day(claim)
    return results


@contextmanager
def _keep_claim(ledger: Ledger, claim: ClaimedDay) -> Iterator[threading.Event]:
    """Renew the lease as long as the block lasts, however long it waits for the request budget.

    The event is set when another run has taken the day over. A renewal that fails for another reason is tried again;
    the last word has `Ledger.check_claim`, in the transaction that publishes.
    """
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(LEASE.total_seconds() / 4) and not lost.is_set():
            with suppress(RetryableError):
                if not ledger.renew_claim(claim, LEASE):
                    lost.set()

    heartbeat = threading.Thread(target=renew, name=f"claim-{claim.call_date}", daemon=True)
    heartbeat.start()
    try:
        yield lost
    finally:
        done.set()
        heartbeat.join()


@dataclass(frozen=True)
class _Work:
    """A window that is being exported: by which run, under which claim, and what the ledger said of it before."""

    run: Run
    claim: ClaimedDay
    claim_lost: threading.Event
    planned: PlannedWindow
    before: LedgerRow
    whole_day: bool
    is_last: bool

    @property
    def pipeline(self) -> Pipeline:
        return self.run.pipeline

    @property
    def window(self) -> Window:
        return self.planned.window


def _export_window(work: _Work) -> WindowResult:
    window, due = work.window, work.planned.due
    try:
        work.run.tell(Step.BEGUN, window)
        for attempt in stamina.retry_context(
            on=UnsettledWindowError, attempts=READ_ATTEMPTS, timeout=None, wait_initial=1.0, wait_max=10.0
        ):
            with attempt:
                return _read_and_publish(work)
    except ClaimLostError as error:
        return WindowResult(window, due, Outcome.CLAIMED_ELSEWHERE, error=str(error))
    except SettingsError:
        raise
    except CallHistoryError as error:
        if work.run.stop.is_set():
            raise Stopped from error
        message = f"window {window.label}: {error}"
        work.pipeline.ledger.fail(window.start, message)
        work.run.tell(Step.FAILED, window)
        if isinstance(error, TransportError) and not work.pipeline.client.has_answered:
            raise
        later = isinstance(error, RetryableError)
        return WindowResult(window, due, Outcome.FAILED, error=message, may_succeed_later=later)
    raise AssertionError("the last attempt returns or raises")


def _read_and_publish(work: _Work) -> WindowResult:
    window = work.window

    def normalise_batch(rows: list[JsonValue], reject_occurrences: Counter[str]) -> Normalised:
        return normalise(
            rows,
            window_start=window.start,
            window_end=window.end,
            timezone=work.pipeline.timezone,
            region=work.pipeline.settings.region,
            reject_occurrences=reject_occurrences,
        )

    read_at = work.run.clock()
    with Spool(normalise_batch) as spool:
        api_total = _fetch(work, spool)
        work.run.tell(Step.FETCHED, window, api_total, api_total)
        return _publish(work, spool, api_total, read_at)


def _fetch(work: _Work, spool: Spool) -> int:
    """Read the window into the spool; return the API's own count."""
    read = work.pipeline.reader.read(work.window.start, work.window.end)
    rows_read = 0
    for page in read:
        spool.add(page.rows)
        rows_read += len(page.rows)
        work.run.tell(Step.PAGE_READ, work.window, rows_read)
        if work.claim_lost.is_set():
            raise ClaimLostError("another run has taken this day over; it will finish the work")
    spool.seal()
    if spool.calls + spool.rejected != read.api_total:
        raise UnsettledWindowError(
            f"the API counts {read.api_total} calls and served {spool.calls} different ones and "
            f"{spool.rejected} rows that are no calls"
        )
    return read.api_total


def _publish(work: _Work, spool: Spool, api_total: int, read_at: datetime) -> WindowResult:
    """Publish what the spool holds; the last statement of the one transaction is the window's certificate.

    Cut off at any point, the ledger says ``running``, so the window is read again. The lake is swapped inside the
    transaction, after the database has accepted every row and before it commits: a file may be ahead of the
    warehouse for as long as it takes to commit, never behind.
    """
    run, pipeline, window, before = work.run, work.pipeline, work.window, work.before
    storage = pipeline.lake.storage
    raw = publish_raw(
        storage, spool.raw, RawFile(window.start, window.end, read_at, spool.raw.content_hash, window.call_date)
    )
    run.tell(Step.RAW_PUBLISHED, window)
    was_cut_off = before.completed_at is None or before.completed_at < raw.read_at
    now = raw.read_at if was_cut_off else read_at

    with ExitStack() as stack:
        connection = stack.enter_context(pipeline.warehouse.transaction())
        pipeline.ledger.check_claim(connection, work.claim)
        staged = stack.enter_context(StagedWindow(pipeline.warehouse, connection))
        for table in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS):
            for batch in spool.batches(table):
                staged.add(table, batch)
        run.tell(Step.STAGED, window)
        changes = staged.replace(window.start, window.end, now)
        Recordings(pipeline.warehouse).add_pending(connection, window.start, window.end)
        run.tell(Step.MERGED, window)

        is_all_new = changes.inserted == spool.calls
        calls = (
            all_new(batch, window.start, now)
            if is_all_new
            else as_in_warehouse(batch, staged.times(batch["started_at"][0].as_py(), batch["started_at"][-1].as_py()))
            for batch in spool.batches(CALLS)
        )
        files_written = int(_swap_in(work, spool, CALLS, calls))
        run.tell(Step.LAKE_CALLS_PUBLISHED, window)
        files_written += int(_swap_in(work, spool, CALL_PARTICIPANTS, spool.batches(CALL_PARTICIPANTS)))
        run.tell(Step.LAKE_PARTICIPANTS_PUBLISHED, window)

        certificate = _certificate(pipeline, window, spool, api_total, staged)
        next_reread_at, settled = next_reread(window.end, read_at, pipeline.settings.reread)
        closed_before = before.completed_at is not None and before.completed_at >= window.end
        pipeline.ledger.make_due(connection, changes.moved, now)
        pipeline.ledger.complete(
            connection,
            window.start,
            certificate,
            completed_at=run.clock(),
            next_reread_at=next_reread_at,
            settled=settled,
            late_changes=changes.calls_changed if closed_before else 0,
        )
        if work.is_last:
            pipeline.ledger.release(connection, work.claim)
        run.tell(Step.CERTIFIED, window)
    run.tell(Step.COMMITTED, window, api_total, api_total)
    return WindowResult(
        window,
        work.planned.due,
        Outcome.COMPLETE,
        certificate=certificate,
        changes=changes,
        files_written=files_written,
    )


def _swap_in(work: _Work, spool: Spool, table: Table, batches: Iterable[pa.Table]) -> bool:
    """Replace the window in the lake's file of its day; return whether the lake has changed."""
    lake, window = work.pipeline.lake, work.window
    with LakeWriter(
        lake, table, window.call_date, window.start, window.end, whole_day=work.whole_day, folder=spool.folder
    ) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.publish()


def _certificate(pipeline: Pipeline, window: Window, spool: Spool, api_total: int, staged: StagedWindow) -> Certificate:
    """Count both copies from what they now hold, not from what was meant to be written."""
    lake_rows, lake_hash = pipeline.lake.window_counts(window.call_date, window.start, window.end)
    warehouse = staged.counts(window.start, window.end)
    certificate = Certificate(
        api_total=api_total,
        raw_rows=spool.calls + spool.rejected,
        rejected=spool.rejected,
        lake_rows=lake_rows,
        warehouse_rows=warehouse.calls,
        content_hash=lake_hash,
        warehouse_content_hash=warehouse.content_hash,
    )
    if certificate.differences:
        raise UnsettledWindowError("; ".join(certificate.differences))
    return certificate
