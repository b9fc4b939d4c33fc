"""``callhistory recordings archive | verify | delete | download``."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.output import Output, Report, counted
from pipelines.cli.progress import tell_retries

if TYPE_CHECKING:
    from pipelines.recordings.archive import Event

_ERRORS_SHOWN = 10
_SECONDS_BETWEEN_LINES = 5.0

recordings = typer.Typer(name="recordings", help="Recordings: archived, proven, and deleted at the source on demand.")


@recordings.command("archive")
@command
def archive(output: Output) -> Report:
    """Fetch every recording that is due into the archive, oldest call first.

    Ends with exit code 3 while a recording is missing or failed. With PREFECT_API_URL in the environment it runs as a
    Prefect flow.
    """
    from pipelines.settings import load_settings

    settings = load_settings()
    from pipelines.context import open_stores
    from pipelines.recordings.archive import archive_recordings
    from pipelines.stringeex.client import StringeeXClient

    tell_retries(output)
    with (
        open_stores(settings) as stores,
        StringeeXClient(settings) as client,
        ArchiveProgress(output) as progress,
    ):
        return archive_report(archive_recordings(stores, client, on_event=progress).to_dict())


def archive_report(summary: Mapping[str, Any]) -> Report:
    """Return what a run of the archive ends with; ``summary`` is that of `ArchiveSummary.to_dict`."""
    return Report(summary, lambda console: _show(console, summary), DONE if summary["complete"] else INCOMPLETE)


class ArchiveProgress:
    """Listens to the steps of an archive run, from any thread: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._last_line_at = time.monotonic()
        self._bar = (
            Progress(
                TextColumn("recordings"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                console=output.logs,
                transient=True,
            )
            if output.logs.is_terminal and not output.verbose
            else None
        )
        self._task = self._bar.add_task("", total=None, state="") if self._bar else None

    def __enter__(self) -> ArchiveProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, event: Event) -> None:
        """Take note of a step."""
        from pipelines.recordings.archive import Step

        state = (
            f"{event.done:,} of {counted(event.due, 'recording')}, {megabytes(event.bytes)}, "
            f"{_duration(event.eta_seconds)} left"
        )
        with self._lock:
            if self._bar and self._task is not None:
                self._bar.update(self._task, completed=event.done, total=event.due, state=state)
            elif self._output.verbose:
                if event.step is not Step.RECEIVING:
                    self._output.log(f"{event.step}: {state}")
            elif time.monotonic() - self._last_line_at >= _SECONDS_BETWEEN_LINES:
                self._last_line_at = time.monotonic()
                self._output.log(state)


def megabytes(size: int) -> str:
    """Return a size in bytes as ``12.3 MB``."""
    return f"{size / 1e6:,.1f} MB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "unknown time"
    for unit, length in (("second", 1), ("minute", 60), ("hour", 3600)):
        if seconds < 120 * length or unit == "hour":
            return f"about {counted(math.ceil(seconds / length), unit)}"
    raise AssertionError("an hour is the last unit")


def _show(console: Console, summary: Mapping[str, Any]) -> None:
    console.print(
        f"{counted(summary['archived'], 'recording')} archived ({megabytes(summary['bytes'])}), "
        f"{summary['not_ready']:,} not ready yet, {summary['missing']:,} missing, {summary['failed']:,} failed; "
        f"{counted(summary['requests'], 'request')}."
    )
    if summary["adopted"]:
        console.print(f"{summary['adopted']:,} of them had been fetched by a run that was cut off.")
    for error in summary["errors"][:_ERRORS_SHOWN]:
        console.print(f"failed: {error}", markup=False, soft_wrap=True)
    if len(summary["errors"]) > _ERRORS_SHOWN:
        console.print(f"... and {len(summary['errors']) - _ERRORS_SHOWN:,} more; --json has more")
    console.print("In all: " + ", ".join(f"{count:,} {name}" for name, count in summary["recordings"].items() if count))
