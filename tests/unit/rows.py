"""What the tests of the transforms share: a window, and hypothesis strategies for rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
from hypothesis import strategies as st

from transforms.calls import Normalised, normalise
from transforms.json_text import JsonValue

WINDOW_START = datetime(2025, 6, 29, 17, tzinfo=UTC)
WINDOW_END = datetime(2025, 6, 30, 17, tzinfo=UTC)
START_MS = 1_751_236_747_978

FIELDS = [
    "id",
    "object_type",
    "project_id",
    "portal",
    "customer_number",
    "stringee_number",
    "direction",
    "status",
    "start_time",
    "end_time",
    "answer_time",
    "first_answer_time",
    "enqueue_time",
    "queue_duration",
    "duration",
    "ivr_duration",
    "hold_duration",
    "talk_duration",
    "acw_duration",
    "answer_duration",
    "answer_duration_minutes",
    "account",
    "account_name",
    "account_email",
    "from_user_id",
    "callee",
    "recorded",
    "have_voice_mail",
    "route_to_agent",
    "record_path",
    "end_call_reason",
    "campaign_name",
    "contactname",
    "company_id",
    "companyname",
    "participants",
    "video_call",
]
"""The documented fields of a row."""

_TEXTS = st.text(st.characters(), max_size=6) | st.sampled_from(
    ["", " ", "0", "12", " 12.0 ", "-1", "1751236747978", "true", "FALSE", "user_2", "84900000001",
     "a;84900000001;", "\0", "\ud800", "[]", "null", '["a", {"id": 1}]', "[" * 2000, "9" * 30]
)  # fmt: skip
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 60, 2**31, START_MS, 10**11, 10**11 - 1, 10**300])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, 1.0, 60.0, float(START_MS)])
    | _TEXTS
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS | st.sampled_from(FIELDS), inner, max_size=3),
    max_leaves=4,
)


def _as_parsed(value: Any) -> JsonValue:
    return json.loads(json.dumps(value))  # type: ignore[no-any-return]


JSON_VALUES = _JSON.map(_as_parsed)
"""Any JSON value as a parser gives it."""

ODD_CALLS = st.dictionaries(st.sampled_from(FIELDS) | _TEXTS, _JSON, max_size=8).map(
    lambda fields: _as_parsed(
        {"id": "c", "start_time": START_MS} | {k: v for k, v in fields.items() if k != "start_time"}
    )
)
"""Rows with documented and other fields that hold anything; most are calls."""

ROWS = st.lists(
    ODD_CALLS | st.dictionaries(st.sampled_from(FIELDS), _JSON, max_size=4).map(_as_parsed) | JSON_VALUES, max_size=6
)
"""A batch as a careless API could serve it."""


def normalised(rows: Sequence[JsonValue], occurrences: Counter[str] | None = None, **changes: Any) -> Normalised:
    """Normalise in the window above, in Vietnam unless ``changes`` say otherwise."""
    settings = {
        "window_start": WINDOW_START,
        "window_end": WINDOW_END,
        "timezone": "Asia/Ho_Chi_Minh",
        "region": "VN",
    }
    return normalise(rows, reject_occurrences=occurrences, **(settings | changes))


def call(**fields: JsonValue) -> dict[str, Any]:
    """Return the one call made of a minimal row with ``fields``."""
    (record,) = records(normalised([{"id": "c", "start_time": START_MS, **fields}]).calls)
    return record


def extra_of(record: dict[str, Any]) -> dict[str, JsonValue]:
    """Return what ``extra`` holds."""
    return json.loads(record["extra"]) if record["extra"] is not None else {}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a frame's rows with None for null and plain Python values."""
    columns = {name: frame[name].array.__arrow_array__().to_pylist() for name in frame.columns}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
