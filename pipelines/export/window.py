"""The way of a window: claim its day, fetch, keep raw, publish. Plain Python, no scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import stamina

from pipelines.context import Pipeline, utc_now
from pipelines.export.claims import LEASE, PATIENCE, keep_claim
from pipelines.export.doubts import Beliefs, DayLosses, Judgement, RowsRead, judge
from pipelines.export.made_by import made_by
from pipelines.export.planner import DayPlan, Due, PlannedWindow
from pipelines.export.progress import Event, OnEvent, Step
from pipelines.export.publish import HeldError, Publication, confirm, publish, window_spool
from pipelines.logs import log_context
from pipelines.stringeex.history import WindowRead
from pipelines.stringeex.history_part import ReadAgainError
from pipelines.windows import Window
from sinks.ledger import Certificate, ClaimedDay, LedgerRow, WindowStatus, attempt_of
from sinks.raw import ONE_MILLISECOND, RawFile, Verdict, believed_states, publish_raw
from sinks.spool import Spool
from sinks.window_changes import Changes, Losses
from transforms.errors import (
    CallHistoryError,
    ClaimLostError,
    CollisionError,
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
    DISPUTED = "disputed"
    HELD = "held"
    FAILED = "failed"
    CLAIMED_ELSEWHERE = "claimed_elsewhere"
    DONE_ELSEWHERE = "done_elsewhere"


@dataclass(frozen=True)
class WindowResult:
    """What a run did with one window; ``changes`` and ``certificate`` are null unless it is complete or disputed.

    ``error`` is why it is not complete; ``missing_fields`` could be used in none of the ``rows_read`` rows.
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
    rows_read: int = 0
    missing_fields: tuple[str, ...] = ()


class Stopped(KeyboardInterrupt):
    """The run was told to stop; what was under way is undone and due again."""


@dataclass(frozen=True)
class Run:
    """One run: its pipeline, id and begin, who is told of its steps, the event that tells it to stop, and its clock.

    ``lease`` is how long its claims last when they are not renewed, ``patience`` how long it waits for those of others.
    ``beliefs`` is what somebody has looked at and believes of a source in doubt.
    """

    pipeline: Pipeline
    run_id: str
    began_at: datetime
    on_event: OnEvent = lambda _: None
    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], datetime] = utc_now
    lease: timedelta = LEASE
    patience: timedelta = PATIENCE
    beliefs: Beliefs = field(default_factory=Beliefs)

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
    # The transaction that publishes the last window gives the claim back as well: one transaction less.
    if results[-1].certificate is None:
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
        # One that was disputed before has been read again since.
        attempts = 1 if work.before.status is WindowStatus.DISPUTED else READ_ATTEMPTS
        for attempt in stamina.retry_context(
            on=(UnsettledWindowError, CollisionError),
            attempts=attempts,
            timeout=None,
            wait_initial=1.0,
            wait_max=10.0,
        ):
            with attempt:
                return _read_and_publish(work, is_last_attempt=attempt.num == attempts)
    except ClaimLostError as error:
        return WindowResult(window, due, Outcome.CLAIMED_ELSEWHERE, error=str(error))
    except SettingsError:
        raise
    except HeldError as error:
        message = f"window {window.label}: {error}"
        work.pipeline.ledger.hold(work.claim, window.start, message)
        work.run.tell(Step.HELD, window)
        return WindowResult(
            window, due, Outcome.HELD, error=message, rows_read=error.rows_read, missing_fields=error.missing_fields
        )
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
    while True:
        known = _certified_rows(work)
        with window_spool(work.pipeline, work.window, waits=known is not None) as spool:
            read_at = work.run.clock()
            try:
                read = _fetch(work, spool)
            except ReadAgainError:
                continue  # something about the server was learnt, by which the next read gets further
            if read.dispute is not None and not is_last_attempt:
                raise UnsettledWindowError(read.dispute)
            are_known = read.dispute is None and spool.raw.content_hash == known
            return _publish(work, spool, read, read_at, is_last_attempt=is_last_attempt, are_known=are_known)


