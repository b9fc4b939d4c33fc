"""A run: what is due, done day by day side by side, and summed up."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from queue import SimpleQueue
from typing import Any

from pipelines.claims import LEASE, PATIENCE
from pipelines.context import Pipeline, Stores, utc_now
from pipelines.drift import Drift, new_drift
from pipelines.export import Outcome, Run, Stopped, WindowResult, export_day
from pipelines.logs import logger
from pipelines.planner import DayPlan, plan
from pipelines.steps import Event, OnEvent
from pipelines.windows import ONE_DAY, Window, local_date

_ALLOCATIONS_PER_COLLECTION = 100_000
_SHORTEST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.2, 5.0


@dataclass(frozen=True)
class RunSummary:
    """What a run did, window by window, what it took, and how the source's fields were found changed."""

    run_id: str
    results: Sequence[WindowResult]
    requests: int
    drift: Sequence[Drift] = ()

    def with_outcome(self, outcome: Outcome) -> list[WindowResult]:
        """Return the windows that ended so."""
        return [result for result in self.results if result.outcome is outcome]

    @property
    def is_complete(self) -> bool:
        """Whether every window that was due is proven complete, by this run or by another one meanwhile."""
        return not (self.with_outcome(Outcome.FAILED) or self.with_outcome(Outcome.CLAIMED_ELSEWHERE))

    @property
    def totals(self) -> dict[str, int]:
        """Return the sums over all windows: calls by what became of them, rejects, files, requests."""
        changes = [result.changes for result in self.results if result.changes is not None]
        certificates = [result.certificate for result in self.results if result.certificate is not None]
        return {
            "calls": sum(c.lake_rows for c in certificates),
            "calls_inserted": sum(c.inserted for c in changes),
            "calls_updated": sum(c.updated for c in changes),
            "calls_restored": sum(c.restored for c in changes),
            "calls_vanished": sum(c.vanished for c in changes),
            "rows_rejected": sum(c.rejected for c in certificates),
            "files_written": sum(result.files_written for result in self.results),
            "requests": self.requests,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON can hold it; it names windows and counts, and nobody's data."""
        return {
            "run_id": self.run_id,
            "complete": self.is_complete,
            "windows": {outcome.value: len(self.with_outcome(outcome)) for outcome in Outcome},
            **self.totals,
            "days": [day.to_dict() for day in self.days()],
            "drift": [change.to_dict() for change in self.drift],
            "errors": [result.error for result in self.with_outcome(Outcome.FAILED)],
        }

    def days(self) -> list[DaySummary]:
        """Return the run's local days, oldest first."""
        by_date: dict[date, list[WindowResult]] = {}
        for result in self.results:
            by_date.setdefault(result.window.call_date, []).append(result)
        return [DaySummary(call_date, results) for call_date, results in sorted(by_date.items())]


@dataclass(frozen=True)
class DaySummary:
    """A local day of a run."""

    call_date: date
    results: Sequence[WindowResult]

    def to_dict(self) -> dict[str, Any]:
        """Return the day's counts; those of a day that failed are null."""
        certificates = [result.certificate for result in self.results]
        proven = [c for c in certificates if c is not None]
        whole = len(proven) == len(certificates)
        return {
            "call_date": self.call_date.isoformat(),
            "complete": whole,
            "api_total": sum(c.api_total for c in proven) if whole else None,
            "lake_rows": sum(c.lake_rows for c in proven) if whole else None,
            "rejected": sum(c.rejected for c in proven) if whole else None,
            "warehouse_rows": sum(c.warehouse_rows for c in proven) if whole else None,
            "outcomes": sorted({result.outcome.value for result in self.results}),
        }


def plan_export(stores: Stores, now: datetime) -> list[DayPlan]:
    """Return everything that is due since the export's first day."""
    return plan_days(stores, stores.start_date(now), local_date(now, stores.timezone), now)


def plan_recent(stores: Stores, now: datetime) -> list[DayPlan]:
    """Return what is due of yesterday and today; of yesterday, usually its last read, after it has ended."""
    today = local_date(now, stores.timezone)
    return plan_days(stores, max(stores.start_date(now), today - ONE_DAY), today, now)


def plan_days(stores: Stores, first: date, last: date, now: datetime, *, force: bool = False) -> list[DayPlan]:
    """Return what is due of the local days from ``first`` to ``last``, both included, newest first."""
    return plan(
        first,
        last,
        stores.ledger.rows(first, last),
        now=now,
        timezone=stores.timezone,
        window_length=stores.settings.window,
        force=force,
    )


def run_plans(
    pipeline: Pipeline,
    plans: Sequence[DayPlan],
    *,
    on_event: OnEvent | None = None,
    run_id: str | None = None,
    clock: Callable[[], datetime] = utc_now,
    lease: timedelta = LEASE,
    patience: timedelta = PATIENCE,
) -> RunSummary:
    """Export the planned days, ``CALLHISTORY_CONCURRENCY`` side by side.

    A failed window does not stop the others. Ctrl-C does, as does what none could survive (see `export_day`): days
    under way give their claims back, days not begun are left.
    """
    run = Run(
        pipeline,
        run_id or new_run_id(),
        clock(),
        on_event or _ignore,
        clock=clock,
        lease=lease,
        patience=patience,
    )
    with rare_collections(), ThreadPoolExecutor(pipeline.settings.concurrency, thread_name_prefix="day") as pool:
        # Not concurrent.futures.wait: Ctrl-C at the wrong instant leaves it with the locks of all futures held.
        ended: SimpleQueue[Future[list[WindowResult]]] = SimpleQueue()
        futures = [pool.submit(export_day, run, day) for day in plans]
        try:
            for future in futures:
                future.add_done_callback(ended.put)
            for _ in futures:
                ended.get().result()
            results = [result for future in futures for result in future.result()]
            results = finish_claimed_days(run, plans, results)
        except BaseException:
            run.give_up()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return summarise(run, results, requests_sent(pipeline))


def finish_claimed_days(run: Run, plans: Sequence[DayPlan], results: Iterable[WindowResult]) -> list[WindowResult]:
    """Return a run's results after another look at what others had claimed, in the order of ``plans``.

    Such a day is looked at again until another run has done it, or until its holder's lease has lapsed, and it is done
    here. A holder that is alive for longer than ``run.patience`` keeps it. Raises as `export_day`.
    """
    found = {result.window: result for result in results}
    gives_up_at = time.monotonic() + run.patience.total_seconds()
    wait_seconds = 0.0
    while claimed := [day for plan in plans if (day := _part_elsewhere(plan, found)) is not None]:
        if wait_seconds and time.monotonic() > gives_up_at:
            break
        if wait_seconds == _SHORTEST_WAIT_SECONDS:
            logger.info("waiting for %d local days that other runs are at work on", len(claimed))
        if run.stop.wait(wait_seconds):
            raise Stopped
        wait_seconds = min(max(2 * wait_seconds, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)
        found |= {result.window: result for day in claimed for result in export_day(run, day)}
    return [found[planned.window] for plan in plans for planned in plan.windows]


def _part_elsewhere(day: DayPlan, found: Mapping[Window, WindowResult]) -> DayPlan | None:
    windows = [p for p in day.windows if found[p.window].outcome is Outcome.CLAIMED_ELSEWHERE]
    return replace(day, windows=tuple(windows)) if windows else None


def summarise(run: Run, results: Sequence[WindowResult], requests: int) -> RunSummary:
    """Sum up a run, which has taken ``requests`` requests of every kind, in all of its processes."""
    drift = new_drift(run.pipeline, run.clock(), run.began_at, {result.window.call_date for result in results})
    return RunSummary(run.run_id, results, requests, drift)


def new_run_id() -> str:
    """Return an id for a run, unlike that of any other."""
    return f"run-{uuid.uuid4().hex[:12]}"


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for cycles of garbage less often: pages are millions of small objects, and hold none."""
    thresholds = gc.get_threshold()
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def requests_sent(pipeline: Pipeline) -> int:
    """Return how many requests of every kind this pipeline has sent so far, tries that failed included."""
    return sum(pipeline.client.budget.counts().values())


def _ignore(_: Event) -> None:
    """Nobody is listening."""
