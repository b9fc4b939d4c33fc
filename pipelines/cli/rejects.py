"""``callhistory rejects``: the quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.cli.command import DONE, command
from pipelines.cli.dates import From, Last, To, date_range
from pipelines.cli.output import Output, Report, counted, table
from pipelines.cli.replay import carry_out, replay_report

if TYPE_CHECKING:
    from pipelines.proof.rejects import RejectGroup

_PAYLOADS_SHOWN = 10

rejects = typer.Typer(name="rejects", help="Rows that cannot be a call: the quarantine.", no_args_is_help=True)


@rejects.command("list")
@command
def list_(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    show_payload: Annotated[
        bool,
        typer.Option("--show-payload", help="Show up to ten payloads of each line: customers' data, as served."),
    ] = False,
) -> Report:
    """List the quarantine: how many rows, of which window, why, and the field at fault."""
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    first_date, last_date = date_range(first, last, datetime.now(settings.timezone), newest)
    from pipelines.context import open_stores_to_read
    from pipelines.proof.rejects import list_rejects

    with open_stores_to_read(settings) as stores:
        groups = list_rejects(stores, first_date, last_date, with_payloads=_PAYLOADS_SHOWN if show_payload else 0)
    data = {"rejected_rows": sum(group.rows for group in groups), "rejects": [group.to_dict() for group in groups]}
    return Report(data, lambda console: _show(console, groups), DONE)


@rejects.command("retry")
@command
def retry(output: Output, first: From = None, last: To = None, newest: Last = None) -> Report:
    """Read the quarantined rows again, from the raw copy: after a new version that understands them.

    Replays the windows that have rejected rows; what is a call now becomes one.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    first_date, last_date = date_range(first, last, datetime.now(settings.timezone), newest)
    from pipelines.context import open_stores_in_use
    from pipelines.proof.rejects import count_rejects, list_rejects
    from pipelines.proof.replay import plan_replay

    with open_stores_in_use(settings) as stores:
        groups = list_rejects(stores, first_date, last_date)
        before = sum(group.rows for group in groups)
        starts = {group.window_start for group in groups}
        plans = [
            plan
            for day in sorted({group.call_date for group in groups})
            for plan in plan_replay(stores, day, day, only=lambda window: window.start in starts)
        ]
        carry_out(output, stores, plans)
        left = count_rejects(stores, first_date, last_date)
    return replay_report(plans, rejected_rows_before=before, rejected_rows=left)


def _show(console: Console, groups: Sequence[RejectGroup]) -> None:
    if not groups:
        console.print("The quarantine is empty.")
        return
    rows = (
        (group.reason, group.field, group.call_date, f"{group.window_start:%Y-%m-%d %H:%M}", group.rows)
        for group in groups
    )
    console.print(table(("reason", "field", "day", "window from (UTC)", "rows"), rows))
    for group in groups:
        for payload in group.payloads:
            console.print(payload, soft_wrap=True)
    console.print(f"\n{counted(sum(group.rows for group in groups), 'row')} in quarantine.")