def _certified_rows(work: _Work) -> str | None:
    """Return the hash of the rows that the window's certificate is of; null where the tables are to be made anew.

    That is so where there is none, or it was made by other code or settings, or somebody has changed the files. What
    somebody believes of the source is looked after in each row: whether a field is back, for one.
    """
    before, beliefs = work.before, work.run.beliefs
    if (
        beliefs.vanished
        or beliefs.missing_fields
        or work.planned.due is Due.ALTERED
        or before.status is not WindowStatus.COMPLETE
        or before.completed_at is None
        or before.made_by != made_by(work.pipeline)
    ):
        return None
    states = believed_states(work.pipeline.lake.storage, work.window.call_date, work.window.start, work.window.end)
    is_certified = states and states[-1].verdict is Verdict.PROVEN and states[-1].read_at <= before.completed_at
    return states[-1].content_hash if is_certified else None


def _fetch(work: _Work, spool: Spool) -> WindowRead:
    """Read the window into the spool."""
    read = work.pipeline.reader.read(work.window.start, work.window.end)
    rows_read = 0
    for page in read:
        spool.add(page.rows)
        rows_read += len(page.rows)
        work.run.tell(Step.PAGE_READ, work.window, rows_read)
        if work.claim_lost.is_set():
            raise ClaimLostError("another run has taken this day over; it will finish the work")
    spool.seal()
    return read


def _publish(
    work: _Work, spool: Spool, read: WindowRead, read_at: datetime, *, is_last_attempt: bool, are_known: bool
) -> WindowResult:
    run, pipeline, window, before = work.run, work.pipeline, work.window, work.before
    # A clock that was set back must not have a later state look like an earlier one.
    stamp = max(read_at, before.completed_at + ONE_MILLISECOND) if before.completed_at else read_at
    run.tell(Step.FETCHED, window, spool.rows, spool.rows)

    def judge_read(losses: Losses, day: DayLosses) -> Judgement:
        judgement = judge(RowsRead.of(spool, read_at, read.dispute), losses, day, run.beliefs)
        if judgement.verdict is Verdict.HELD and not is_last_attempt:
            raise UnsettledWindowError(judgement.reason or "")  # a portal in trouble answers better a little later
        return judgement

    def keep_raw(verdict: Verdict) -> datetime:
        """Publish the raw copy; return when its rows were first seen, or now if they were dealt with then."""
        file = RawFile(window.start, window.end, stamp, spool.raw.content_hash, window.call_date, verdict)
        raw = publish_raw(pipeline.lake.storage, spool.raw, file)
        run.tell(Step.RAW_PUBLISHED, window)
        was_cut_off = before.completed_at is None or before.completed_at < raw.read_at
        return raw.read_at if was_cut_off else stamp

    publication = Publication(
        stores=pipeline,
        claim=work.claim,
        window=window,
        api_total=read.api_total,
        read_at=read_at,
        judge=judge_read,
        keep_raw=keep_raw,
        previous_read_at=before.completed_at,
        whole_day=work.whole_day,
        releases_claim=work.is_last,
        tell=lambda step: run.tell(step, window, *((spool.rows, spool.rows) if step is Step.COMMITTED else ())),
        run_began_at=run.began_at,
    )
    published = confirm(publication, before, spool, run.clock) if are_known else None
    if published is None:
        spool.make_tables()
        published = publish(publication, spool, run.clock)
    return WindowResult(
        window,
        work.planned.due,
        Outcome.COMPLETE if published.dispute is None else Outcome.DISPUTED,
        certificate=published.certificate,
        changes=published.changes,
        files_written=published.files_written,
        error=None if published.dispute is None else f"window {window.label}: {published.dispute}",
        rows_read=spool.rows,
        missing_fields=published.missing_fields,
    )
