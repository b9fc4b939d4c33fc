"""An answer of the call history as it was served, read without trust."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from transforms.errors import TransportError
from transforms.fields import instant_ms
from transforms.json_text import JsonValue


@dataclass(frozen=True, slots=True)
class Answer:
    """A page: its rows, the API's count of the whole query, and the position of the next page where there is one.

    ``total`` is null where there is no usable count.
    """

    rows: list[JsonValue]
    total: int | None
    search_after: tuple[str, str] | None


def read_answer(data: JsonValue, name: str) -> Answer:
    """Read what the envelope carries; ``name`` is what messages call the query.

    Raises TransportError where there is no list of rows.
    """
    found = data if isinstance(data, dict) else {}
    total, rows = usable_count(found.get("totalCount")), found.get("rows")
    if rows is None and total == 0:
        rows = []
    if not isinstance(rows, list):
        counted = "counts no rows" if total is None else f"counts {total} rows"
        raise TransportError(f"{name}: the answer {counted} and holds no list of rows")
    return Answer(rows, total, _search_after(found.get("search_after")))


def start_ms_of(row: JsonValue) -> int | None:
    """Return the start of a row as epoch milliseconds; None where it holds no instant."""
    return instant_ms(row.get("start_time")) if isinstance(row, dict) else None


def usable_count(value: JsonValue) -> int | None:
    """Return a count that the API gives as a number or as text; None where it is no whole number from 0 on."""
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
