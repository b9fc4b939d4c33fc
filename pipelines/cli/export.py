"""``callhistory export`` and ``callhistory backfill``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.dates import From, Last, To, given_range
from pipelines.cli.drift import drift_line
from pipelines.cli.output import Output, Report, counted, table, time_taken
from pipelines.cli.progress import RunProgress, tell_retries

if TYPE_CHECKING:
    from pipelines.context import Pipeline
    from pipelines.export.planner import DayPlan
    from pipelines.settings import Settings
    from pipelines.stringeex.request_budget import Priority

_ERRORS_SHOWN = 10
_DAYS_SHOWN = 40


@command
def export(output: Output) -> Report:
    """Export everything that is due: the nightly job.

    Due is what was never exported, failed, was still open, or is to be read again. With PREFECT_API_URL in the
    environment it runs as a Prefect flow.
    """
    from pipelines.settings import load_settings

    settings = load_settings()
    if os.environ.get("PREFECT_API_URL"):
        from pipelines.flows import run_export_flow

        return summary_report(run_export_flow())
    from pipelines.export.run import plan_export
    from pipelines.stringeex.request_budget import Priority
    from pipelines.watch.last_runs import RunKind
    from pipelines.watch.notifications import notified

    def run() -> dict[str, Any]:
        return run_in_process(output, settings, plan_export, Priority.EXPORT)

    return summary_report(notified(settings, RunKind.EXPORT, run))


@command
def backfill(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    force: Annotated[bool, typer.Option("--force", help="Read again what is complete or settled, too.")] = False,
    accept_vanished: Annotated[
        bool,
        typer.Option(
            "--accept-vanished", help="Believe the source that most of a day's calls are gone, which holds a day else."
        ),
    ] = False,
    dask: Annotated[
        str | None,
        typer.Option(
            "--dask",
            metavar="ADDRESS|N",
            help="Work on a Dask cluster: of a scheduler such as tcp://host:8786, or N worker processes started here. "
            "Needs a Prefect server and PostgreSQL.",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only print windows, requests, hours and disk space; ask for nothing."),
    ] = False,
) -> Report:
    """Export what is due of a range of local days, both included.

    With PREFECT_API_URL in the environment it runs as a Prefect flow.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=not dry_run)
    first_date, last_date = given_range(first, last, datetime.now(settings.timezone), newest)
    if dry_run:
        return _dry_run(settings, first_date, last_date, force=force)
    if dask is not None or os.environ.get("PREFECT_API_URL"):
        from pipelines.flows import run_backfill_flow

        return summary_report(
            run_backfill_flow(first_date, last_date, force, dask=dask, accept_vanished=accept_vanished)
        )
    from pipelines.export.run import plan_days
    from pipelines.stringeex.request_budget import Priority
    from pipelines.watch.last_runs import RunKind
    from pipelines.watch.notifications import notified

    def plan(pipeline: Pipeline, now: datetime) -> Sequence[DayPlan]:
        return plan_days(pipeline, first_date, last_date, now, force=force)

    def run() -> dict[str, Any]:
        return run_in_process(output, settings, plan, Priority.BACKFILL, accepts_vanished=accept_vanished)

    return summary_report(notified(settings, RunKind.BACKFILL, run))


def run_in_process(
    output: Output,
    settings: Settings,
    plan: Callable[[Pipeline, datetime], Sequence[DayPlan]],
    priority: Priority,
    *,
    accepts_vanished: bool = False,
) -> dict[str, Any]:
    """Export what ``plan`` says is due, showing progress; return `RunSummary.to_dict`."""
    from pipelines.context import open_pipeline, utc_now
    from pipelines.erasure.before_export import before_export
    from pipelines.export.run import run_plans

    tell_retries(output)
    with open_pipeline(settings, priority) as pipeline:
        before_export(pipeline)
        now = utc_now()
        plans = plan(pipeline, now)
        with RunProgress(output, plans) as progress:
            return run_plans(pipeline, plans, on_event=progress, accepts_vanished=accepts_vanished).to_dict()


def summary_report(summary: Mapping[str, Any]) -> Report:
    """Return what a run ends with; ``summary`` is that of `RunSummary.to_dict`."""
    return Report(summary, lambda console: _show_summary(console, summary), DONE if summary["complete"] else INCOMPLETE)


def days_table(days: Sequence[Mapping[str, Any]]) -> Any:
    """Return the table of a run's local days: what the API counts, and what lake and warehouse hold."""
    return table(
        ("day", "API", "lake", "rejected", "warehouse", "complete"),
        (
            (day["call_date"], day["api_total"], day["lake_rows"], day["rejected"], day["warehouse_rows"], _state(day))
            for day in days
        ),
    )


