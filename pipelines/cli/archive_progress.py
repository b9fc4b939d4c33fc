"""How a run of the archive shows that it goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

from pipelines.cli.output import Output, counted, file_size, time_taken
from pipelines.cli.progress import ProgressLines

if TYPE_CHECKING:
    from pipelines.recordings.archive import Event


class ArchiveProgress:
    """Listens to the steps of an archive run, from any thread: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._lines = ProgressLines(output)
        self._bar = (
            Progress(
                TextColumn("recordings"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                console=output.logs,
                transient=True,
            )
            if output.shows_bars
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
            f"{event.done:,} of {counted(event.due, 'recording')}, {file_size(event.bytes)}, {_left(event.eta_seconds)}"
        )
        with self._lock:
            if self._bar and self._task is not None:
                self._bar.update(self._task, completed=event.done, total=event.due, state=state)
            elif self._output.verbose:
                if event.step is not Step.RECEIVING:
                    self._output.log(f"{event.step}: {state}")
            else:
                self._lines.log(state)


def _left(seconds: float | None) -> str:
    return "unknown time left" if seconds is None else f"about {time_taken(seconds / 3600)} left"
