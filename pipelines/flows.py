"""Export, backfill and archive as Prefect flows: thin decorators over the plain functions of `run` and `recordings`.

The only module that imports Prefect. A flow run opens its own pipeline from its own environment; nothing but dates,
numbers and switches is a parameter, and nothing that was exported is a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Annotated, Any, cast
from uuid import UUID

import httpx
from prefect import Task, flow, get_run_logger, tags, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.futures import PrefectFuture, as_completed
from prefect.states import Cancelled, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from pipelines.context import Pipeline, open_pipeline, open_stores, utc_now
from pipelines.export import Outcome, Run, Stopped, WindowResult, export_day
from pipelines.planner import DayPlan
from pipelines.recordings.archive import archive_recordings as drain_recordings
from pipelines.run import new_run, plan_days, plan_export, requests_sent, summarise
from pipelines.settings import load_settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.windows import Window
from transforms.errors import CallHistoryError, DataError, RetryableError, SettingsError, TransportError

SUMMARY_ARTIFACT = "callhistory-run-summary"
ARCHIVE_ARTIFACT = "callhistory-archive-summary"
PROGRESS_ARTIFACT = "callhistory-progress"
INCOMPLETE = "Incomplete"
TAG = "callhistory"
RETRY_DELAYS_SECONDS = [5.0, 20.0]
"""Waits before a day with failed windows is tried again. The client has its own, finer retries below this."""

_SUMMARY_COLUMNS = ("api_total", "lake_rows", "rejected", "warehouse_rows")


class IncompleteRunError(CallHistoryError):
    """A flow run that exported what it could and left windows failed; ``summary`` is ``RunSummary.to_dict()``."""

    def __init__(self, message: str, summary: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.summary = dict(summary)


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


def _run_name() -> str:
    return f"export {datetime.now(UTC):%Y-%m-%dT%H:%MZ}"


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
        return _failed(error)
    results = work.of_day(day)
    for result in results:
        calls = f", {result.certificate.lake_rows} calls" if result.certificate else ""
        logger.info("window %s: %s%s", result.window.label, result.outcome.value, calls)
    failed = [result for result in results if result.outcome is Outcome.FAILED]
    if not failed:
        return None
    error_class = RetryableError if any(result.may_succeed_later for result in failed) else DataError
    return _failed(error_class(f"{len(failed)} of {len(results)} windows failed; {failed[0].error}"))


@flow(name="export_calls", flow_run_name=_run_name, persist_result=False)
def export_calls() -> dict[str, Any] | State[Any]:
    """Export everything that is due: new days, failed ones, the current day, and days due for re-reading.

    Returns the run's summary. A run that leaves a window failed ends as `Incomplete`, which is a failed state.
    """
    return _run(lambda pipeline: plan_export(pipeline, utc_now()))


@flow(name="backfill_calls", flow_run_name="backfill {first}..{last}", persist_result=False)
def backfill_calls(
    first: date, last: date, force: bool = False, concurrency: Annotated[int, Field(ge=1, le=64)] | None = None
) -> dict[str, Any] | State[Any]:
    """Export what is due of a range of local days.

    Returns the run's summary. A run that leaves a window failed ends as `Incomplete`, which is a failed state.

    Args:
        first: First local day.
        last: Last local day, included.
        force: Read days again that are complete, even settled ones.
        concurrency: Local days exported side by side; by default as `CALLHISTORY_CONCURRENCY` says.
    """
    if first > last:
        return _failed(SettingsError(f"first ({first}) comes after last ({last}): exchange them"))
    return _run(lambda pipeline: plan_days(pipeline, first, last, utc_now(), force=force), concurrency)


def run_export_flow() -> dict[str, Any]:
    """Run `export_calls` in this process and return its summary, also when windows failed.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or
    ``RetryableError``.
    """
    return _summary_of(export_calls)


def run_backfill_flow(first: date, last: date, force: bool = False, concurrency: int | None = None) -> dict[str, Any]:
    """Run `backfill_calls` in this process and return its summary, also when windows failed.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or
    ``RetryableError``.
    """
    return _summary_of(backfill_calls, first, last, force, concurrency)


@flow(
    name="archive_recordings",
    flow_run_name=lambda: f"archive {datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
    persist_result=False,
)
def archive_recordings() -> dict[str, Any] | State[Any]:
    """Fetch every recording that is due into the archive.

    Returns the summary. While a recording is missing or failed, a run ends as `Incomplete`, which is a failed state.
    """
    try:
        settings = load_settings()
        with open_stores(settings) as stores, StringeeXClient(settings) as client:
            summary = drain_recordings(stores, client).to_dict()
        create_markdown_artifact(_archive_markdown(summary), ARCHIVE_ARTIFACT, "Recordings")
        if not summary["complete"]:
            counts = summary["recordings"]
            raise IncompleteRunError(f"{counts['missing']} recordings missing, {counts['failed']} failed", summary)
    except CallHistoryError as error:
        return _failed(error)
    return summary


def run_archive_flow() -> dict[str, Any]:
    """Run `archive_recordings` in this process and return its summary, also when recordings are missing.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or
    ``RetryableError``.
    """
    return _summary_of(archive_recordings)


def _summary_of(run_flow: Callable[..., Any], *parameters: Any) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise SettingsError(
            f"PREFECT_API_URL: no Prefect server answers there ({type(problem).__name__}): "
            "start it, correct the address, or unset the variable to run without Prefect"
        ) from problem
    try:
        with tags(TAG):
            summary: dict[str, Any] = run_flow(*parameters)
    except IncompleteRunError as incomplete:
        return incomplete.summary
    except httpx.HTTPError as error:
        # Whatever the export's own client meets has a name of its own by then: this one is Prefect's.
        raise TransportError(
            f"the Prefect server refused a request or went away ({type(error).__name__}): what is exported by then "
            "is kept; run it again"
        ) from error
    return summary


def _run(plan: Callable[[Pipeline], Sequence[DayPlan]], concurrency: int | None = None) -> dict[str, Any] | State[Any]:
    try:
        with open_pipeline(load_settings()) as pipeline:
            return _run_days(pipeline, plan(pipeline), concurrency or pipeline.settings.concurrency)
    except CallHistoryError as error:
        return _failed(error)


def _failed(error: CallHistoryError) -> State[Any]:
    """Return the state that stands for an error: raised, it would be logged with its traceback and stored."""
    return Failed(name=INCOMPLETE if isinstance(error, IncompleteRunError) else None, message=str(error), data=error)


def _run_days(pipeline: Pipeline, plans: Sequence[DayPlan], concurrency: int) -> dict[str, Any]:
    """Run one task per day and return the summary. Raises IncompleteRunError when windows failed."""
    requests_before = requests_sent(pipeline)
    with _shared(_Work(new_run(pipeline))) as work:
        _run_tasks(work, plans, concurrency)
    results = [result for day in plans for result in work.of_day(day)]
    run = summarise(work.run, results, requests_before)
    summary = run.to_dict()
    create_markdown_artifact(_markdown(summary), SUMMARY_ARTIFACT, f"Run {run.run_id}")
    if not run.is_complete:
        failed = len(run.with_outcome(Outcome.FAILED))
        raise IncompleteRunError(f"{failed} of {len(results)} windows failed; they are due again", summary)
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
            about = f"Run {work.run.run_id}: local days done"
            progress_artifact = cast(UUID, create_progress_artifact(0.0, PROGRESS_ARTIFACT, about))
            percent_shown = 0
            for done, future in enumerate(as_completed(list(days)), start=1):
                if len(work.of_day(days[future])) < len(days[future].windows):
                    future.result()
                percent = 100 * done // len(days)
                if percent > percent_shown:
                    update_progress_artifact(progress_artifact, float(percent))
                    percent_shown = percent
        except BaseException:
            work.run.stop.set()
            raise


def _markdown(summary: Mapping[str, Any]) -> str:
    lines = [
        f"{'Complete' if summary['complete'] else '**Incomplete**'}: "
        + ", ".join(f"{count} windows {outcome}" for outcome, count in summary["windows"].items()),
        "",
        "| day | API | lake | rejected | warehouse | complete |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for day in summary["days"]:
        counts = ("-" if day[column] is None else str(day[column]) for column in _SUMMARY_COLUMNS)
        lines.append(f"| {day['call_date']} | {' | '.join(counts)} | {'yes' if day['complete'] else '**no**'} |")
    sums = (str(sum(day[column] or 0 for day in summary["days"])) for column in _SUMMARY_COLUMNS)
    lines += [f"| **all** | {' | '.join(sums)} | {'yes' if summary['complete'] else '**no**'} |", ""]
    totals = ("calls_inserted", "calls_updated", "calls_restored", "calls_vanished", "files_written", "requests")
    lines += [f"- {total.replace('_', ' ')}: {summary[total]}" for total in totals]
    lines += [f"- {change['kind']}: `{change['field']}` since {change['since']}" for change in summary["drift"]]
    lines += [f"- {error}" for error in summary["errors"]]
    return "\n".join(lines)


def _archive_markdown(summary: Mapping[str, Any]) -> str:
    lines = ["| recordings | |", "|---|---:|", *(f"| {name} | {n} |" for name, n in summary["recordings"].items()), ""]
    lines += [f"- {name} in this run: {summary[name]}" for name in ("archived", "bytes", "requests")]
    return "\n".join([*lines, *(f"- {error}" for error in summary["errors"])])
