"""The second wall around secrets: no line of a log of this process shows one, whatever library writes it.

The first wall is `SecretStr`: nothing here writes a secret anywhere. This one is for what others write.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterable
from typing import Any

SHOWN = "***"
_SHORTEST = 6
"""What is shorter stands in ordinary words, too."""

_secrets: set[str] = set()
_make_record: Callable[..., logging.LogRecord] = logging.LogRecord


def hide(secrets: Iterable[str]) -> None:
    """Have nothing that is logged, or goes through `redacted`, show these texts."""
    # Of a key in PEM, the lines between the first and the last are the secret, each by itself too.
    parts = [part for secret in secrets for part in {secret, *secret.splitlines()} if not part.startswith("-----")]
    _secrets.update(part for part in parts if len(part) >= _SHORTEST)
    if logging.getLogRecordFactory() is not _redacted_record:
        global _make_record
        _make_record = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_redacted_record)


def redacted(text: str) -> str:
    """Return the text with ``***`` for each secret in it; the longest one first, which may hold another."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, SHOWN)
    return text


def _redacted_record(*arguments: Any, **more: Any) -> logging.LogRecord:
    record = _make_record(*arguments, **more)
    try:
        text = record.getMessage()
    except (TypeError, ValueError):  # its handler says that the line has the wrong arguments
        return record
    if redacted(text) != text:
        record.msg, record.args = redacted(text), None
    if record.exc_info and record.exc_info[0] is not None:
        said = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        if redacted(said) != said:
            # Formatters that show tracebacks take this text for theirs.
            record.exc_text = redacted(said)
    return record
