"""The recount of the newest days as a flow."""

from __future__ import annotations

from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from pydantic import Field

from pipelines.context import open_pipeline_to_read, open_stores_to_read, utc_now
from pipelines.flows.artifacts import show_verification
from pipelines.flows.states import named, run_and_tell, tells_crash
from pipelines.proof.verify import DayCheck, days_to_verify, verify_day
from pipelines.settings import load_settings
from pipelines.stringeex.request_budget import Priority
from pipelines.watch.last_runs import RunKind
from pipelines.windows import ONE_DAY, local_date

VERIFIED_DAYS = 42
"""With the usual re-reads, the last of them after 30 days, a weekly run sees every day after it is settled, too."""


@flow(
    name="verify_calls", flow_run_name=named("verify"), persist_result=False, on_crashed=[tells_crash(RunKind.VERIFY)]
)
def verify_calls(
    days: Annotated[int, Field(ge=1, le=20_000)] = VERIFIED_DAYS, offline: bool = False
) -> dict[str, Any] | State[Any]:
    """Recount API, raw copy, lake and warehouse from scratch, value for value, and say where they differ.

    The API is asked of days that are settled only: of others calls may still come and change, for which they are read
    again anyway. Changes nothing, and costs one request per settled window. Returns the recount of each day. A run that
    finds a difference ends as `Incomplete`, which is a failed state.

    Args:
        days: How many local days, counted back from yesterday.
        offline: Leave the API out.
    """

    def work() -> dict[str, Any]:
        summary = _verify(days, offline=offline)
        show_verification(summary)
        return summary

    return run_and_tell(RunKind.VERIFY, work, require_api=not offline)


def _verify(days: int, *, offline: bool) -> dict[str, Any]:
    logger, now = get_run_logger(), utc_now()
    settings = load_settings(require_api=not offline)
    checks: list[DayCheck] = []
    opened = (
        open_stores_to_read(settings, reads_lake=True) if offline else open_pipeline_to_read(settings, Priority.VERIFY)
    )
    with opened as stores:
        yesterday = local_date(now, stores.timezone) - ONE_DAY
        unsettled = {row.call_date for row in stores.ledger.rows() if not row.settled}
        for call_date in days_to_verify(stores, None, yesterday, now)[-days:]:
            checks.append(verify_day(stores, call_date, now, offline=offline or call_date in unsettled))
            logger.info("%s: %s", call_date, "right" if checks[-1].is_right else "differs")
    return {
        "ok": all(check.is_right for check in checks),
        "offline": offline,
        "days": [check.to_dict() for check in checks],
    }
