"""JSON as text that every database stores: UTF-8 without a NUL or a lone surrogate, integers of any size exact."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from typing import Any, TypeAlias

import orjson

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""Whatever a JSON parser gives: the shape of everything that the API serves."""

_LONGEST_INTEGER = 4300  # what Python itself reads from text
_FROM_ORJSON_INTEGER, _TO_ORJSON_INTEGER = -(2**63), 2**64 - 1

_ALIKE = bytes.maketrans(b"123456789", b"0" * 9)
_MAYBE_TOO_LONG = b"0" * 16
"""A double gives back every decimal of up to 15 digits, unless it is next to nothing (below 10^-300)."""
_NUMBER = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_CONTAINERS = frozenset({dict, list})

_SURROGATE = re.compile("[\ud800-\udfff]")
_NOT_BEHIND_BACKSLASH = re.compile(r"(?<!\\)[\ud800-\udfff]")
_AS_SERVED = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_CANONICAL = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


class ExactNumber(float):
    """A number of more digits than a float holds: rounded for whoever calculates, and written as it was served."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __reduce__(self) -> tuple[type[ExactNumber], tuple[str]]:
        return ExactNumber, (self.text,)


class RepeatedKeys(dict[str, "JsonValue"]):
    """An object that was served with a key more than once: the last value counts, and all are written as served."""

    def __init__(self, pairs: Sequence[tuple[str, JsonValue]]) -> None:
        super().__init__(pairs)
        self.pairs = tuple(pairs)

    def __reduce__(self) -> tuple[type[RepeatedKeys], tuple[tuple[tuple[str, JsonValue], ...]]]:
        return RepeatedKeys, (self.pairs,)

    def earlier(self) -> list[tuple[str, JsonValue]]:
        """Return the pairs that a later one of the same key has replaced, in the order served."""
        last = {key: position for position, (key, _) in enumerate(self.pairs)}
        return [pair for position, pair in enumerate(self.pairs) if last[pair[0]] != position]


def parse_json(text: bytes) -> Any:
    """Decode JSON without losing digits, characters or values; raise ``ValueError`` where it is none.

    orjson is fast, but it rounds long numbers, and forgets all but the last of equal keys. It refuses lone surrogates,
    control characters inside strings, and every encoding but UTF-8. Such a text takes the standard library's way,
    which keeps them: see `ExactNumber` and `RepeatedKeys`. A number beyond what a double reaches becomes its text. A
    byte that is no UTF-8 becomes a lone surrogate, as Python's ``surrogateescape`` makes it: U+DC80 for 0x80, up to
    U+DCFF for 0xFF. No other encoding is guessed.

    A text that is cut short is no JSON, wherever it is cut.
    """
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(text)
        # Other spellings than orjson's own take a closer look.
        if _is_written_as(value, text) or not (_may_lose_digits(text) or _may_repeat_keys(text, value)):
            return value
    try:
        return json.loads(
            _decoded(text),
            strict=False,
            parse_int=_exact_integer,
            parse_float=_exact_float,
            parse_constant=str,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _is_written_as(value: JsonValue, text: bytes) -> bool:
    """Whether orjson writes ``value`` as ``text``, byte for byte: then nothing was lost by reading it."""
    try:
        return orjson.dumps(value) == text
    except TypeError:  # nested deeper than it writes
        return False


def _may_lose_digits(text: bytes) -> bool:
    # A regular expression over all of a page would take six times as long as parsing it does.
    return _MAYBE_TOO_LONG in text.translate(_ALIKE, b".") and any(map(_loses_digits, _NUMBER.findall(text)))


def _loses_digits(number: bytes) -> bool:
    if number.lstrip(b"-").isdigit():
        return len(number) > _LONGEST_INTEGER or not _FROM_ORJSON_INTEGER <= int(number) <= _TO_ORJSON_INTEGER
    return type(_exact_float(number.decode())) is not float


def _may_repeat_keys(text: bytes, value: JsonValue) -> bool:
    """Whether ``value`` may hold fewer keys than ``text``, which has a colon behind the quotation mark of each.

    (A text with white space between the two may repeat keys, as far as this knows.) The values of flat rows need not
    be looked at: once all colons are accounted for there can be no other key.
    """
    colons = text.count(b'":')
    found = 0
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    while level:
        found += sum(len(container) for container in level if type(container) is dict)
        if found == colons:
            return False
        values = [container.values() if type(container) is dict else container for container in level]
        level = [inner for some in values if not _CONTAINERS.isdisjoint(map(type, some)) for inner in some]
        level = [inner for inner in level if type(inner) in _CONTAINERS]
    # Inside a string, the mark is escaped; but a key may itself end in a backslash.
    return found + text.count(b'\\":') != colons or b'\\\\":' in text


def _decoded(text: bytes) -> str:
    encoding = json.detect_encoding(text)
    if not encoding.startswith("utf-8"):
        return text.decode(encoding, "surrogatepass")
    decoded = text.decode(encoding, _DAMAGED_UTF8)
    # As escapes, they mean the same here as in the raw copy: a pair of two halves is one character.
    return decoded if decoded.isascii() else _NOT_BEHIND_BACKSLASH.sub(_escaped, decoded)


def _keep_damage(error: UnicodeError) -> tuple[str, int]:
    """Read a surrogate that was encoded like a character as that surrogate, and every other wrong byte as its own."""
    assert isinstance(error, UnicodeDecodeError)
    three = error.object[error.start : error.start + 3]
    try:
        return three.decode("utf-8", "surrogatepass"), error.start + 3
    except UnicodeDecodeError:
        return chr(0xDC00 + three[0]), error.start + 1


_DAMAGED_UTF8 = "callhistory_damaged_utf8"
codecs.register_error(_DAMAGED_UTF8, _keep_damage)


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else RepeatedKeys(pairs)


def _exact_integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else digits


def _exact_float(number: str) -> float | str:
    value = float(number)
    if not math.isfinite(value):
        return number
    try:
        is_rounded = Decimal(repr(value)) != Decimal(number)
    except InvalidOperation:  # an exponent beyond what even decimals have
        is_rounded = True
    return ExactNumber(number) if is_rounded else value


def iso(value: object) -> str:
    """Return a date or an instant as ISO 8601, for ``json.dumps``; raises ``TypeError`` for anything else."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is nothing that JSON can hold")


