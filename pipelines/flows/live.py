"""A snapshot of the calls in progress as a flow."""

from __future__ import annotations

from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State

from pipelines.context import open_stores
from pipelines.flows.states import failed, named
from pipelines.logs import set_up_logs
from pipelines.settings import load_settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.operations import StringeeX
from pipelines.stringeex.request_budget import Priority
from pipelines.watch.live_calls import take_snapshot
from transforms.errors import CallHistoryError


@flow(name="snapshot_live_calls", flow_run_name=named("live"), persist_result=False)
def snapshot_live_calls() -> dict[str, Any] | State[Any]:
    """Write the calls in progress to `live_calls` as the newest snapshot.

    Returns when it was taken, how many calls it holds, the API's own count, and how many entries had no call id.
    """
    try:
        settings = load_settings()
        set_up_logs(settings.log_format)
        with open_stores(settings) as stores, StringeeXClient(settings, priority=Priority.INTERACTIVE) as client:
            snapshot = take_snapshot(StringeeX(client), stores)
    except CallHistoryError as error:
        return failed(error)
    get_run_logger().info("%d calls in progress", len(snapshot.calls))
    return {
        "snapshot_at": snapshot.taken_at.isoformat(),
        "calls": len(snapshot.calls),
        "api_total": snapshot.api_total,
        "unreadable": snapshot.unreadable,
    }
