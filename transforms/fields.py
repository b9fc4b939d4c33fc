"""Readers of single fields: what the API serves, in whatever JSON type, as one typed column.

A reader takes one field's values of a whole batch. A field whose values are all of the expected JSON type, as
nearly every field of nearly every batch is, becomes an Arrow array in one step; only a field with odd values is read
value by value. Both ways follow the same rules:

- null, a missing field and an empty string are null;
- what cannot be read is null in the column and comes back in ``Reading.unread``, exactly as it was served.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.epoch import epoch_ms
from transforms.json_text import ExactNumber, JsonValue

INSTANT_FROM_SECONDS = 1_000_000_000
"""Epoch seconds from which a number is an instant (September 2001); below it is a duration."""
INSTANT_FROM_MS = 100_000_000_000
"""Epoch milliseconds from which a number is an instant (March 1973); below it is one in seconds."""
INSTANT_UNTIL_MS = 253_402_214_400_000
"""9999-12-31T00:00Z: a day short of where ``datetime`` ends, so that every local time can be computed."""

_INT32_MAX = 2**31 - 1
_LONGEST_SECONDS = 366 * 86_400
_LONGEST_MINUTES = 366 * 1_440
"""No call takes longer than a year: what says so is no duration."""
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,40})(?:\.0*)?\s*")
_FRACTION_OF_SECONDS = re.compile(r"\s*([1-9][0-9]{9,10})\.([0-9]{1,40})\s*")
_ISO_8601 = re.compile(
    r"\s*(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<minute>(?:[01]\d|2[0-3]):\d{2})"
    r"(?:(?P<second>:\d{2})(?:[.,](?P<fraction>\d{1,40}))?)?"
    r" ?(?P<offset>[Zz]|[+-]\d{2}(?::?[0-5]\d)?)\s*",
    re.ASCII,
)
"""ISO 8601 in its extended form, with an offset from UTC: without one, the instant is anybody's guess.

Not read are a fraction of a minute, 24:00 and an offset of 60 minutes: versions of Python differ in them.
"""
_LARGEST_EXACT_FLOAT = 2**53
_UNSAFE_IN_TEXT = re.compile("[\x00\ud800-\udfff]")
_FLAG_WORDS = {"true": True, "false": False, "1": True, "0": False}

_JSON_NULL: frozenset[type] = frozenset({type(None)})
_JSON_TEXT = _JSON_NULL | {str}
_JSON_INTEGER = _JSON_NULL | {int}
_JSON_BOOLEAN = _JSON_NULL | {bool}

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """One field of a batch: the typed column, and by row position the values that it could not take (or not whole)."""

    array: pa.Array[Any]
    unread: dict[int, JsonValue] = field(default_factory=dict)


def columns_of(rows: Sequence[dict[str, JsonValue]]) -> dict[str, Sequence[JsonValue]]:
    """Return every field of ``rows`` as a column, if all rows have the same fields in the same order; else nothing.

    One pass over the rows, which lie all over the memory; a pass for each field takes several times as long.
    """
    if len(set(map(tuple, rows))) != 1:
        return {}
    return dict(zip(rows[0], zip(*map(dict.values, rows), strict=True), strict=True))


def is_blank(value: JsonValue) -> bool:
    """Whether a value says nothing: null, or a string of white space only."""
    return value is None or (isinstance(value, str) and not value.strip())


def whole_number(value: JsonValue) -> int | None:
    """Return an integer, an integral float, or a string of either ("12", " 12.0 "), as a 64-bit integer; else None.

    ``True`` is no number here, though Python counts it as one.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = int(value) if value.is_integer() else None
    elif isinstance(value, str):
        match = _WHOLE_NUMBER.fullmatch(value)
        value = int(match[1]) if match else None
    return value if isinstance(value, int) and _INT64_MIN <= value <= _INT64_MAX else None


def instant_ms(value: JsonValue) -> int | None:
    """Return an instant in epoch milliseconds, March 1973 to December 9999; None for anything else, 0 included.

    Instants are whole epoch milliseconds from 10^11 up, epoch seconds from 10^9 up to there, and ISO 8601 with an
    offset. What seconds have beyond the millisecond is cut off.
    """
    number = _instant_number(value)
    if number is None or number < INSTANT_FROM_SECONDS:
        return None
    number = number * 1000 if number < INSTANT_FROM_MS else number
    return number if number < INSTANT_UNTIL_MS else None


