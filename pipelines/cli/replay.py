"""``callhistory replay``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.dates import From, Last, To, date_range
from pipelines.cli.output import Output, Report, counted, table

if TYPE_CHECKING:
    from pipelines.context import Stores
    from pipelines.proof.replay import WindowReplay

_LINES_SHOWN = 40
_WORDS = {"nothing": "right as it is", "in_place": "in place", "anew": "anew", "failed": "FAILED"}


@command
def replay(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    diff: Annotated[
        bool, typer.Option("--diff", help="Only show what would differ: rows, columns, examples; write nothing.")
    ] = False,
) -> Report:
    """Rebuild lake and warehouse from the raw copy, without the API and without credentials.

    Without a range, all days. What is as the raw copy makes it is not touched. Into an empty warehouse the same values,
    times and versions come out as when they were exported, and the same Parquet files byte for byte.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    now = datetime.now(settings.timezone)
    first_date, last_date = date_range(first, last, now, newest)
    from pipelines.context import open_stores
    from pipelines.proof.replay import known_days, plan_replay

    with open_stores(settings) as stores:
        if first_date is None or last_date is None:
            known = known_days(stores)
            first_date = first_date or min(known, default=now.date())
            last_date = last_date or max(known, default=now.date())
        output.log(f"replaying the local days from {first_date} to {last_date}")
        plans = plan_replay(stores, first_date, last_date, with_values=diff)
        if not diff:
            carry_out(output, stores, plans)
    return replay_report(plans, is_diff=diff)


def carry_out(output: Output, stores: Stores, plans: Sequence[WindowReplay]) -> None:
    """Replay what is planned, and tell of each window when it is done."""
    from pipelines.proof.replay import replay as replay_windows

    replay_windows(stores, plans, on_done=lambda done: output.log(f"{done.window.label} {_WORDS[done.action]}"))


def replay_report(plans: Sequence[WindowReplay], *, is_diff: bool = False, **more: int) -> Report:
    """Return what a replay ends with; ``more`` is added to its counts."""
    from pipelines.proof.replay import Action

    is_done = not any(plan.action is Action.FAILED for plan in plans)
    data = {
        "complete": is_done,
        "diff": is_diff,
        "windows": {action.value: sum(plan.action is action for plan in plans) for action in Action},
        **{name: sum(plan.to_dict()[name] for plan in plans) for name in ("calls_changed", "files_written")},
        **more,
        "changes": [plan.to_dict() for plan in plans if plan.action is not Action.NOTHING],
    }
    return Report(data, lambda console: _show(console, plans, data), DONE if is_done else INCOMPLETE)


def _show(console: Console, plans: Sequence[WindowReplay], data: Mapping[str, Any]) -> None:
    due = [plan for plan in plans if plan.action.value != "nothing"]
    rows = (
        (plan.window.label, len(plan.states), _WORDS[plan.action], plan.to_dict()["calls_changed"])
        for plan in due[:_LINES_SHOWN]
    )
    if due and not data["diff"]:
        console.print(table(("window (UTC)", "states", "rebuilt", "calls changed"), rows))
    for line in list(_diff_lines(due))[:_LINES_SHOWN]:
        console.print(line, soft_wrap=True)
    for plan in due:
        if plan.error:
            console.print(f"failed: {plan.error}", soft_wrap=True)
    windows = data["windows"]
    console.print(
        f"{counted(len(plans), 'window')}: {windows['nothing']:,} right as they are, "
        f"{windows['in_place']:,} {'to be ' if data['diff'] else ''}brought up to date, "
        f"{windows['anew']:,} {'to be ' if data['diff'] else ''}made anew, {windows['failed']:,} failed. "
        + ("Nothing was written." if data["diff"] else f"{counted(data['files_written'], 'file')} written."),
        soft_wrap=True,
    )
    if "rejected_rows" in data:
        freed = data["rejected_rows_before"] - data["rejected_rows"]
        console.print(f"{counted(freed, 'row')} became calls, {data['rejected_rows']:,} left in quarantine.")


def _diff_lines(plans: Iterable[WindowReplay]) -> Iterable[str]:
    for plan in plans:
        for difference in plan.tables:
            yield (
                f"{plan.window.label} {difference.table}: {difference.added:,} more, {difference.removed:,} fewer, "
                f"{difference.changed:,} changed"
            )
            for column in difference.columns:
                yield f"    {column.column}: {counted(column.rows, 'row')}"
                for example in column.examples:
                    yield f"        {example['call_id']}: {example['now']} -> {example['then']}"
        if not plan.tables:
            for found in plan.differences:
                yield f"{plan.window.label} {found.place} {found.table}: {found.count:,} {found.kind}"
