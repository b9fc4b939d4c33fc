"""The columns that tell when a row came and changed: the warehouse decides them, the lake takes them over."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import DataError
from transforms.schema import CALLS

TIMES = ("window_start", "first_seen_at", "updated_at")


def all_new(calls: pa.Table, window_start: datetime, now: datetime) -> pa.Table:
    """Return ``calls`` (value columns and ``row_hash``) as rows that the warehouse first saw at ``now``."""
    values = {"window_start": window_start, "first_seen_at": now, "updated_at": now}
    repeat: Any = pa.repeat  # The stubs know no scalar of a type that is only known later.
    return _with_times(
        calls, {name: repeat(pa.scalar(values[name], CALLS[name].type.arrow), calls.num_rows) for name in TIMES}
    )


def as_in_warehouse(calls: pa.Table, warehouse_times: pa.Table) -> pa.Table:
    """Return ``calls`` with the times that the warehouse holds for them.

    ``warehouse_times`` has call_id, window_start, first_seen_at and updated_at of these calls, and maybe of others.
    Raises ``DataError`` when one is missing there.
    """
    positions = pc.index_in(calls["call_id"], warehouse_times["call_id"])
    if positions.null_count:
        raise DataError(f"{positions.null_count} calls of a window are not in the warehouse that was to hold them")
    return _with_times(calls, {name: warehouse_times[name].take(positions) for name in TIMES})


def _with_times(calls: pa.Table, times: Mapping[str, Any]) -> pa.Table:
    for name, values in times.items():
        calls = calls.append_column(name, values)
    deleted_at: Any = pa.nulls(calls.num_rows, CALLS["deleted_at"].type.arrow)  # type: ignore[call-overload]
    calls = calls.append_column("deleted_at", deleted_at)
    return calls.select(list(CALLS.column_names))