def _instant_number(value: JsonValue) -> int | None:
    """Return what may be an instant as a whole number: in its own unit, or in milliseconds where it is more exact."""
    number = whole_number(value)
    if number is not None:
        return number
    if isinstance(value, float) and INSTANT_FROM_SECONDS <= value < INSTANT_FROM_MS:
        # A product would be rounded, and so be a millisecond less at times.
        value = repr(value)
    if not isinstance(value, str):
        return None
    if match := _FRACTION_OF_SECONDS.fullmatch(value):
        return int(match[1] + match[2][:3].ljust(3, "0"))
    return _iso_8601_ms(value)


def _iso_8601_ms(value: str) -> int | None:
    match = _ISO_8601.fullmatch(value)
    if match is None:
        return None
    offset = "+00:00" if match["offset"] in "Zz" else match["offset"]
    try:
        instant = datetime.fromisoformat(f"{match['date']}T{match['minute']}{match['second'] or ''}{offset}")
        milliseconds = int((match["fraction"] or "")[:3].ljust(3, "0"))
        found = epoch_ms(instant) + milliseconds
    except (ValueError, OverflowError):  # there is no such day or hour
        return None
    return found if found >= INSTANT_FROM_MS else None


def text(value: JsonValue) -> str | None:
    """Return a string as it is, or a whole number in decimal digits; None for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        is_exact = value.is_integer() and abs(value) < _LARGEST_EXACT_FLOAT and not isinstance(value, ExactNumber)
        return str(int(value)) if is_exact else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def flag(value: JsonValue) -> bool | None:
    """Return ``true``/``false``, 1/0, or a string of one of these in any case, as a boolean; else None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _FLAG_WORDS.get(value.strip().lower())
    return {0: False, 1: True}.get(number) if (number := whole_number(value)) is not None else None


def is_storable(value: str) -> bool:
    """Whether every database can store the string: no NUL, no lone surrogate."""
    return value.isprintable() or _UNSAFE_IN_TEXT.search(value) is None


def storable(value: str) -> str:
    """Return the string with U+FFFD, the replacement character, for every NUL and lone surrogate."""
    return value if is_storable(value) else _UNSAFE_IN_TEXT.sub("\ufffd", value)


def read_text(values: Sequence[JsonValue]) -> Reading:
    """Read strings as they are; one that no database can store is made storable, and the original is in ``unread``."""
    if _JSON_TEXT.issuperset(map(type, values)):
        try:
            array = pa.array(values, pa.string())
        except UnicodeEncodeError:
            return _read_each_text(values)
        if not _any(pc.match_substring(array, "\0")):
            return Reading(pc.if_else(pc.equal(array, pa.scalar("")), pa.scalar(None, pa.string()), array))
    return _read_each_text(values)


def _read_each_text(values: Sequence[JsonValue]) -> Reading:
    unread: dict[int, JsonValue] = {}
    column: list[str | None] = [None] * len(values)
    for position, value in enumerate(values):
        if value is None or value == "":
            continue
        original = text(value)
        column[position] = None if original is None else storable(original)
        if original is None or column[position] != original:
            unread[position] = value
    return Reading(pa.array(column, pa.string()), unread)


def read_integers(values: Sequence[JsonValue]) -> Reading:
    """Read whole numbers of 64 bits (``whole_number`` says what counts as one)."""
    return _read(values, _JSON_INTEGER, pa.int64(), whole_number)


def read_counts(values: Sequence[JsonValue], most: int = _INT32_MAX) -> Reading:
    """Read whole numbers from 0 to ``most``."""
    reading = read_integers(values)
    reading = _refuse(reading, values, _outside(reading.array, 0, most + 1))
    return Reading(reading.array.cast(pa.int32()), reading.unread)


def read_seconds(values: Sequence[JsonValue]) -> Reading:
    """Read durations in whole seconds, of a year at the most."""
    return read_counts(values, _LONGEST_SECONDS)


def read_minutes(values: Sequence[JsonValue]) -> Reading:
    """Read durations in whole minutes, of a year at the most."""
    return read_counts(values, _LONGEST_MINUTES)


def read_instants(values: Sequence[JsonValue]) -> Reading:
    """Read UTC instants in any form of ``instant_ms``; 0 is null, and what that refuses is unread."""
    return _instants(_zero_as_null(_read(values, _JSON_INTEGER, pa.int64(), _instant_number)), values)