def _state(day: Mapping[str, Any]) -> str:
    outcomes = day["outcomes"]
    for outcome in ("failed", "held", "disputed"):
        if outcome in outcomes:
            return outcome.upper()
    if "claimed_elsewhere" in outcomes:
        return "another run is at it"
    return "by another run" if "done_elsewhere" in outcomes else "yes"


def _show_summary(console: Console, summary: Mapping[str, Any]) -> None:
    days, errors = summary["days"], summary["errors"]
    if not days:
        console.print("Nothing is due.")
        return
    console.print(days_table(days[-_DAYS_SHOWN:]))
    if len(days) > _DAYS_SHOWN:
        console.print(f"(the newest {_DAYS_SHOWN} of {len(days):,} days; --json has all)")
    changed = ", ".join(
        f"{summary[f'calls_{kind}']:,} {kind}" for kind in ("inserted", "updated", "restored", "vanished")
    )
    console.print(
        f"\n{counted(summary['calls'], 'call')}: {changed}. {counted(summary['rows_rejected'], 'row')} rejected, "
        f"{counted(summary['files_written'], 'file')} written, {counted(summary['requests'], 'request')}."
    )
    for change in summary["drift"]:
        console.print(drift_line(change), soft_wrap=True)
    for word, reasons in (("held", summary["held"]), ("disputed", summary["disputed"]), ("failed", errors)):
        for reason in reasons[:_ERRORS_SHOWN]:
            console.print(f"{word}: {reason}", soft_wrap=True)
        if len(reasons) > _ERRORS_SHOWN:
            console.print(f"... and {len(reasons) - _ERRORS_SHOWN:,} more {word}; --json has all")
    if disputed := summary["disputed"]:
        console.print(
            f"{counted(len(disputed), 'window')} disputed: published as served, and due again in the next run."
        )
    if errors:
        console.print(f"{counted(len(errors), 'window')} failed; due again in the next run.")
    if claimed := summary["windows"]["claimed_elsewhere"]:
        console.print(f"{counted(claimed, 'window')} left to another run that is still at work: not proven yet.")


def _dry_run(settings: Settings, first: date, last: date, *, force: bool) -> Report:
    from pipelines.context import open_stores_to_plan, utc_now
    from pipelines.export.forecast import disk_bytes, quota
    from pipelines.export.run import plan_days
    from pipelines.windows import ranges_as_json

    with open_stores_to_plan(settings) as stores:
        plans = plan_days(stores, first, last, utc_now(), force=force)
        estimate, disk = quota(plans, stores), disk_bytes(plans, stores)
    data = {
        "windows": estimate.windows,
        "requests": estimate.requests,
        "hours": estimate.hours,
        "disk_bytes": disk,
        "windows_of_unknown_size": estimate.windows_of_unknown_size,
        "ranges": ranges_as_json(((day.call_date, len(day.windows)) for day in reversed(plans)), "windows"),
        "days": [
            {
                "call_date": day.call_date.isoformat(),
                "windows": [
                    {
                        "window_start": planned.window.start.isoformat(),
                        "window_end": planned.window.end.isoformat(),
                        "due": planned.due.value,
                        "known_calls": planned.known_calls,
                    }
                    for planned in day.windows
                ],
            }
            for day in plans
        ],
    }
    return Report(data, lambda console: _show_dry_run(console, data))


def _show_dry_run(console: Console, data: Mapping[str, Any]) -> None:
    rows = [
        (day["call_date"], f"{window['window_start']} -- {window['window_end']}", window["due"], window["known_calls"])
        for day in data["days"]
        for window in day["windows"]
    ]
    if rows:
        console.print(table(("day", "window (UTC)", "due", "calls, as far as known"), rows[:_DAYS_SHOWN]))
    if len(rows) > _DAYS_SHOWN:
        console.print(f"... and {len(rows) - _DAYS_SHOWN:,} more; --json has all")
    unknown = data["windows_of_unknown_size"]
    guess = f" (a guess for {counted(unknown, 'window')} never read before)" if unknown else ""
    console.print(
        f"{counted(data['windows'], 'window')}, {counted(data['requests'], 'request')}{guess}, "
        f"{time_taken(data['hours'])} within the request budget, {_disk(data['disk_bytes'])}. Nothing was exported.",
        soft_wrap=True,
    )


def _disk(disk_bytes: int | None) -> str:
    if disk_bytes is None:
        return "disk space unknown until the first days are there"
    return f"about {disk_bytes / 1e9:.1f} GB more on disk" if disk_bytes >= 5e7 else "hardly more on disk"
