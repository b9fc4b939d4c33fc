"""Hashes that tell whether a call has changed: the same on every machine and in every version of the libraries."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_DIGEST_BYTES = 16
_SEPARATOR = "\0"


def digest(content: bytes) -> str:
    """Return the 128-bit BLAKE2b digest of ``content``, as 32 hexadecimal digits."""
    return blake2b(content, digest_size=_DIGEST_BYTES).hexdigest()


def joined_text(columns: list[pa.Array[Any]]) -> pa.Array[Any]:
    """Return every row's values as one string, NUL between them.

    Instants are epoch milliseconds, dates days since 1970-01-01, numbers decimal, booleans ``true`` or ``false``, null
    is empty. No two different rows give the same string, since no text value is empty or holds a NUL.
    """
    texts: list[Any] = [_text(column) for column in columns]  # The stubs know no array and scalar in one call.
    joined: pa.Array[Any] = pc.binary_join_element_wise(
        *texts, _SEPARATOR, null_handling="replace", null_replacement=""
    )
    return joined


def row_hashes(
    columns: list[pa.Array[Any]],
    participants: list[pa.Array[Any]],
    offsets: pa.Array[Any],
    when_set: Mapping[str, pa.Array[Any]] = MappingProxyType({}),
) -> pa.Array[Any]:
    """Return the digest of every call: its ``columns``, then the columns of each of its participants in order.

    Row ``i`` has the participants from ``offsets[i]`` up to ``offsets[i + 1]``. Where a column of ``when_set`` is not
    null, its name and its value come last. One of ``columns`` has to be the number of participants: else two different
    calls could give the same text.
    """
    of_calls: pa.ListArray[Any] = pa.ListArray.from_arrays(offsets, joined_text(participants))  # type: ignore[call-overload]
    per_call: Any = pc.binary_join(of_calls, _SEPARATOR)
    text: Any = joined_text([*columns, per_call])
    for name, column in when_set.items():
        named: list[Any] = [pa.scalar(name), _text(column), _SEPARATOR]
        text = pc.binary_join_element_wise(text, pc.binary_join_element_wise(*named), _SEPARATOR, null_handling="skip")
    return _digests(text)


def text_digests(columns: list[pa.Array[Any]]) -> pa.Array[Any]:
    """Return the digest of every row's ``joined_text``."""
    return _digests(joined_text(columns))


def _digests(texts: pa.Array[Any]) -> pa.Array[Any]:
    content: list[Any] = texts.to_pylist()
    return pa.array([digest(row.encode()) for row in content], pa.string())


def _text(column: pa.Array[Any]) -> pa.Array[Any]:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    elif pa.types.is_date32(column.type):
        column = column.cast(pa.int32())
    return column.cast(pa.string())
