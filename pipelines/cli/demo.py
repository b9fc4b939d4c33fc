"""``callhistory demo``."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.export import days_table, run_in_process
from pipelines.cli.output import Output, Report, counted, table

if TYPE_CHECKING:
    from pipelines.settings import Settings

_FOLDER = Path("data/demo")
_LAKE = _FOLDER / "lake"
_WAREHOUSE = _FOLDER / "warehouse.duckdb"
_REPORT = _FOLDER / "report.html"
_PARQUET = "data/demo/lake/calls/*/*.parquet"
_PER_DAY = "SELECT call_date, count(*) AS calls, count(*) FILTER (status = 'missed') AS missed"
_METRICS = ("call_date", "calls", "answered", "missed", "abandoned", "service_level", "asa_seconds")
_PER_DAY_IN_FIGURES = f"SELECT {', '.join(_METRICS)} FROM daily_metrics ORDER BY call_date DESC"  # noqa: S608 - our own names
_DAYS_SHOWN = 3
_ORDERED = "GROUP BY ALL ORDER BY ALL"


@command
def demo(
    output: Output,
    calls: Annotated[
        int, typer.Option(min=1, max=10_000_000, help="Calls that the simulated portal makes up.")
    ] = 10_000,
    days: Annotated[int, typer.Option(min=1, max=3_650, help="Local days they lie on; the last is yesterday.")] = 7,
) -> Report:
    """Export a simulated call centre, without an account, to ./data/demo, which it empties first.

    The portal is a real server on this machine's loopback, and everything after it is what a real export does.
    """
    _forget_environment()
    _remove_last_demo()
    from pipelines.export.run import plan_days
    from pipelines.settings import load_settings
    from pipelines.simulator import spawn
    from pipelines.stringeex.request_budget import Priority

    timezone = load_settings(None, require_api=False).timezone
    yesterday = datetime.now(timezone).date() - timedelta(days=1)
    first = yesterday - timedelta(days=days - 1)
    output.log(f"starting a simulated portal with {counted(calls, 'call')} from {first} to {yesterday}")
    with spawn(calls, days, start_date=first, limits=False, timezone=timezone.key) as portal:
        settings = load_settings(
            None,
            overrides={
                "STRINGEEX_BASE_URL": portal.base_url,
                "STRINGEEX_API_KEY_SID": portal.credentials.api_key_sid,
                "STRINGEEX_API_KEY_SECRET": portal.credentials.api_key_secret,
                "STRINGEEX_HISTORY_REQUESTS_PER_10S": "0",
                "STRINGEEX_REQUESTS_PER_10S": "0",
                "STRINGEEX_REQUESTS_PER_HOUR": "0",
                "CALLHISTORY_WAREHOUSE_URL": f"duckdb:///{_WAREHOUSE}",
                "CALLHISTORY_LAKE_URL": str(_LAKE),
                "CALLHISTORY_START_DATE": first.isoformat(),
            },
        )
        summary = run_in_process(
            output, settings, lambda pipeline, now: plan_days(pipeline, first, yesterday, now), Priority.EXPORT
        )
        figures = _figures(settings)
        page = _report(settings, first, yesterday)
    queries = {
        "parquet": _command(f"duckdb.sql('''{_PER_DAY} FROM '{_PARQUET}' {_ORDERED}''').show()"),
        "database": _command(f"duckdb.connect('{_WAREHOUSE.as_posix()}').sql('''{_PER_DAY_IN_FIGURES}''').show()"),
    }
    data = {
        **summary,
        "calls_made_up": calls,
        "parquet": str(_LAKE.resolve()),
        "database": str(_WAREHOUSE.resolve()),
        "report": str(page.resolve()),
        "figures": figures,
        "queries": queries,
    }
    return Report(data, lambda console: _show(console, data), DONE if summary["complete"] else INCOMPLETE)


def _figures(settings: Settings) -> list[dict[str, Any]]:
    """Return what the view ``daily_metrics`` says of the newest days."""
    import sqlalchemy as sa

    from pipelines.context import open_stores_to_read

    with open_stores_to_read(settings) as stores, stores.warehouse.reading() as connection:
        rows = connection.execute(sa.text(_PER_DAY_IN_FIGURES)).mappings().fetchmany(_DAYS_SHOWN)
        return [{**row, "call_date": str(row["call_date"])} for row in rows]


def _report(settings: Settings, first: date, last: date) -> Path:
    """Write the report of the newest days, no more than it can hold; return where."""
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.report.figures import MOST_DAYS, read_figures
    from pipelines.report.files import write_files
    from pipelines.report.language import Language
    from pipelines.report.page import report_page

    first = max(first, last - timedelta(days=MOST_DAYS - 1))
    with open_stores_to_read(settings) as stores:
        page = report_page(read_figures(stores, first, last, utc_now()), Language.ENGLISH)
    write_files({_REPORT: page.encode()}, "Run the demo in a folder that you can write to.")
    return _REPORT


def _forget_environment() -> None:
    """Keep settings of a real account out of the demo: its portal's credentials would clash with them."""
    for name in [name for name in os.environ if name.startswith(("STRINGEEX_", "CALLHISTORY_"))]:
        del os.environ[name]


def _remove_last_demo() -> None:
    if _LAKE.is_dir():
        shutil.rmtree(_LAKE)
    for leftover in _FOLDER.glob(f"{_WAREHOUSE.name}*"):
        leftover.unlink()


def _command(code: str) -> str:
    """Return a line for the shell that runs ``code``; it holds no character that a shell reads inside quotes."""
    return f'{_python()} -c "import duckdb; {code}"'


def _python() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        # The link, not where it points: a virtual environment's python is a link to the system's.
        if found and Path(found).absolute() == Path(sys.executable).absolute():
            return name
    executable = Path(sys.executable)
    return shlex.quote(str(executable.relative_to(Path.cwd()) if executable.is_relative_to(Path.cwd()) else executable))


def _show(console: Console, data: dict[str, Any]) -> None:
    console.print(days_table(data["days"]))
    console.print(f"\n{counted(data['calls'], 'call')} exported with {counted(data['requests'], 'request')}.")
    console.print("A day is complete when the API's own count, lake and warehouse agree, call for call.")
    late = data["calls_made_up"] - data["calls"]
    if data["complete"] and late:
        console.print(f"{counted(late, 'more call')} will come late, as some calls do: a later export would find them.")
    if data["figures"]:
        console.print("\nThe newest days in figures (view daily_metrics):")
        console.print(
            table(("day", *(name.replace("_", " ") for name in _METRICS[1:])), map(_figure_row, data["figures"]))
        )
    for error in data["errors"]:
        console.print(f"failed: {error}", soft_wrap=True)
    places = f"\nReport:   {data['report']}\nParquet:  {data['parquet']}\nDatabase: {data['database']}"
    console.print(places, soft_wrap=True)
    console.print("\nCalls per day, from the Parquet files:")
    console.print(data["queries"]["parquet"], soft_wrap=True)
    console.print("\nEach day in figures, from the database:")
    console.print(data["queries"]["database"], soft_wrap=True)
    console.print(
        "\nNext: set STRINGEEX_API_KEY_SID and STRINGEEX_API_KEY_SECRET, then run callhistory check and "
        "callhistory export.",
        soft_wrap=True,
    )


def _figure_row(figures: Mapping[str, Any]) -> list[object]:
    share, wait = figures["service_level"], figures["asa_seconds"]
    shown = {
        "service_level": None if share is None else f"{share:.0%}",
        "asa_seconds": None if wait is None else f"{wait:.0f}",
    }
    return [shown.get(name, figures[name]) for name in _METRICS]
