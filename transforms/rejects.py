"""Which rows can be a call, and the quarantine of those that cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa

from transforms.call_ids import call_id_of
from transforms.epoch import epoch_ms
from transforms.fields import instant_ms, whole_number
from transforms.hashing import digest
from transforms.json_text import JsonValue, canonical_json, exact_json
from transforms.schema import REJECTED_ROWS

COLUMNS = tuple(name for name in REJECTED_ROWS.column_names if name != "first_seen_at")
"""The columns of ``rejected_rows`` that do not depend on when a row is written."""


class RejectReason(StrEnum):
    """Why a row cannot be a call."""

    NOT_AN_OBJECT = "not_an_object"
    MISSING_ID = "missing_id"
    UNUSABLE_ID = "unusable_id"
    MISSING_START_TIME = "missing_start_time"
    UNUSABLE_START_TIME = "unusable_start_time"
    START_TIME_OUTSIDE_WINDOW = "start_time_outside_window"
    DUPLICATE_ID = "duplicate_id"


FIELD_AT_FAULT = {
    RejectReason.NOT_AN_OBJECT: None,
    RejectReason.MISSING_ID: "id",
    RejectReason.UNUSABLE_ID: "id",
    RejectReason.MISSING_START_TIME: "start_time",
    RejectReason.UNUSABLE_START_TIME: "start_time",
    RejectReason.START_TIME_OUTSIDE_WINDOW: "start_time",
    RejectReason.DUPLICATE_ID: "id",
}


@dataclass(frozen=True)
class Admission:
    """The rows that are calls, as objects, and the others as a table with ``COLUMNS``; each in the order served.

    ``refused`` holds the rows of ``rejects`` as they were served.
    """

    rows: list[dict[str, JsonValue]]
    rejects: pa.Table
    refused: list[JsonValue]


def admit(
    rows: Sequence[JsonValue],
    *,
    window_start: datetime,
    window_end: datetime,
    call_date: date,
    occurrences: Counter[str],
    superseded: Collection[int] = (),
) -> Admission:
    """Part the rows that are calls of the window ``[window_start, window_end)`` from those that are not.

    ``call_date`` is the local day of the window, ``superseded`` the places of rows for which another one of their id is
    the call. A reject's id is the digest of its payload and of how many equal payloads came before it, which
    ``occurrences`` counts: pass the same counter for all batches of a window.
    """
    admitted: list[dict[str, JsonValue]] = []
    refused: list[JsonValue] = []
    rejected: list[dict[str, Any]] = []
    start_ms, end_ms = epoch_ms(window_start), epoch_ms(window_end)
    for place, row in enumerate(rows):
        reason = _reason_against(row, start_ms, end_ms)
        if reason is None and place in superseded:
            reason = RejectReason.DUPLICATE_ID
        if reason is None:
            assert isinstance(row, dict)
            admitted.append(row)
            continue
        refused.append(row)
        payload_digest = digest(canonical_json(row).encode())
        reject = _reject_id(payload_digest, occurrences[payload_digest])
        rejected.append(
            {
                "window_start": window_start,
                "reject_id": reject,
                "reason": str(reason),
                "field": FIELD_AT_FAULT[reason],
                "call_id": call_id_of(row),
                "payload": exact_json(row),
                "call_date": call_date,
            }
        )
        occurrences[payload_digest] += 1
    schema = pa.schema([REJECTED_ROWS.arrow_schema.field(name) for name in COLUMNS])
    return Admission(admitted, pa.Table.from_pylist(rejected, schema), refused)


def reject_id(payload: JsonValue, occurrence: int) -> str:
    """Return the id of a reject, given how many of an equal payload came before it in its window."""
    return _reject_id(digest(canonical_json(payload).encode()), occurrence)


def _reject_id(payload_digest: str, occurrence: int) -> str:
    return digest(f"{payload_digest} {occurrence}".encode())


def can_be_call(row: JsonValue, window_start: datetime, window_end: datetime) -> bool:
    """Whether a row alone would be a call of the window ``[window_start, window_end)``."""
    return _reason_against(row, epoch_ms(window_start), epoch_ms(window_end)) is None


def _reason_against(row: JsonValue, start_ms: int, end_ms: int) -> RejectReason | None:
    if not isinstance(row, dict):
        return RejectReason.NOT_AN_OBJECT
    if call_id_of(row) is None:
        return RejectReason.MISSING_ID if row.get("id") in (None, "") else RejectReason.UNUSABLE_ID
    started = row.get("start_time")
    started_ms = instant_ms(started)
    if started_ms is None:
        missing = started is None or started == "" or whole_number(started) == 0
        return RejectReason.MISSING_START_TIME if missing else RejectReason.UNUSABLE_START_TIME
    return None if start_ms <= started_ms < end_ms else RejectReason.START_TIME_OUTSIDE_WINDOW
