"""The local days of a run as Prefect tasks, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Cancelled
from prefect.task_runners import ThreadPoolTaskRunner

from pipelines.context import Pipeline
from pipelines.export import Outcome, Run, Stopped, WindowResult, export_day
from pipelines.flows.artifacts import Progress, show_run
from pipelines.flows.states import TAG, IncompleteRunError, failed
from pipelines.planner import DayPlan
from pipelines.run import new_run, requests_sent, summarise
from pipelines.windows import Window
from transforms.errors import CallHistoryError, DataError, RetryableError

RETRY_DELAYS_SECONDS = [5.0, 20.0]
"""Waits before a day with failed windows is tried again. The client has its own, finer retries below this."""


@dataclass(frozen=True)
class _Work:
    """What the tasks of one flow run share: threads of one process, so one pipeline, one budget, one claimant."""

    run: Run
    results: dict[Window, WindowResult] = field(default_factory=dict)

    def of_day(self, day: DayPlan) -> list[WindowResult]:
        """Return the results there are so far for the day's windows, in its order."""
        return [self.results[planned.window] for planned in day.windows if planned.window in self.results]

    def remaining(self, day: DayPlan) -> DayPlan:
        """Return the day without the windows that have a result, unless it is one that another try may better."""
        finished = {result.window for result in self.of_day(day) if not result.may_succeed_later}
        return replace(day, windows=tuple(p for p in day.windows if p.window not in finished))


_work_of_runs: dict[str, _Work] = {}


def _is_retryable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    return isinstance(state.data, RetryableError)


@task(
    name="export_local_day",
    task_run_name="{day.call_date}",
    tags=[TAG],
    retries=len(RETRY_DELAYS_SECONDS),
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=_is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def export_local_day(run_id: str, day: DayPlan) -> State[None] | None:
    """Export the due windows of one local day; when tried again, only those whose failure may pass.

    Fails with RetryableError or DataError when windows failed, or with what no other day could survive either.
    """
    logger = get_run_logger()
    work = _work_of_runs[run_id]
    try:
        for result in export_day(work.run, work.remaining(day)):
            work.results[result.window] = result
    except Stopped:
        return Cancelled(message="The run was told to stop; the day is due again.")
    except CallHistoryError as error:
        return failed(error)
    results = work.of_day(day)
    for result in results:
        calls = f", {result.certificate.lake_rows} calls" if result.certificate else ""
        logger.info("window %s: %s%s", result.window.label, result.outcome.value, calls)
    lost = [result for result in results if result.outcome is Outcome.FAILED]
    if not lost:
        return None
    error_class = RetryableError if any(result.may_succeed_later for result in lost) else DataError
    return failed(error_class(f"{len(lost)} of {len(results)} windows failed; {lost[0].error}"))


def run_days(pipeline: Pipeline, plans: Sequence[DayPlan], concurrency: int) -> dict[str, Any]:
    """Run one task per day and return the summary. Raises IncompleteRunError when windows failed."""
    requests_before = requests_sent(pipeline)
    with _shared(_Work(new_run(pipeline))) as work:
        _run_tasks(work, plans, concurrency)
    results = [result for day in plans for result in work.of_day(day)]
    run = summarise(work.run, results, requests_before)
    summary = run.to_dict()
    show_run(summary, pipeline)
    if not run.is_complete:
        lost = len(run.with_outcome(Outcome.FAILED))
        raise IncompleteRunError(f"{lost} of {len(results)} windows failed; they are due again", summary)
    return summary


@contextmanager
def _shared(work: _Work) -> Iterator[_Work]:
    """Make the work known to the tasks of this process: clients and connections cannot be parameters."""
    _work_of_runs[work.run.run_id] = work
    try:
        yield work
    finally:
        del _work_of_runs[work.run.run_id]


def _run_tasks(work: _Work, plans: Sequence[DayPlan], concurrency: int) -> None:
    """Run the tasks. A day that ends without a result for each window ends the run: no other could do better.

    On that, on Ctrl-C and on Prefect's termination signal, days under way stop and give their claims back.
    """
    logger = get_run_logger()
    logger.info("run %s: %d local days are due", work.run.run_id, len(plans))
    if not plans:
        return
    task_runner: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=concurrency)
    with task_runner as runner:
        try:
            days: dict[PrefectFuture[Any], DayPlan] = {
                runner.submit(export_local_day, {"run_id": work.run.run_id, "day": day}): day for day in plans
            }
            progress = Progress(len(days), f"Run {work.run.run_id}: local days done")
            for done, future in enumerate(as_completed(list(days)), start=1):
                if len(work.of_day(days[future])) < len(days[future].windows):
                    future.result()
                progress.show(done)
        except BaseException:
            work.run.stop.set()
            raise
