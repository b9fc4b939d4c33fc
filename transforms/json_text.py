"""JSON as text that every database stores: UTF-8 without a NUL or a lone surrogate, integers of any size exact."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeAlias

import orjson

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Whatever a JSON parser gives: the shape of everything that the API serves."""

_LONGEST_INTEGER = 4300  # what Python itself reads from text
_DIGITS_TO_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_MAYBE_LONG_INTEGER = b"0" * 19
_SURROGATE = re.compile("[\ud800-\udfff]")
_AS_SERVED = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_CANONICAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def parse_json(text: bytes) -> Any:
    """Decode JSON without losing digits or characters; raise ``ValueError`` where it is none.

    orjson is fast, but reads an integer beyond 64 bits as a float and refuses lone surrogates; those texts take the
    standard library's way, which keeps them. A number that Python has no finite value for becomes its text.
    """
    # A regular expression would take six times as long as parsing the page does.
    if _MAYBE_LONG_INTEGER not in text.translate(_DIGITS_TO_ZEROS):
        with suppress(orjson.JSONDecodeError):
            return orjson.loads(text)
    try:
        return json.loads(text, parse_int=_exact_integer, parse_float=_finite, parse_constant=str)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _exact_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _finite(number: str) -> float | str:
    value = float(number)
    return value if math.isfinite(value) else number


def exact_json(value: JsonValue) -> str:
    """Return ``value`` as compact JSON, keys in their own order.

    A control character or a lone surrogate inside a string becomes its ``\\u`` escape. JSON has no word for a number
    beyond the range of a double, so such a value is written as the string ``"Infinity"``, ``"-Infinity"`` or ``"NaN"``.
    """
    return _encode(_AS_SERVED, value)


def canonical_json(value: JsonValue) -> str:
    """Return the same with sorted keys: equal objects, equal text."""
    return _encode(_CANONICAL, value)


def _encode(encoder: json.JSONEncoder, value: JsonValue) -> str:
    try:
        text = encoder.encode(value)
    except (ValueError, RecursionError):  # A number that is not finite, or nested deeper than Python's own stack.
        text = "".join(_fragments(encoder, value))
    if text.isascii():
        return text
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class _Punctuation(str):
    __slots__ = ()


def _fragments(encoder: json.JSONEncoder, value: JsonValue) -> Iterator[str]:
    """Yield what ``encoder`` would, of any depth: parsers read deeper than ``JSONEncoder`` writes."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, _Punctuation):
            yield value
        elif isinstance(value, float) and not math.isfinite(value):
            yield '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
        elif isinstance(value, list):
            parts = [part for item in value for part in (_Punctuation(","), item)][1:]
            pending += reversed([_Punctuation("["), *parts, _Punctuation("]")])
        elif isinstance(value, dict):
            keys = sorted(value) if encoder.sort_keys else value
            parts = [part for key in keys for part in (_Punctuation(","), key, _Punctuation(":"), value[key])][1:]
            pending += reversed([_Punctuation("{"), *parts, _Punctuation("}")])
        else:
            yield encoder.encode(value)
