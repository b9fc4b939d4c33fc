"""Local times, against pandas, in every kind of zone."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from transforms.fields import INSTANT_FROM_MS, INSTANT_UNTIL_MS
from transforms.local_time import local_columns, with_derived_columns

ZONES = [
    "Asia/Ho_Chi_Minh",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "Europe/Berlin",
    "Pacific/Apia",
    "Africa/Casablanca",
    "UTC",
]
CLOCKS_GO_BACK_MS = 1_729_990_800_000
"""2024-10-27 01:00 UTC, when summer time ended in Berlin."""


@pytest.mark.parametrize("zone", ZONES)
@given(st.lists(st.integers(INSTANT_FROM_MS, INSTANT_UNTIL_MS - 1)))
@example([CLOCKS_GO_BACK_MS - 1, CLOCKS_GO_BACK_MS, CLOCKS_GO_BACK_MS - 3_600_000])
def test_local_times_are_those_of_the_zone(zone: str, starts_ms: list[int]) -> None:
    started_at = pa.array(starts_ms, pa.timestamp("ms", tz="UTC"))
    found = local_columns(started_at, ZoneInfo(zone))
    local = pd.DatetimeIndex(np.array(starts_ms, "datetime64[ms]"), tz="UTC").tz_convert(ZoneInfo(zone))
    assert found["started_at_local"].to_pylist() == [time.to_pydatetime() for time in local.tz_localize(None)]
    assert found["call_date"].to_pylist() == list(local.date)
    assert found["call_hour"].to_pylist() == list(local.hour)


def test_a_column_that_is_there_stays() -> None:
    rows = pa.table({"started_at": pa.array([CLOCKS_GO_BACK_MS], pa.timestamp("ms", tz="UTC"))})
    filled = with_derived_columns(rows, ZoneInfo("Europe/Berlin"))
    assert str(filled["started_at_local"][0]) == "2024-10-27 02:00:00"
    assert with_derived_columns(filled, ZoneInfo("UTC")).equals(filled)
