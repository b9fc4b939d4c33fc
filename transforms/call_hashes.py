"""``row_hash``: the hash of what the source says of a call, and what it is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from transforms.hashing import row_hashes
from transforms.participants import ENTRY_COLUMNS
from transforms.schema import CALLS

_HASHED = [column for column in CALLS.columns if column.name in CALLS.hashed_columns]


def call_hashes(
    calls: Mapping[str, pa.Array[Any]], entries: Mapping[str, pa.Array[Any]], offsets: pa.Array[Any]
) -> pa.Array[Any]:
    """Return the ``row_hash`` of every call: of its ``hashed_columns``, and of its participants in order.

    Call ``i`` has the ``entries`` (columns of ``call_participants``) from ``offsets[i]`` up to ``offsets[i + 1]``.
    """
    return row_hashes(
        [calls[column.name] for column in _HASHED if not column.hashed_when_set],
        [entries[name] for name in ENTRY_COLUMNS],
        offsets,
        {column.name: calls[column.name] for column in _HASHED if column.hashed_when_set},
    )
