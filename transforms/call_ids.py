"""What tells one call from another: the id of a row, read in one way by everybody."""

from __future__ import annotations

from transforms.columns import CALL_ID_MAX_LENGTH
from transforms.fields import is_storable, text
from transforms.json_text import JsonValue


def call_id_of(row: JsonValue) -> str | None:
    """Return the id of a row: its text as it is, or an integer's digits; null where it has no usable one."""
    return usable_call_id(row.get("id")) if isinstance(row, dict) else None


def usable_call_id(value: JsonValue) -> str | None:
    """Return what a field holds as an id, by the rule of ``call_id_of``; null where it is none.

    White space is part of an id. A number with a point is no id, since ids beyond 2^53 are not exact so.
    """
    call_id = None if isinstance(value, float) else text(value)
    return call_id if call_id and len(call_id) <= CALL_ID_MAX_LENGTH and is_storable(call_id) else None
