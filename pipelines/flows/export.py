"""The exports as flows: everything that is due, the newest days, a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from pipelines.context import Pipeline, utc_now
from pipelines.erasure.before_export import before_export
from pipelines.export.planner import DayPlan
from pipelines.export.run import new_run_id, plan_days, plan_export, plan_recent
from pipelines.flows.days import run_days
from pipelines.flows.runners import DASK, runner_for
from pipelines.flows.shared import shared_run
from pipelines.flows.states import failed, named, run_and_tell, tells_crash
from pipelines.settings import load_settings
from pipelines.stringeex.request_budget import Priority
from pipelines.watch.last_runs import RunKind
from transforms.errors import SettingsError


@flow(
    name="export_calls", flow_run_name=named("export"), persist_result=False, on_crashed=[tells_crash(RunKind.EXPORT)]
)
def export_calls() -> dict[str, Any] | State[Any]:
    """Export everything that is due: new days, failed ones, the current day, and days due for re-reading.

    Returns the run's summary. A run that leaves a window undone ends as `Incomplete`, which is a failed state.
    """
    return _run(RunKind.EXPORT, lambda pipeline: plan_export(pipeline, utc_now()), Priority.EXPORT)


@flow(
    name="export_recent_calls",
    flow_run_name=named("export recent"),
    persist_result=False,
    on_crashed=[tells_crash(RunKind.EXPORT_RECENT)],
)
def export_recent_calls() -> dict[str, Any] | State[Any]:
    """Export what is due of yesterday and today: the hourly look between two nightly runs, a request or two each.

    Older days, whether they failed or are due for re-reading, are the nightly's. Returns the run's summary. A run that
    leaves a window undone ends as `Incomplete`, which is a failed state.
    """
    return _run(RunKind.EXPORT_RECENT, lambda pipeline: plan_recent(pipeline, utc_now()), Priority.EXPORT)


@flow(
    name="backfill_calls",
    flow_run_name="backfill {first}..{last}",
    persist_result=False,
    on_crashed=[tells_crash(RunKind.BACKFILL)],
)
def backfill_calls(
    first: date,
    last: date,
    force: bool = False,
    concurrency: Annotated[int, Field(ge=1, le=64)] | None = None,
    dask: Annotated[str, Field(pattern=DASK)] | None = None,
    accept_vanished: bool = False,
) -> dict[str, Any] | State[Any]:
    """Export what is due of a range of local days.

    Returns the run's summary. A run that leaves a window undone ends as `Incomplete`, which is a failed state.

    Args:
        first: First local day.
        last: Last local day, included.
        force: Read days again that are complete, even settled ones.
        concurrency: Local days exported side by side; by default as `CALLHISTORY_CONCURRENCY` says, and on an existing
            Dask cluster as many as its workers have threads.
        dask: Where to do them, if not in threads of this process: the address of a Dask scheduler, such as
            tcp://host:8786, or a number of worker processes to start here. Needs PostgreSQL (or MariaDB), and a lake
            that all workers share.
        accept_vanished: Believe the source that most of a day's calls are gone. Without it, such a day is held.
    """
    if first > last:
        return failed(SettingsError(f"first ({first}) comes after last ({last}): exchange them"))
    return _run(
        RunKind.BACKFILL,
        lambda pipeline: plan_days(pipeline, first, last, utc_now(), force=force),
        Priority.BACKFILL,
        concurrency,
        dask,
        accept_vanished,
    )


def _run(
    kind: RunKind,
    plan: Callable[[Pipeline], Sequence[DayPlan]],
    priority: Priority,
    concurrency: int | None = None,
    dask: str | None = None,
    accept_vanished: bool = False,
) -> dict[str, Any] | State[Any]:
    def work() -> dict[str, Any]:
        runner = runner_for(dask, concurrency, load_settings())
        with shared_run(new_run_id(), priority, accepts_vanished=accept_vanished) as share:
            before_export(share.run.pipeline)
            return run_days(share, plan(share.run.pipeline), priority, runner)

    return run_and_tell(kind, work)