def read_instants_or_seconds(values: Sequence[JsonValue]) -> tuple[Reading, pa.Array[Any]]:
    """Read a field whose unit the API leaves open: instants as ``instant_ms`` reads them, durations in seconds below.

    0 is null. Returns the instants (with what is neither in ``unread``) and the seconds, null where the value is an
    instant.
    """
    reading = _zero_as_null(_read(values, _JSON_INTEGER, pa.int64(), _instant_number))
    below = pc.less(reading.array, pa.scalar(INSTANT_FROM_SECONDS))
    seconds = pc.if_else(below, reading.array, pa.scalar(None, pa.int64()))
    instants = _instants(Reading(pc.if_else(below, pa.scalar(None, pa.int64()), reading.array), reading.unread), values)
    durations = _refuse(Reading(seconds), values, _outside(seconds, 0, _LONGEST_SECONDS + 1))
    return Reading(instants.array, instants.unread | durations.unread), durations.array.cast(pa.int32())


def _instants(reading: Reading, values: Sequence[JsonValue]) -> Reading:
    in_seconds = _inside(reading.array, INSTANT_FROM_SECONDS, INSTANT_FROM_MS)
    if _any(in_seconds):
        # Only these are multiplied: others might not fit any more.
        seconds = pc.if_else(in_seconds, reading.array, pa.scalar(0, pa.int64()))
        milliseconds = pc.if_else(in_seconds, pc.multiply(seconds, pa.scalar(1000, pa.int64())), reading.array)
        reading = Reading(milliseconds, reading.unread)
    reading = _refuse(reading, values, _outside(reading.array, INSTANT_FROM_MS, INSTANT_UNTIL_MS))
    return Reading(reading.array.cast(pa.timestamp("ms", tz="UTC")), reading.unread)


def read_flags(values: Sequence[JsonValue]) -> Reading:
    """Read booleans (``flag`` says what counts as one)."""
    if _JSON_INTEGER.issuperset(map(type, values)):
        integers = read_integers(values)
        readable = _refuse(integers, values, _outside(integers.array, 0, 2))
        return Reading(readable.array.cast(pa.bool_()), readable.unread)
    return _read(values, _JSON_BOOLEAN, pa.bool_(), flag)


def _read(
    values: Sequence[JsonValue],
    plain: frozenset[type],
    arrow_type: pa.DataType,
    read_one: Callable[[JsonValue], T | None],
) -> Reading:
    if plain.issuperset(map(type, values)):
        try:
            return Reading(pa.array(values, arrow_type))
        except OverflowError:
            pass  # An integer beyond 64 bits: the slow way finds out which.
    unread: dict[int, JsonValue] = {}
    column: list[T | None] = [None] * len(values)
    for position, value in enumerate(values):
        if is_blank(value):
            continue
        column[position] = read_one(value)
        if column[position] is None:
            unread[position] = value
    return Reading(pa.array(column, arrow_type), unread)


def _zero_as_null(reading: Reading) -> Reading:
    zero = pc.equal(reading.array, pa.scalar(0))
    return Reading(pc.if_else(zero, pa.scalar(None, reading.array.type), reading.array), reading.unread)


def _outside(array: pa.Array[Any], lowest: int, end: int) -> pa.Array[Any]:
    return pc.or_(pc.less(array, pa.scalar(lowest)), pc.greater_equal(array, pa.scalar(end)))


def _inside(array: pa.Array[Any], lowest: int, end: int) -> pa.Array[Any]:
    return pc.and_(pc.greater_equal(array, pa.scalar(lowest)), pc.less(array, pa.scalar(end)))


def _refuse(reading: Reading, values: Sequence[JsonValue], refused: pa.Array[Any]) -> Reading:
    """Move the values at the refused places from the column to ``unread``."""
    if not _any(refused):
        return reading
    unread = reading.unread | {position: values[position] for position in positions_of(refused)}
    return Reading(pc.if_else(refused, pa.scalar(None, reading.array.type), reading.array), unread)


def _any(mask: pa.Array[Any]) -> bool:
    return bool(pc.any(mask).as_py())


def positions_of(mask: pa.Array[Any]) -> list[int]:
    """Return where a boolean array is true."""
    return np.flatnonzero(mask.fill_null(False).to_numpy(zero_copy_only=False)).tolist()
