"""Logs as JSON lines on stderr, each with the ids of the run, day and window that it belongs to."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import date
from types import MappingProxyType
from typing import Any, TextIO

IDS = ("run_id", "call_date", "window_start", "window_end")
"""What `log_context` binds; the instants in UTC."""

_FIELDS = frozenset(
    {
        *("timestamp", "level", "logger", "message", "exc_info", *IDS),
        *("step", "rows_read", "rows_expected", "error_type", "traceback"),
        *("flow_run_id", "flow_run_name", "flow_name", "task_run_id", "task_run_name", "task_name"),
    }
)
"""All that a line may hold: what libraries add of their own accord can be a call's arguments."""

_ids: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default=MappingProxyType({}))

logger = logging.getLogger("callhistory")


@contextlib.contextmanager
def log_context(**ids: str | date) -> Iterator[None]:
    """Have every line that this thread logs inside, through whatever library, carry ``ids`` (some of `IDS`).

    Threads begin without: whoever hands work to one opens the context there.
    """
    texts = {name: value if isinstance(value, str) else value.isoformat() for name, value in ids.items()}
    token = _ids.set({**_ids.get(), **texts})
    try:
        yield
    finally:
        _ids.reset(token)


def set_up_logs(log_format: str, *, verbose: bool = False, stream: TextIO | None = None) -> None:
    """Have the whole process log as ``CALLHISTORY_LOG_FORMAT`` says; doing it again changes nothing.

    ``json``: one object per line on ``stream`` (stderr unless told), in place of what libraries set up to write there.
    Of other libraries only warnings and errors, and with ``verbose`` what they tell besides, such as every request.
    ``text``: Python's and Prefect's own, which is left as it is.
    """
    root = logging.getLogger()
    for ours in [handler for handler in root.handlers if isinstance(handler, JsonLinesHandler)]:
        root.removeHandler(ours)
    logging.captureWarnings(log_format == "json")
    if log_format != "json":
        return
    loggers = [found for found in logging.root.manager.loggerDict.values() if isinstance(found, logging.Logger)]
    for found in [root, *loggers]:
        for handler in [handler for handler in found.handlers if _writes_to_terminal(handler)]:
            found.removeHandler(handler)
            found.propagate = True
    root.addHandler(JsonLinesHandler(stream or sys.stderr))
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


class LoggedLines(io.TextIOBase):
    """A stream whose every line is logged: stands in for stdout or stderr where only JSON may come out."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(f"callhistory.{name}")
        self._begun = threading.local()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Log the lines that ``text`` ends; what is left over waits for its end."""
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        for line in filter(str.strip, lines):
            self._logger.info("%s", line)
        return len(text)


class JsonLinesHandler(logging.StreamHandler[TextIO]):
    """Writes log records as JSON; Prefect leaves the root logger alone that has a handler with such a public name."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.setFormatter(_formatter())


def _formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class Formatter(JsonFormatter):
        def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's own name
            """Say what was raised and where; the text of a foreign exception may quote a row."""
            kind, _, trace = ei
            places = []
            while trace is not None:
                code = trace.tb_frame.f_code
                places.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            return " > ".join([*places, kind.__name__ if kind else "no exception"])

        def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in {**log_data, **_ids.get()}.items() if name in _FIELDS}

    return Formatter(
        ("levelname", "name", "message"),
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_ensure_ascii=False,
    )


def _writes_to_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stderr, sys.__stderr__, sys.stdout)
