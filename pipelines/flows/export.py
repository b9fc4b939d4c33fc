"""The exports as flows: everything that is due, the newest days, a range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from pipelines.context import Pipeline, open_pipeline, utc_now
from pipelines.flows.days import run_days
from pipelines.flows.states import failed, named
from pipelines.planner import DayPlan
from pipelines.run import plan_days, plan_export, plan_recent
from pipelines.settings import load_settings
from pipelines.stringeex.budget import Priority
from transforms.errors import CallHistoryError, SettingsError


@flow(name="export_calls", flow_run_name=named("export"), persist_result=False)
def export_calls() -> dict[str, Any] | State[Any]:
    """Export everything that is due: new days, failed ones, the current day, and days due for re-reading.

    Returns the run's summary. A run that leaves a window failed ends as `Incomplete`, which is a failed state.
    """
    return _run(lambda pipeline: plan_export(pipeline, utc_now()))


@flow(name="export_recent_calls", flow_run_name=named("export recent"), persist_result=False)
def export_recent_calls() -> dict[str, Any] | State[Any]:
    """Export what is due of yesterday and today: the hourly look between two nightly runs, a request or two each.

    Older days, whether they failed or are due for re-reading, are the nightly's. Returns the run's summary. A run that
    leaves a window failed ends as `Incomplete`, which is a failed state.
    """
    return _run(lambda pipeline: plan_recent(pipeline, utc_now()))


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
        return failed(SettingsError(f"first ({first}) comes after last ({last}): exchange them"))
    return _run(
        lambda pipeline: plan_days(pipeline, first, last, utc_now(), force=force), concurrency, Priority.BACKFILL
    )


def _run(
    plan: Callable[[Pipeline], Sequence[DayPlan]],
    concurrency: int | None = None,
    priority: Priority = Priority.EXPORT,
) -> dict[str, Any] | State[Any]:
    try:
        with open_pipeline(load_settings(), priority) as pipeline:
            return run_days(pipeline, plan(pipeline), concurrency or pipeline.settings.concurrency)
    except CallHistoryError as error:
        return failed(error)
