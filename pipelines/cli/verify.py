"""``callhistory verify``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.dates import From, Last, To, date_range
from pipelines.cli.output import Output, Report, counted, table
from pipelines.cli.progress import tell_retries

if TYPE_CHECKING:
    from pipelines.proof.verify import DayCheck

_DAYS_SHOWN = 40
_DIFFERENCES_SHOWN = 40


@command
def verify(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Leave the API out; needs no credentials and sends no request.")
    ] = False,
) -> Report:
    """Recount API, raw copy, lake and warehouse from scratch, value for value, and say where they differ.

    Without a range, all days. Changes nothing. Costs one request per window, and a full read of those whose count
    differs. Ends with exit code 3 when anything differs.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=not offline)
    first_date, last_date = date_range(first, last, datetime.now(settings.timezone), newest)
    from pipelines.context import open_pipeline_to_read, open_stores_to_read
    from pipelines.proof.verify import days_to_verify, verify_day
    from pipelines.stringeex.request_budget import Priority
    from pipelines.windows import ranges_as_json

    tell_retries(output)
    now = datetime.now(UTC)
    days = []
    opened = (
        open_stores_to_read(settings, reads_lake=True) if offline else open_pipeline_to_read(settings, Priority.VERIFY)
    )
    with opened as stores:
        planned = days_to_verify(stores, first_date, last_date, now)
        if planned:
            output.log(f"verifying {counted(len(planned), 'local day')}: {planned[0]} to {planned[-1]}")
        for day in planned:
            days.append(verify_day(stores, day, now, offline=offline))
            output.log(f"{day} {'ok' if days[-1].is_right else 'DIFFERS'}")
    is_right = all(day.is_right for day in days)
    data = {
        "ok": is_right,
        "offline": offline,
        "days": [day.to_dict() for day in days],
        "ranges": ranges_as_json(((day.call_date, day.is_right) for day in days), "ok"),
    }
    return Report(data, lambda console: _show(console, days), DONE if is_right else INCOMPLETE)


def _show(console: Console, days: Sequence[DayCheck]) -> None:
    from pipelines.windows import day_ranges

    wrong = [day for day in days if not day.is_right]
    shown = [day for day in wrong if not day.is_not_exported] or [day for day in days if day.is_right]
    rows = (
        (
            day.call_date,
            day.total("api_total"),
            day.total("raw_rows"),
            day.total("rejected"),
            day.total("lake_rows"),
            day.total("warehouse_rows"),
            day.is_right,
        )
        for day in shown[-_DAYS_SHOWN:]
    )
    console.print(table(("day", "API", "raw", "rejected", "lake", "warehouse", "right"), rows))
    found = [
        (day.call_date, _line(difference)) for day in wrong for check in day.windows for difference in check.differences
    ]
    lines = [
        f"{first} {line}" if first == last else f"{first} to {last} {line}"
        for first, last, line in day_ranges(dict.fromkeys(found))
    ]
    for line in lines[:_DIFFERENCES_SHOWN]:
        console.print(line, soft_wrap=True)
    if len(lines) > _DIFFERENCES_SHOWN:
        console.print(f"... and {len(lines) - _DIFFERENCES_SHOWN:,} more; --json has all")
    console.print(f"\n{counted(len(days), 'day')} verified, {len(wrong):,} with differences.")


def _line(difference: Any) -> str:
    ids = ": " + ", ".join(difference.call_ids) if difference.call_ids else ""
    message = f" ({difference.message})" if difference.message else ""
    return f"{difference.place} {difference.table}: {difference.count:,} {difference.kind}{message}{ids}"
