"""A call in progress, from the realtime operation's own fields to the words and types of ``calls``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from transforms.call_ids import usable_call_id
from transforms.columns import UNKNOWN
from transforms.epoch import instant_at
from transforms.fields import instant_ms, storable, text
from transforms.json_text import JsonValue
from transforms.phones import parse_number

DIRECTIONS = {"callout": "outbound", "callin": "inbound"}


@dataclass(frozen=True)
class LiveCall:
    """A call in progress; the fields are columns of ``live_calls``."""

    call_id: str
    direction: str
    started_at: datetime | None
    call_date: date | None
    call_hour: int | None
    answered_at: datetime | None
    agent_id: str | None
    customer_number: str | None
    customer_number_e164: str | None
    stringee_number: str | None
    stringee_number_name: str | None


def live_call(row: JsonValue, *, timezone: str, region: str) -> LiveCall | None:
    """Read one entry of the realtime operation's ``calls``; null for what has no usable call id.

    An id is told as in ``transforms.call_ids``. A field that cannot be read is null; a direction that is not documented
    is ``unknown``. ``timezone`` (an IANA name) decides the local day and hour, ``region`` the national form of phone
    numbers.
    """
    if not isinstance(row, dict):
        return None
    call_id = usable_call_id(row.get("callId"))
    if call_id is None:
        return None
    started_at = _instant(row, "startTime")
    local_start = started_at.astimezone(ZoneInfo(timezone)) if started_at else None
    customer_number = _text(row, "customerNumber")
    return LiveCall(
        call_id=call_id,
        direction=DIRECTIONS.get((_text(row, "direction") or "").lower(), UNKNOWN),
        started_at=started_at,
        call_date=local_start.date() if local_start else None,
        call_hour=local_start.hour if local_start else None,
        answered_at=_instant(row, "answeredTime"),
        agent_id=_text(row, "agent"),
        customer_number=customer_number,
        customer_number_e164=parse_number(customer_number, region)[0] if customer_number else None,
        stringee_number=_text(row, "stringeeNumber"),
        stringee_number_name=_text(row, "stringeeNumberNickname"),
    )


def _text(row: dict[str, JsonValue], field: str) -> str | None:
    value = text(row.get(field))
    return storable(value).strip() or None if value else None


def _instant(row: dict[str, JsonValue], field: str) -> datetime | None:
    milliseconds = instant_ms(row.get(field))
    return None if milliseconds is None else instant_at(milliseconds)
