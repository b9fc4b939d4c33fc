"""What follows from a call's start: its local day, hour and wall clock. The source says none of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa

from transforms.epoch import instant_at
from transforms.schema import CALLS

_MINUTE_MS = 60_000


def local_columns(started_at: pa.Array[Any], zone: ZoneInfo) -> dict[str, pa.Array[Any]]:
    """Return the columns ``call_date``, ``call_hour`` and ``started_at_local`` of instants, none of them null."""
    starts_ms = started_at.cast(pa.int64()).to_numpy()
    # Since 1973 every zone has changed its offset at a whole minute: the calls of a minute share theirs.
    minutes, minute_of_call = np.unique(starts_ms // _MINUTE_MS, return_inverse=True)
    offsets_ms = np.array([_offset_ms(int(minute), zone) for minute in minutes], np.int64)
    local = (starts_ms + offsets_ms[minute_of_call]).astype("datetime64[ms]")
    return {
        "call_date": pa.array(local.astype("datetime64[D]"), pa.date32()),
        "call_hour": pa.array(local.astype("datetime64[h]").astype(np.int64) % 24, pa.int32()),
        "started_at_local": pa.array(local, CALLS["started_at_local"].type.arrow),
    }


def _offset_ms(minute: int, zone: ZoneInfo) -> int:
    offset = instant_at(minute * _MINUTE_MS).astimezone(zone).utcoffset()
    assert offset is not None
    return offset // timedelta(milliseconds=1)


def with_derived_columns(calls: pa.Table, zone: ZoneInfo) -> pa.Table:
    """Return ``calls``, which have ``started_at``, with those derived columns that they lack.

    An earlier version wrote files without them.
    """
    missing = [name for name in CALLS.derived_columns if name not in calls.column_names]
    if missing:
        derived = local_columns(calls["started_at"].combine_chunks(), zone)
        for name in missing:
            calls = calls.append_column(name, derived[name])
    return calls
