"""The columns that tell when a row came and changed, equal in lake and warehouse."""

from __future__ import annotations

from datetime import datetime

import pandas as pd
import pyarrow as pa

from transforms.schema import CALLS

_REMEMBERED = ("row_hash", "window_start", "first_seen_at", "updated_at", "deleted_at")


def with_bookkeeping(calls: pa.Table, known: pa.Table, window_start: datetime, now: datetime) -> pa.Table:
    """Return ``calls`` (source columns and ``row_hash``) with the bookkeeping columns the warehouse will have.

    ``known`` holds what the warehouse has of these calls: call_id, row_hash, window_start, first_seen_at, updated_at
    and deleted_at. A call that it has unchanged keeps its times; any other gets ``now``, and keeps only
    ``first_seen_at``. This is the warehouse's own rule, applied before the file is swapped in.
    """
    columns = {name: CALLS[name].type.arrow for name in CALLS.column_names}
    if not known.num_rows:
        new = pa.array([now] * calls.num_rows, columns["updated_at"])
        begun = pa.array([window_start] * calls.num_rows, columns["window_start"])
        values = {"window_start": begun, "first_seen_at": new, "updated_at": new}
    else:
        remembered = known.to_pandas(types_mapper=pd.ArrowDtype).set_index("call_id")[list(_REMEMBERED)]
        before = remembered.reindex(calls["call_id"].to_pylist())
        row_hash = calls["row_hash"].to_pandas(types_mapper=pd.ArrowDtype)
        unchanged = (before["row_hash"].to_numpy() == row_hash.to_numpy()) & before["deleted_at"].isna().to_numpy()
        first_seen_at = before["first_seen_at"].fillna(now)
        updated_at = before["updated_at"].where(unchanged, now)
        begun_at = before["window_start"].where(unchanged, window_start)
        values = {
            name: pa.array(series.to_list(), columns[name])
            for name, series in (
                ("window_start", begun_at),
                ("first_seen_at", first_seen_at),
                ("updated_at", updated_at),
            )
        }
    values["deleted_at"] = pa.array([None] * calls.num_rows, columns["deleted_at"])
    for name, value in values.items():
        calls = calls.append_column(name, value)
    return calls.select(list(CALLS.column_names))
