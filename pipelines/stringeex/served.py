"""An answer of the call history as it was served, read without trust."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from transforms.errors import TransportError

JsonValue = Any
"""A decoded JSON value: None, bool, int, float, str, list or dict."""

_EARLIEST_INSTANT_MS = 10**11


@dataclass(frozen=True, slots=True)
class Answer:
    """A page: its rows, the API's count of the whole query, and the position of the next page where there is one."""

    rows: list[JsonValue]
    total: int
    search_after: tuple[str, str] | None


def read_answer(data: JsonValue, name: str) -> Answer:
    """Read what the envelope carries; ``name`` is what messages call the query.

    Raises TransportError where there is no count (nothing would prove the read complete), or no list of rows.
    """
    total = _count(data.get("totalCount")) if isinstance(data, dict) else None
    if total is None:
        raise TransportError(f"{name}: the answer holds no usable totalCount, so nothing proves it complete")
    rows = data.get("rows")
    if rows is None and total == 0:
        rows = []
    if not isinstance(rows, list):
        raise TransportError(f"{name}: the answer counts {total} rows, but holds no list of rows")
    return Answer(rows, total, _search_after(data.get("search_after")))


def start_ms_of(row: JsonValue) -> int | None:
    """Return the start of a row as epoch milliseconds; None where it holds no instant."""
    value = row.get("start_time") if isinstance(row, dict) else None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_instant = isinstance(value, int) and not isinstance(value, bool) and value >= _EARLIEST_INSTANT_MS
    return value if is_instant else None


def id_of(row: JsonValue) -> str | None:
    """Return the id that tells rows apart; None where a row has no usable one, and is counted for itself."""
    value = row.get("id") if isinstance(row, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return (value.strip() or None) if isinstance(value, str) else None


def _count(value: JsonValue) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _search_after(value: JsonValue) -> tuple[str, str] | None:
    """The position of the next page as it goes on the wire; None where the server gives none."""
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(part, str | int | float) for part in value):
        return None
    instant, call_id = (str(int(part) if isinstance(part, float) and part.is_integer() else part) for part in value)
    return instant, call_id


def fingerprint_of(rows: list[JsonValue]) -> int:
    """Return a hash of the content of a page, good within this process."""
    try:
        return hash(orjson.dumps(rows))
    except TypeError:  # integers beyond 64 bits and lone surrogates, which orjson does not write
        return hash(repr(rows))
