"""The archive of recordings as a flow."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from pipelines.context import open_stores
from pipelines.flows.artifacts import show_archive
from pipelines.flows.states import IncompleteRunError, failed, named
from pipelines.recordings.archive import archive_recordings as drain_recordings
from pipelines.settings import load_settings
from pipelines.stringeex.budget import Priority
from pipelines.stringeex.client import StringeeXClient
from transforms.errors import CallHistoryError


@flow(name="archive_recordings", flow_run_name=named("archive"), persist_result=False)
def archive_recordings() -> dict[str, Any] | State[Any]:
    """Fetch every recording that is due into the archive.

    Returns the summary. While a recording is missing or failed, a run ends as `Incomplete`, which is a failed state.
    """
    try:
        settings = load_settings()
        with open_stores(settings) as stores, StringeeXClient(settings, priority=Priority.RECORDINGS) as client:
            summary = drain_recordings(stores, client).to_dict()
        show_archive(summary)
        if not summary["complete"]:
            counts = summary["recordings"]
            raise IncompleteRunError(f"{counts['missing']} recordings missing, {counts['failed']} failed", summary)
    except CallHistoryError as error:
        return failed(error)
    return summary
