"""How flow runs are named, and how they end: states, the error of one that left something undone, who is told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import FlowStateHook
from prefect.states import Failed

from pipelines.logs import set_up_logs
from pipelines.settings import load_settings
from pipelines.watch.last_runs import RunKind, problem_of
from pipelines.watch.notifications import notified, notify_run_end
from sinks.private_files import UMASK
from transforms.errors import CallHistoryError

TAG = "callhistory"
INCOMPLETE = "Incomplete"


class IncompleteRunError(CallHistoryError):
    """A flow run that did what it could and left something undone; ``summary`` is what a complete run returns."""

    def __init__(self, message: str, summary: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.summary = dict(summary)


def run_and_tell(
    kind: RunKind, work: Callable[[], dict[str, Any]], *, require_api: bool = True
) -> dict[str, Any] | State[Any]:
    """Return what a flow returns: the summary that ``work`` gives, or the state that stands for what went wrong.

    The logs are set up before, and people are told after, as the settings say.
    """
    os.umask(UMASK)
    try:
        settings = load_settings(require_api=require_api)
        set_up_logs(settings.log_format)
        summary = notified(settings, kind, work)
        problem = problem_of(kind, summary)
        if problem is not None:
            raise IncompleteRunError(problem, summary)
    except CallHistoryError as error:
        return failed(error)
    return summary


def tells_crash(kind: RunKind) -> FlowStateHook[..., Any]:
    """Return a hook that tells people of a scheduled run whose process was lost, and could not tell itself."""

    def tell_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        # A run that somebody started by hand has been stopped by the same hand.
        if flow_run.deployment_id is not None:
            notify_run_end(load_settings(require_api=False), kind, "the run crashed: Prefect's log of it tells more")

    return tell_crash


def failed(error: CallHistoryError) -> State[Any]:
    """Return the state that stands for an error: raised, it would be logged with its traceback and stored."""
    return Failed(name=INCOMPLETE if isinstance(error, IncompleteRunError) else None, message=str(error), data=error)


def named(what: str) -> Callable[[], str]:
    """Return what names a flow run: ``what`` it does, and the minute."""
    return lambda: f"{what} {datetime.now(UTC):%Y-%m-%dT%H:%MZ}"
