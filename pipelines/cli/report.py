"""``callhistory report``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, UsageError, command
from pipelines.cli.dates import From, Last, To, date_range
from pipelines.cli.output import Output, Report, counted
from pipelines.report.language import Language

if TYPE_CHECKING:
    from datetime import date, datetime


@command
def report(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    language: Annotated[str, typer.Option("--language", help="en or vi: English or Vietnamese.")] = "en",
    file: Annotated[
        Path | None,
        typer.Option("--output", help="The page to write; unset: report.html, unless --csv is given."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--csv", help="Write the figures as CSV files into this folder.")
    ] = None,
) -> Report:
    """Write a report of some days, by default the last seven: an HTML file for any browser, or CSV files.

    It begins with how far the days are proven complete. The files name customers and agents: only you can read them.
    """
    if language not in [*Language]:
        raise UsageError(f"--language {language!r}: choose {' or '.join(Language)}")
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.report.csv_files import csv_files
    from pipelines.report.figures import read_figures
    from pipelines.report.files import write_files
    from pipelines.report.page import report_page

    now = utc_now()
    from_date, to_date = _range(first, last, newest, now.astimezone(settings.timezone))
    with open_stores_to_read(settings) as stores:
        figures = read_figures(stores, from_date, to_date, now)
    contents = {}
    if folder is None or file is not None:
        page = file or Path("report.html")
        contents[page] = report_page(figures, Language(language)).encode()
    if folder is not None:
        contents |= {folder / name: content for name, content in csv_files(figures).items()}
    write_files(contents, "Name another place with --output or --csv.")
    data: dict[str, Any] = {
        "from": from_date.isoformat(),
        "to": to_date.isoformat(),
        "calls": figures.summary["calls"],
        "unproven_days": [day.isoformat() for day in figures.unproven],
        "files": [str(path.resolve()) for path in contents],
    }
    return Report(data, lambda console: _show(console, data), DONE)


def _range(first: str | None, last: str | None, newest: str | None, now: datetime) -> tuple[date, date]:
    from datetime import timedelta

    from pipelines.report.figures import MOST_DAYS

    from_date, to_date = date_range(first, last, now, newest)
    yesterday = now.date() - timedelta(days=1)
    to_date = to_date or max(yesterday, from_date or yesterday)
    from_date = from_date or to_date - timedelta(days=6)
    if (to_date - from_date).days >= MOST_DAYS:
        raise UsageError(f"{from_date} to {to_date} is more than {MOST_DAYS} days: choose fewer with --from and --to")
    return from_date, to_date


def _show(console: Console, data: dict[str, Any]) -> None:
    for name in data["files"]:
        console.print(name, soft_wrap=True)
    console.print(f"{counted(data['calls'], 'call')} from {data['from']} to {data['to']}.")
    if data["unproven_days"]:
        console.print(
            f"{counted(len(data['unproven_days']), 'day')} not proven complete: the report says which. "
            "callhistory status says why.",
            soft_wrap=True,
        )
