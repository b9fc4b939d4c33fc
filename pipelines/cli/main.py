"""The entry of ``callhistory``. Light: what a command works with is imported when the command runs."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
from typing import Annotated, NoReturn

import typer

from pipelines.cli.alerts import alerts
from pipelines.cli.calls import calls
from pipelines.cli.changes import changes
from pipelines.cli.check import check
from pipelines.cli.command import WRONG_USAGE
from pipelines.cli.config import config
from pipelines.cli.demo import demo
from pipelines.cli.dictionary import dictionary
from pipelines.cli.drift import drift
from pipelines.cli.erase import erase
from pipelines.cli.evidence import evidence
from pipelines.cli.export import backfill, export
from pipelines.cli.greetings import greetings
from pipelines.cli.init import init
from pipelines.cli.live import live
from pipelines.cli.metrics import metrics
from pipelines.cli.move import move
from pipelines.cli.output import Output, write_json
from pipelines.cli.person import person
from pipelines.cli.recordings import recordings
from pipelines.cli.rejects import rejects
from pipelines.cli.replay import replay
from pipelines.cli.report import report
from pipelines.cli.status import status
from pipelines.cli.stores import stores
from pipelines.cli.verify import verify

app = typer.Typer(
    name="callhistory",
    help="Every call of a StringeeX call centre, proven complete, in Parquet files and an SQL warehouse.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 done but incomplete, 130 stopped.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs as much again as importing typer and rich
    context_settings={"max_content_width": 120, "help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo)
app.command("init")(init)
app.command("export")(export)
app.command("backfill")(backfill)
app.command("status")(status)
app.command("alerts")(alerts)
app.command("metrics")(metrics)
app.command("verify")(verify)
app.command("evidence")(evidence)
app.command("replay")(replay)
app.command("move")(move)
app.command("changes")(changes)
app.command("person")(person)
app.command("erase")(erase)
app.command("report")(report)
app.command("check")(check)
app.command("dictionary")(dictionary)
app.command("live")(live)
app.add_typer(config)
app.add_typer(drift)
app.add_typer(rejects)
app.add_typer(recordings)
app.add_typer(stores)
app.add_typer(calls)
app.add_typer(greetings)


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"callhistory {installed_version('callhistory')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and exit. SIGTERM stops a run as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if os.environ.get("PREFECT_API_URL"):
        # Prefect's threads outlive the interpreter, about which DuckDB's binding prints a hundred lines. Registered
        # before Prefect is imported, this comes last.
        atexit.register(os.dup2, os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    try:
        sys.exit(app(prog_name=app.info.name, standalone_mode=False))
    except typer.TyperException as error:
        _refuse(error)


def _refuse(error: typer.TyperException) -> NoReturn:
    """Say what is wrong with the command line, in one line; for a group without a command, show the group's help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(error.format_message(), err=True)
        sys.exit(WRONG_USAGE)
    context = getattr(error, "ctx", None)
    asked = context.command_path if context else app.info.name
    message = f"{error.format_message()} ({asked} --help shows what there is)"
    Output().log(f"error: {message}", logging.ERROR, error_type="UsageError")
    if "--json" in sys.argv:
        write_json({"error": message, "error_type": "UsageError"})
    sys.exit(WRONG_USAGE)


if __name__ == "__main__":
    main()
