"""What the commands of the recordings end with: a table or a few lines, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE
from pipelines.cli.output import Report, counted, file_size

_ERRORS_SHOWN = 10


def archive_report(summary: Mapping[str, Any]) -> Report:
    """Return what a run of the archive ends with; ``summary`` is that of `ArchiveSummary.to_dict`."""
    return Report(summary, lambda console: _show(console, summary), DONE if summary["complete"] else INCOMPLETE)


def _show(console: Console, summary: Mapping[str, Any]) -> None:
    from sinks.archive import safe_name

    console.print(
        f"{counted(summary['archived'], 'recording')} archived ({file_size(summary['bytes'])}), "
        f"{summary['not_ready']:,} not there yet, {summary['missing']:,} missing, {summary['failed']:,} failed; "
        f"{counted(summary['requests'], 'request')}."
    )
    if summary["expired"]:
        console.print(f"{summary['expired']:,} were kept for long enough, and deleted from the archive.")
    if summary["doubtful"]:
        console.print(
            f"{summary['doubtful']:,} of them are kept as they came, but are doubtful: callhistory recordings verify "
            "says which and why.",
            soft_wrap=True,
        )
    if summary["none"]:
        console.print(f"{summary['none']:,} more are not there, and nothing had said that they were.")
    if summary["adopted"]:
        console.print(f"{summary['adopted']:,} of them had been fetched by a run that was cut off.")
    for error in summary["errors"][:_ERRORS_SHOWN]:
        name = safe_name(error["call_id"])
        console.print(f"{error['status']}: recording of {name}: {error['error']}", soft_wrap=True)
    if len(summary["errors"]) > _ERRORS_SHOWN:
        console.print(f"... and {len(summary['errors']) - _ERRORS_SHOWN:,} more; --json has more")
    console.print("In all: " + ", ".join(f"{count:,} {name}" for name, count in summary["recordings"].items() if count))


def show_verification(console: Console, data: Mapping[str, Any]) -> None:
    """Print what reading the archive back has found."""
    console.print(
        f"{counted(data['listed'], 'recording')} in the archive by the table; "
        f"{data['read_back']:,} read back ({file_size(data['bytes_read'])})."
    )
    for problem in data["problems"][:_ERRORS_SHOWN]:
        console.print(f"wrong: {problem['message']}", soft_wrap=True)
    if len(data["problems"]) > _ERRORS_SHOWN:
        console.print(f"... and {len(data['problems']) - _ERRORS_SHOWN:,} more; --json has all")
    if data["wanted_again"]:
        console.print(f"{data['wanted_again']:,} will be fetched anew by callhistory recordings archive.")
    if data["doubts"]:
        found = ", ".join(f"{count:,} {doubt}" for doubt, count in data["doubts"].items())
        console.print(f"Kept as they came, but doubtful: {found}.", soft_wrap=True)
    for recording in data["doubtful"][:_ERRORS_SHOWN]:
        console.print(f"doubtful: {recording['archive_path']}: {recording['doubt']}", soft_wrap=True)
    if sum(data["doubts"].values()) > _ERRORS_SHOWN:
        console.print(f"... and {sum(data['doubts'].values()) - _ERRORS_SHOWN:,} more; --json and the table have more")
    if not data["problems"]:
        console.print("Nothing is missing or damaged.")


def deletion_report(data: Mapping[str, Any]) -> Report:
    """Return what a deletion at the provider ends with."""

    def show(console: Console) -> None:
        console.print(f"{counted(data['deleted'], 'recording')} deleted, {data['already_gone']:,} already gone.")
        for reason in data["not_deleted"][:_ERRORS_SHOWN]:
            console.print(f"not deleted: {reason}", soft_wrap=True)
        if len(data["not_deleted"]) > _ERRORS_SHOWN:
            console.print(f"... and {len(data['not_deleted']) - _ERRORS_SHOWN:,} more; --json has all")

    return Report(data, show, INCOMPLETE if data["not_deleted"] else DONE)
