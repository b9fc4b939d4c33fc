"""The plain functions as Prefect flows: thin decorators, and the only package that imports Prefect.

A flow run opens its own pipeline from its own environment; nothing but dates, numbers and switches is a parameter, and
nothing that was exported is a result.
"""

from pipelines.flows.command import run_archive_flow, run_backfill_flow, run_export_flow
from pipelines.flows.days import export_local_days
from pipelines.flows.export import backfill_calls, export_calls, export_recent_calls
from pipelines.flows.live import snapshot_live_calls
from pipelines.flows.recordings import archive_recordings
from pipelines.flows.report import write_report
from pipelines.flows.verify import verify_calls

__all__ = [
    "archive_recordings",
    "backfill_calls",
    "export_calls",
    "export_local_days",
    "export_recent_calls",
    "run_archive_flow",
    "run_backfill_flow",
    "run_export_flow",
    "snapshot_live_calls",
    "verify_calls",
    "write_report",
]
