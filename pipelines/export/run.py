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

from pipelines.context import Pipeline, Stores, utc_now
from pipelines.export.claims import LEASE, PATIENCE
from pipelines.export.drift import Drift, new_drift, note_missing_fields, read_beliefs
from pipelines.export.planner import DayPlan, plan
from pipelines.export.progress import Event, OnEvent
from pipelines.export.window import Outcome, Run, Stopped, WindowResult, export_day
from pipelines.logs import logger
from pipelines.windows import ONE_DAY, Window, local_date, ranges_as_json
from sinks.content_hash import sum_of_hashes
from sinks.ledger import LedgerRow, WindowStatus
from sinks.parquet import Lake

PROVEN = frozenset({Outcome.COMPLETE, Outcome.DONE_ELSEWHERE})
"""How a window ends that is proven complete, by this run or by another one."""

_ROUNDS_OF_MOVED_CALLS = 4
"""A call that moved takes two: the window it left, and one that had set a row of it aside."""
_ALLOCATIONS_PER_COLLECTION = 100_000
_FILES_AT_ONCE = 8
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
        return all(result.outcome in PROVEN for result in self.results)

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
        days = self.days()
        return {
            "run_id": self.run_id,
            "complete": self.is_complete,
            "windows": {outcome.value: len(self.with_outcome(outcome)) for outcome in Outcome},
            **self.totals,
            "days": [day.to_dict() for day in days],
            "ranges": ranges_as_json(((day.call_date, day.is_complete) for day in days), "complete"),
            "drift": [change.to_dict() for change in self.drift],
            "disputed": [result.error for result in self.with_outcome(Outcome.DISPUTED)],
            "held": [result.error for result in self.with_outcome(Outcome.HELD)],
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

    @property
    def is_complete(self) -> bool:
        """Whether every window of the day that was due is proven, by this run."""
        return all(result.outcome is Outcome.COMPLETE for result in self.results)

    def to_dict(self) -> dict[str, Any]:
        """Return the day's counts; null where a window has none: it failed or was held, or the API gave no count."""
        certificates = [result.certificate for result in self.results]
        counts = ("api_total", "lake_rows", "rejected", "warehouse_rows")
        values = {name: [None if c is None else getattr(c, name) for c in certificates] for name in counts}
        return {
            "call_date": self.call_date.isoformat(),
            "complete": self.is_complete,
            **{name: None if None in of_windows else sum(of_windows) for name, of_windows in values.items()},
            "outcomes": sorted({result.outcome.value for result in self.results}),
        }


def plan_export(stores: Stores, now: datetime) -> list[DayPlan]:
    """Return everything that is due since the export's first day, which is remembered, and what is disputed before."""
    stores.start_date(now)
    return plan_next_export(stores, now)


def plan_next_export(stores: Stores, now: datetime) -> list[DayPlan]:
    """Return the same, and write nothing."""
    first, today = stores.start_date_of_next_run(now), local_date(now, stores.timezone)
    disputed = {
        row.call_date for row in stores.ledger.rows(None, first - ONE_DAY) if row.status is WindowStatus.DISPUTED
    }
    earlier = [plan for day in sorted(disputed, reverse=True) for plan in plan_days(stores, day, day, now)]
    return plan_days(stores, first, today, now) + earlier


def plan_recent(stores: Stores, now: datetime) -> list[DayPlan]:
    """Return what is due of yesterday and today; of yesterday, usually its last read, after it has ended."""
    today = local_date(now, stores.timezone)
    return plan_days(stores, max(stores.start_date(now), today - ONE_DAY), today, now)


def plan_days(stores: Stores, first: date, last: date, now: datetime, *, force: bool = False) -> list[DayPlan]:
    """Return what is due of the local days from ``first`` to ``last``, both included, newest first."""
    rows = stores.ledger.rows(first, last)
    return plan(
        first,
        last,
        rows,
        now=now,
        timezone=stores.timezone,
        window_length=stores.settings.window,
        force=force,
        altered_days=altered_days(stores.lake, rows),
    )


def altered_days(lake: Lake, rows: Iterable[LedgerRow]) -> set[date]:
    """Return the days, complete by the ledger, whose files in the lake are not the certified ones.

    That is so when somebody changed a file, or when a process stood still for longer than its claim and wrote then.
    """
    by_date: dict[date, list[LedgerRow]] = {}
    for row in rows:
        by_date.setdefault(row.call_date, []).append(row)
    complete = {d: r for d, r in by_date.items() if all(row.status is WindowStatus.COMPLETE for row in r)}

    def is_altered(call_date: date) -> bool:
        of_day = complete[call_date]
        calls = sum(row.lake_rows or 0 for row in of_day)
        return not lake.is_as_certified(call_date, calls, sum_of_hashes(row.content_hash or "0" for row in of_day))

    with ThreadPoolExecutor(_FILES_AT_ONCE, thread_name_prefix="lake") as pool:
        return {day for day, found in zip(complete, pool.map(is_altered, complete), strict=True) if found}


def run_plans(
    pipeline: Pipeline,
    plans: Sequence[DayPlan],
    *,
    on_event: OnEvent | None = None,
    run_id: str | None = None,
    clock: Callable[[], datetime] = utc_now,
    lease: timedelta = LEASE,
    patience: timedelta = PATIENCE,
    accepts_vanished: bool = False,
) -> RunSummary:
    """Export the planned days, ``CALLHISTORY_CONCURRENCY`` side by side.

    ``accepts_vanished`` believes a source that no longer has most of a day's calls.

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
        beliefs=read_beliefs(pipeline.state, accepts_vanished=accepts_vanished),
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
            results = follow_moved_calls(run, finish_claimed_days(run, plans, results))
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


def follow_moved_calls(run: Run, results: Iterable[WindowResult]) -> list[WindowResult]:
    """Return a run's results after the windows were read that its calls have left, or may have.

    A call that starts in another window now was in the lake's file of the window before: that one is read again by the
    same run, whatever its age. Raises as `export_day`.
    """
    found = {result.window: result for result in results}
    pending = list(found.values())
    for _ in range(_ROUNDS_OF_MOVED_CALLS):
        changes = [result.changes for result in pending if result.changes is not None]
        instants = [instant for change in changes for instant in (*change.left, *change.to_confirm)]
        now, timezone = run.clock(), run.pipeline.timezone
        plans = [
            replace(day, windows=windows)
            for call_date in sorted({local_date(instant, timezone) for instant in instants})
            for day in plan_days(run.pipeline, call_date, call_date, now)
            if (windows := tuple(p for p in day.windows if any(p.start <= i < p.end for i in instants)))
        ]
        pending = [result for day in plans for result in export_day(run, day)]
        for result in pending:
            earlier = found[result.window].changes if result.window in found else None
            both = earlier + result.changes if earlier and result.changes else result.changes
            found[result.window] = replace(result, changes=both)
        if not pending:
            break
    return list(found.values())


def summarise(run: Run, results: Sequence[WindowResult], requests: int) -> RunSummary:
    """Sum up a run, which has taken ``requests`` requests of every kind, in all of its processes."""
    read = [result for result in results if result.rows_read]
    if read:
        missing = {field for result in read for field in result.missing_fields}
        note_missing_fields(run.pipeline.state, run.beliefs, missing, run.began_at)
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
