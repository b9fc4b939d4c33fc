"""What a command shows: its result on stdout, as tables or as one JSON object, and everything else on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from pipelines.logs import LoggedLines, logger, set_up_logs
from pipelines.redaction import redacted

_WIDTH_WITHOUT_TERMINAL = 120
_WIDER_THAN_ANY_TABLE = 10_000


@dataclass(frozen=True)
class Report:
    """What a command ends with: its data for ``--json``, the same shown to a reader, and its exit code."""

    data: Mapping[str, Any]
    show: Callable[[Console], None]
    exit_code: int = 0


class Output:
    """The two streams of a command; making it sets up the process's logs as ``CALLHISTORY_LOG_FORMAT`` says.

    A ``quiet`` one shows warnings and errors, and a result only where not all is well.
    """

    def __init__(self, *, as_json: bool = False, verbose: bool = False, quiet: bool = False) -> None:
        from pipelines.settings import log_format

        self.as_json = as_json
        self.verbose = verbose
        self.quiet = quiet
        if quiet:
            os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")
        self.json_logs = log_format() == "json"
        # No bars among the lines, also where they are read on a terminal.
        self.logs = _plain_console(stderr=True, force_terminal=False) if self.json_logs else console_for(stderr=True)
        set_up_logs("json" if self.json_logs else "text", verbose=verbose)

    @property
    def shows_bars(self) -> bool:
        """Whether progress is shown as bars: on a terminal, where nothing else is written meanwhile."""
        return self.logs.is_terminal and not self.verbose and not self.quiet

    def log(self, line: str, level: int = logging.INFO, **fields: Any) -> None:
        """Write one line to stderr, as it is; where logs are JSON, with ``fields`` beside it."""
        if self.quiet and level < logging.WARNING:
            return
        line = redacted(line)
        if self.json_logs:
            logger.log(level, "%s", line, extra=fields)
        else:
            self.logs.print(line, soft_wrap=True)

    @contextlib.contextmanager
    def streams(self) -> Iterator[None]:
        """Keep what libraries print inside off stdout with ``--json``, and where logs are JSON, make lines of it."""
        with contextlib.ExitStack() as redirected:
            if self.json_logs:
                redirected.enter_context(contextlib.redirect_stderr(LoggedLines("stderr")))
            if self.as_json:
                redirected.enter_context(contextlib.redirect_stdout(sys.stderr))
            yield

    def finish(self, report: Report) -> None:
        """Write the result to stdout."""
        if self.as_json:
            write_json(report.data)
        elif not self.quiet or report.exit_code:
            report.show(console_for(stderr=False))


def write_json(data: Mapping[str, Any]) -> None:
    """Write one JSON object to stdout, on one line."""
    text = json.dumps(data, ensure_ascii=False)
    # Half a character, as it was served, is written as JSON's own escape of it.
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")
    sys.stdout.flush()


class FittingTable:
    """A table that never cuts a cell: where the terminal is too narrow for it, each row is a list of its own."""

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        side_by_side = self._side_by_side()
        needed = Measurement.get(console, options.update(max_width=_WIDER_THAN_ANY_TABLE), side_by_side).minimum
        if needed <= options.max_width:
            yield side_by_side
        else:
            yield from self._stacked()

    def _side_by_side(self) -> Table:
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for position, name in enumerate(self._columns):
            shown.add_column(name, justify="left" if position == 0 else "right", no_wrap=True)
        for row in self._rows:
            shown.add_row(*map(Text, row))  # as it is: of a str, rich reads markup and names of pictures
        return shown

    def _stacked(self) -> Iterator[Text]:
        width = max(map(len, self._columns))
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            for name, cell in zip(self._columns, row, strict=True):
                yield Text.assemble((f"{name:<{width}}", "bold"), "  ", cell, overflow="fold")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> FittingTable:
    """Return a table whose first column is text and whose numbers stand under one another."""
    return FittingTable(columns, [tuple(map(_cell, row)) for row in rows])


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return ``1 call``, ``1,234 calls``."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:,}" if isinstance(value, int) else str(value)


def console_for(*, stderr: bool) -> Console:
    """Return a console on stdout or stderr; without a terminal it is wide enough for a table."""
    console = _plain_console(stderr=stderr)
    return console if console.is_terminal else _plain_console(stderr=stderr, width=_WIDTH_WITHOUT_TERMINAL)


def _plain_console(**options: Any) -> Console:
    """Return a console that shows text as it is: rich would read markup and names of pictures (``:x:``) in it."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def file_size(size: int) -> str:
    """Return a size in bytes as ``12.3 MB``, ``45 kB`` or ``67 bytes``."""
    if size >= 1e6:
        return f"{size / 1e6:,.1f} MB"
    return f"{size // 1000} kB" if size >= 1000 else f"{size} bytes"


def time_taken(hours: float) -> str:
    """Return a span of time as ``2.5 hours``, ``40 minutes`` or ``less than a minute``."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    minutes = round(hours * 60)
    return counted(minutes, "minute") if minutes else "less than a minute"
