"""The way of a window: claim its day, fetch, keep raw, publish. Plain Python, no scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import stamina

from pipelines.claims import LEASE, PATIENCE, keep_claim
from pipelines.context import Pipeline, utc_now
from pipelines.logs import log_context
from pipelines.planner import DayPlan, Due, PlannedWindow
from pipelines.publish import Publication, publish, window_spool
from pipelines.steps import Event, OnEvent, Step
from pipelines.windows import Window
from sinks.ledger import Certificate, ClaimedDay, LedgerRow, attempt_of
from sinks.merge import Changes
from sinks.raw import ONE_MILLISECOND, RawFile, publish_raw
from sinks.spool import Spool
from transforms.errors import (
    CallHistoryError,
    ClaimLostError,
    RetryableError,
    SettingsError,
    TransportError,
    UnsettledWindowError,
)

READ_ATTEMPTS = 3


_STOPPABLE = frozenset({Step.CLAIMED, Step.BEGUN, Step.PAGE_READ, Step.FETCHED})
"""Where a run that is told to stop does so: before it publishes, which takes seconds, it finishes first."""


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
    """One run: its pipeline, id and begin, who is told of its steps, the event that tells it to stop, and its clock.

    ``lease`` is how long its claims last when they are not renewed, ``patience`` how long it waits for those of others.
    """

    pipeline: Pipeline
    run_id: str
    began_at: datetime
    on_event: OnEvent = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], datetime] = utc_now
    lease: timedelta = LEASE
    patience: timedelta = PATIENCE

    def give_up(self) -> None:
        """Have days under way stop and give their claims back, those that wait for the request budget too."""
        self.stop.set()
        self.pipeline.client.close()

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
    claim = ClaimedDay(day.call_date, day.lock_start, day.lock_end, attempt_of(run.run_id))
    before = ledger.claim_day(claim, day.windows, run.lease)
    if before is None:
        return [WindowResult(p.window, p.due, Outcome.CLAIMED_ELSEWHERE) for p in day.windows]
    results: list[WindowResult] = []
    try:
        with (
            log_context(run_id=run.run_id, call_date=day.call_date),
            keep_claim(ledger, claim, run.lease) as claim_lost,
        ):
            run.tell(Step.CLAIMED, day.windows[0].window)
            for planned in day.windows:
                row = before.get(planned.start)
                if row is None:
                    results.append(WindowResult(planned.window, planned.due, Outcome.DONE_ELSEWHERE))
                else:
                    is_last, whole_day = planned is day.windows[-1], day.window_count == 1
                    work = _Work(run, claim, claim_lost, planned, row, whole_day=whole_day, is_last=is_last)
                    with log_context(window_start=planned.start, window_end=planned.end):
                        results.append(_export_window(work))
    except BaseException:
        with suppress(CallHistoryError):  # it lapses by itself, and the first error says more than a second one
            ledger.release_day(claim)
        raise
    # The last window's own transaction gives the claim back: a transaction saved, where each opens a file.
    if results[-1].outcome is not Outcome.COMPLETE:
        ledger.release_day(claim)
    return results


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
                return _read_and_publish(work, is_last_attempt=attempt.num == READ_ATTEMPTS)
    except ClaimLostError as error:
        return WindowResult(window, due, Outcome.CLAIMED_ELSEWHERE, error=str(error))
    except SettingsError:
        raise
    except CallHistoryError as error:
        if work.run.stop.is_set():
            raise Stopped from error
        message = f"window {window.label}: {error}"
        work.pipeline.ledger.fail(work.claim, window.start, message)
        work.run.tell(Step.FAILED, window)
        if isinstance(error, TransportError) and not work.pipeline.client.has_answered:
            raise
        later = isinstance(error, RetryableError)
        return WindowResult(window, due, Outcome.FAILED, error=message, may_succeed_later=later)
    raise AssertionError("the last attempt returns or raises")


def _read_and_publish(work: _Work, *, is_last_attempt: bool) -> WindowResult:
    run, pipeline, window, before = work.run, work.pipeline, work.window, work.before
    read_at = run.clock()
    # A clock that was set back must not have a later state look like an earlier one.
    stamp = max(read_at, before.completed_at + ONE_MILLISECOND) if before.completed_at else read_at
    with window_spool(pipeline, window) as spool:
        api_total = _fetch(work, spool)
        if before.api_total and not api_total and not is_last_attempt:
            # It would mark them all as deleted, and a portal in trouble answers so too.
            raise UnsettledWindowError(f"the API counts no calls, where it counted {before.api_total} before")
        run.tell(Step.FETCHED, window, api_total, api_total)

        def keep_raw() -> datetime:
            """Publish the raw copy; return when its rows were first seen, or now if they were dealt with then."""
            file = RawFile(window.start, window.end, stamp, spool.raw.content_hash, window.call_date)
            raw = publish_raw(pipeline.lake.storage, spool.raw, file)
            run.tell(Step.RAW_PUBLISHED, window)
            was_cut_off = before.completed_at is None or before.completed_at < raw.read_at
            return raw.read_at if was_cut_off else stamp

        publication = Publication(
            stores=pipeline,
            claim=work.claim,
            window=window,
            api_total=api_total,
            read_at=read_at,
            changed_at=keep_raw,
            previous_read_at=before.completed_at,
            whole_day=work.whole_day,
            releases_claim=work.is_last,
            tell=lambda step: run.tell(step, window, *((api_total, api_total) if step is Step.COMMITTED else ())),
        )
        published = publish(publication, spool, run.clock)
    return WindowResult(
        window,
        work.planned.due,
        Outcome.COMPLETE,
        certificate=published.certificate,
        changes=published.changes,
        files_written=published.files_written,
    )


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
