"""The local days of a run as Prefect tasks, side by side in threads or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any
from uuid import UUID

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Failed

from pipelines.export.planner import DayPlan
from pipelines.export.run import finish_claimed_days, follow_moved_calls, summarise
from pipelines.export.window import Outcome, Stopped, WindowResult, export_day
from pipelines.flows.artifacts import Progress, show_run
from pipelines.flows.day_batches import DayBatch, DayBatches
from pipelines.flows.runners import Runner
from pipelines.flows.shared import Share, shared_run
from pipelines.flows.states import TAG, failed
from pipelines.stringeex.request_budget import Priority
from pipelines.windows import Window
from transforms.errors import CallHistoryError, RetryableError

RETRY_DELAYS_SECONDS = [5.0, 20.0]
"""Waits before days with failed windows are tried again. The client has its own, finer retries below this."""

_RETRIES = len(RETRY_DELAYS_SECONDS)


@dataclass(frozen=True)
class TaskReport:
    """What a task tells its flow: counts and outcomes, never data; Prefect logs what ``repr`` shows.

    ``days`` is how many local days it had. ``requests`` are those that ``opening``, a pipeline in some process, has
    sent so far.
    """

    days: int
    results: tuple[WindowResult, ...] = field(repr=False)
    opening: str = field(repr=False)
    requests: int = field(repr=False)

    @property
    def failed(self) -> list[WindowResult]:
        """The windows that failed."""
        return [result for result in self.results if result.outcome is Outcome.FAILED]

    @property
    def calls(self) -> int:
        """How many calls its windows have."""
        return sum(result.certificate.lake_rows for result in self.results if result.certificate)

    @property
    def may_succeed_later(self) -> bool:
        """Whether another try may better a window."""
        return any(result.may_succeed_later for result in self.failed)


_results_of_tries: dict[UUID, dict[Window, WindowResult]] = {}
"""By task run: what its earlier tries, which are made in the same process, have come to once and for all."""


def _is_retryable(_task: Task[..., Any], _task_run: TaskRun, state: State[Any]) -> bool:
    found = state.data
    return found.may_succeed_later if isinstance(found, TaskReport) else isinstance(found, RetryableError)


@task(
    name="export_local_days",
    task_run_name="{batch.label}",
    tags=[TAG],
    retries=_RETRIES,
    retry_delay_seconds=RETRY_DELAYS_SECONDS,
    retry_condition_fn=_is_retryable,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def export_local_days(run_id: str, priority: Priority, batch: DayBatch, accepts_vanished: bool = False) -> State[Any]:
    """Export the due windows of some local days; when tried again, only those whose failure may pass.

    Ends with a `TaskReport`, as failed when windows failed; or with the error that no other day could survive either.
    """
    context = TaskRunContext.get()
    assert context is not None
    results = _results_of_tries.pop(context.task_run.id, {})
    try:
        with shared_run(run_id, priority, accepts_vanished=accepts_vanished) as share:
            for day in batch.days:
                due = tuple(planned for planned in day.windows if planned.window not in results)
                if due:
                    results |= {result.window: result for result in export_day(share.run, replace(day, windows=due))}
            ended = tuple(results[planned.window] for day in batch.days for planned in day.windows)
            report = TaskReport(len(batch.days), ended, share.opening, share.requests)
    except Stopped:
        return Cancelled(message="The run was told to stop; what is not done is due again.")
    except CallHistoryError as error:
        state = failed(error)
    else:
        state = _state_of(report)
    if _is_retryable(export_local_days, context.task_run, state) and context.task_run.run_count <= _RETRIES:
        _results_of_tries[context.task_run.id] = {w: r for w, r in results.items() if not r.may_succeed_later}
    return state


def _state_of(report: TaskReport) -> State[Any]:
    logger = get_run_logger()
    for result in report.results:
        calls = f", {result.certificate.lake_rows} calls" if result.certificate else ""
        logger.info("window %s: %s%s", result.window.label, result.outcome.value, calls)
    if not report.failed:
        return Completed(data=report)
    error = f"{len(report.failed)} of {len(report.results)} windows failed; {report.failed[0].error}"
    return Failed(message=error, data=report)


def run_days(share: Share, plans: Sequence[DayPlan], priority: Priority, runner: Runner) -> dict[str, Any]:
    """Export the days in tasks, of which small days share one, and return the run's summary.

    A task that ends without a result for each window ends the run with its error: no other could do better. On that, on
    Ctrl-C and on Prefect's termination signal, days under way stop and their claims are given back.
    """
    run = share.run
    get_run_logger().info("run %s: %d local days are due", run.run_id, len(plans))
    try:
        reports = _run_tasks(share, plans, priority, runner) if plans else []
        results = finish_claimed_days(run, plans, [result for report in reports for result in report.results])
        results = follow_moved_calls(run, results)
    except BaseException:
        run.give_up()
        with suppress(CallHistoryError):  # claims lapse by themselves, and the first error says more than a second one
            run.pipeline.ledger.release_run(run.run_id)
        raise
    requests: dict[str, int] = {}
    for report in reports:
        requests[report.opening] = max(report.requests, requests.get(report.opening, 0))
    summary = summarise(run, results, sum((requests | {share.opening: share.requests}).values()))
    found = summary.to_dict()
    show_run(found, run.pipeline)
    return found


def _run_tasks(share: Share, plans: Sequence[DayPlan], priority: Priority, runner: Runner) -> list[TaskReport]:
    run_id = share.run.run_id
    pending, under_way, days_done = DayBatches(plans), 0, 0
    ended: SimpleQueue[PrefectFuture[Any]] = SimpleQueue()
    reports: list[TaskReport] = []
    with runner.start() as tasks:
        try:
            progress = Progress(len(plans), f"Run {run_id}: local days done")
            while days_done < len(plans):
                while pending and under_way < (tasks_ahead := runner.tasks_ahead()):
                    parameters = {
                        "run_id": run_id,
                        "priority": priority,
                        "batch": pending.take(tasks_ahead),
                        "accepts_vanished": share.run.beliefs.vanished,
                    }
                    tasks.submit(export_local_days, parameters).add_done_callback(ended.put)
                    under_way += 1
                report = _report(ended.get(), runner)
                reports.append(report)
                pending.learn(report.days, report.calls)
                under_way -= 1
                days_done += report.days
                progress.show(days_done)
        except BaseException:
            share.run.give_up()
            raise
    return reports


def _report(future: PrefectFuture[Any], runner: Runner) -> TaskReport:
    with runner.errors_explained():
        state: State[Any] = future.wrapped_future.result()  # type: ignore[attr-defined]
    report = state.result(raise_on_failure=False, _sync=True)  # type: ignore[call-overload]
    if isinstance(report, TaskReport):
        return report
    if isinstance(report, BaseException):
        raise report
    raise Stopped
