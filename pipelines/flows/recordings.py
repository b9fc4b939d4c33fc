"""The archive of recordings as a flow."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from pipelines.context import open_stores_in_use
from pipelines.flows.artifacts import show_archive
from pipelines.flows.states import named, run_and_tell, tells_crash
from pipelines.recordings.archive import archive_recordings as drain_recordings
from pipelines.settings import load_settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.request_budget import Priority
from pipelines.watch.last_runs import RunKind


@flow(
    name="archive_recordings",
    flow_run_name=named("archive"),
    persist_result=False,
    on_crashed=[tells_crash(RunKind.ARCHIVE)],
)
def archive_recordings(again: bool = False) -> dict[str, Any] | State[Any]:
    """Fetch every recording that is due into the archive.

    Returns the summary. While a recording is failing, and in the run that finds out that one is missing for good, a run
    ends as `Incomplete`, which is a failed state.

    Args:
        again: Ask at once for everything that is missing or failed.
    """

    def work() -> dict[str, Any]:
        settings = load_settings()
        with open_stores_in_use(settings) as stores, StringeeXClient(settings, priority=Priority.RECORDINGS) as client:
            summary = drain_recordings(stores, client, again=again).to_dict()
        show_archive(summary)
        return summary

    return run_and_tell(RunKind.ARCHIVE, work)
