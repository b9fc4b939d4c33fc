"""What follows from a call's start: its local day, hour and wall clock. The source says none of it."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from transforms.schema import CALLS


def local_columns(started_at: pa.Array[Any], zone: ZoneInfo) -> dict[str, pa.Array[Any]]:
    """Return the columns ``call_date``, ``call_hour`` and ``started_at_local`` of instants, none of them null."""
    local = pd.DatetimeIndex(started_at.cast(pa.timestamp("ms")).to_numpy(), tz="UTC").tz_convert(zone)
    wall_clock = local.tz_localize(None).to_numpy()
    return {
        "call_date": pa.array(wall_clock.astype("datetime64[D]"), pa.date32()),
        "call_hour": pa.array(local.hour.to_numpy(), pa.int32()),
        "started_at_local": pa.array(wall_clock.astype("datetime64[ms]"), CALLS["started_at_local"].type.arrow),
    }


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