def exact_json(value: JsonValue) -> str:
    """Return ``value`` as compact JSON, keys in their own order.

    An `ExactNumber` and `RepeatedKeys` are written as they were served.
    A control character or a lone surrogate inside a string becomes its ``\\u`` escape. JSON has no word for a number
    beyond the range of a double, so such a value is written as the string ``"Infinity"``, ``"-Infinity"`` or ``"NaN"``.
    """
    return _encode(_AS_SERVED, value)


def canonical_json(value: JsonValue) -> str:
    """Return the same with sorted keys: equal objects, equal text."""
    return _encode(_CANONICAL, value)


def _encode(encoder: json.JSONEncoder, value: JsonValue) -> str:
    try:
        plain = type(value) is str or is_plain(value)
        text = encoder.encode(value) if plain else "".join(_fragments(encoder, value))
    except (ValueError, RecursionError):  # A number that is not finite, or nested deeper than Python's own stack.
        text = "".join(_fragments(encoder, value))
    if text.isascii():
        return text
    return _SURROGATE.sub(_escaped, text)


def _escaped(surrogate: re.Match[str]) -> str:
    return f"\\u{ord(surrogate[0]):04x}"


def is_plain(value: JsonValue) -> bool:
    """Whether encoders write ``value`` as it was served: it holds no `ExactNumber` and no `RepeatedKeys`.

    It may be plain all the same where it holds an integer beyond 64 bits or a lone surrogate.
    """
    try:
        orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except TypeError:
        return False
    return True


class _Punctuation(str):
    __slots__ = ()


def _fragments(encoder: json.JSONEncoder, value: JsonValue) -> Iterator[str]:
    """Yield what ``encoder`` would, of any depth: parsers read deeper than ``JSONEncoder`` writes."""
    pending = [value]
    while pending:
        value = pending.pop()
        if isinstance(value, _Punctuation):
            yield value
        elif isinstance(value, ExactNumber):
            yield value.text
        elif isinstance(value, float) and not math.isfinite(value):
            yield '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
        elif isinstance(value, list):
            parts = [part for item in value for part in (_Punctuation(","), item)][1:]
            pending += reversed([_Punctuation("["), *parts, _Punctuation("]")])
        elif isinstance(value, dict):
            pairs = list(value.pairs if isinstance(value, RepeatedKeys) else value.items())
            if encoder.sort_keys:
                pairs.sort(key=itemgetter(0))
            parts = [part for key, inner in pairs for part in (_Punctuation(","), key, _Punctuation(":"), inner)][1:]
            pending += reversed([_Punctuation("{"), *parts, _Punctuation("}")])
        else:
            yield encoder.encode(value)
