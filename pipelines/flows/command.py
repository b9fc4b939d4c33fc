"""Flows run by a command, in its process: the summary comes back whatever the state, or the error that ended it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import httpx
from prefect import tags
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipelines.flows.export import backfill_calls, export_calls
from pipelines.flows.recordings import archive_recordings
from pipelines.flows.runners import check_dask
from pipelines.flows.states import TAG, IncompleteRunError
from pipelines.settings import load_settings
from transforms.errors import SettingsError, TransportError

CLIENT_RETRIES = 8
"""Waits of 2, 4, ... 256 seconds: a server that is away when a run ends is told when it is back."""


def run_export_flow() -> dict[str, Any]:
    """Run `export_calls` in this process and return its summary, also when windows failed.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or
    ``RetryableError``.
    """
    return _summary_of(export_calls)


def run_backfill_flow(
    first: date,
    last: date,
    force: bool = False,
    concurrency: int | None = None,
    dask: str | None = None,
    accept_vanished: bool = False,
) -> dict[str, Any]:
    """Run `backfill_calls` in this process and return its summary, also when windows failed.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or when ``dask``
    is given and cannot be done; or ``RetryableError``.
    """
    if dask is not None:
        check_dask(dask, load_settings())
    return _summary_of(backfill_calls, first, last, force, concurrency, dask, accept_vanished)


def run_archive_flow(again: bool = False) -> dict[str, Any]:
    """Run `archive_recordings` in this process and return its summary, also when recordings are missing.

    Raises what ended the run, if anything did: ``SettingsError``, also when no Prefect server answers, or
    ``RetryableError``.
    """
    return _summary_of(archive_recordings, again)


def _summary_of(run_flow: Callable[..., Any], *parameters: Any) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise SettingsError(
            f"PREFECT_API_URL: no Prefect server answers there ({type(problem).__name__}): "
            "start it, correct the address, or unset the variable to run without Prefect"
        ) from problem
    try:
        with tags(TAG), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: CLIENT_RETRIES}):
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
