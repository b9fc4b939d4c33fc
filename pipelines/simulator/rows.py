"""From generated facts to the rows that the portal serves, in both published variants.

Version 1 writes booleans as ``true/false`` and knows no ``queue_duration``; version 2 writes them as ``1/0``.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson

from pipelines.simulator.generator import (
    INBOUND,
    INTERNAL,
    MET,
    MISSED,
    OUTBOUND,
    STOPPED_AT_IVR,
    GeneratedCalls,
)
from pipelines.simulator.people import CAMPAIGNS, STRINGEE_NUMBERS, company, contact_name

Row = dict[str, Any]

_PROJECT_ID, _PORTAL = 1001, "PTSIMULATED"
_REASONS = {
    MET: ("USER_END_CALL", "CUSTOMER_END_CALL", "AGENT_END_CALL"),
    MISSED: ("TIMEOUT_ANSWER", "CUSTOMER_END_CALL", "QUEUE_TIMEOUT", "USER_BUSY"),
    STOPPED_AT_IVR: ("CUSTOMER_END_CALL", "IVR_END"),
}
_SURVEY_REASONS = ("SURVEY_END", "CUSTOMER_END_CALL")


def render(calls: GeneratedCalls, first: int, last: int, version: int, now_ms: int) -> list[Row]:
    """Return the rows of ``calls[first:last]`` as they look at ``now_ms`` in answers of ``version`` 1 or 2."""
    part = slice(first, last)
    settled = calls.settled_from_ms[part] <= now_ms
    start, end, answer = calls.start_ms[part], calls.end_ms[part], calls.answer_ms[part]
    direction, ivr, queue = calls.direction[part], calls.ivr_s[part], calls.queue_s[part]
    answered = answer > 0
    answer_s = np.where(answered, (end - answer) // 1000, 0)
    talk = answer_s - calls.hold_s[part]
    recorded = calls.recorded[part] & settled
    facts = zip(
        calls.call_ids[part].astype("U").tolist(),
        start.tolist(),
        end.tolist(),
        answer.tolist(),
        direction.tolist(),
        calls.status[part].tolist(),
        calls.agent[part].tolist(),
        calls.other_agent[part].tolist(),
        calls.customer[part].tolist(),
        calls.number[part].tolist(),
        calls.campaign[part].tolist(),
        ivr.tolist(),
        queue.tolist(),
        calls.hold_s[part].tolist(),
        np.where(settled, calls.acw_s[part], 0).tolist(),
        ((end - start) // 1000).tolist(),
        talk.tolist(),
        answer_s.tolist(),
        settled.tolist(),
        _as_served(recorded, version),
        _as_served(calls.voicemail[part], version),
        _as_served((direction == INBOUND) & (queue > 0), version),
        calls.video[part].tolist(),
        calls.variety[part].tolist(),
        strict=True,
    )
    return [_row(calls, version, *values) for values in facts]


def _as_served(flags: np.typing.NDArray[np.bool_], version: int) -> list[Any]:
    return (flags if version == 1 else flags.astype(np.int8)).tolist()  # type: ignore[no-any-return]


def _row(
    calls: GeneratedCalls,
    version: int,
    call_id: str,
    start: int,
    end: int,
    answer: int,
    direction: int,
    status: int,
    agent: int,
    other_agent: int,
    customer: int,
    number: int,
    campaign: int,
    ivr: int,
    queue: int,
    hold: int,
    acw: int,
    duration: int,
    talk: int,
    answer_s: int,
    settled: bool,
    recorded: Any,
    voicemail: Any,
    routed: Any,
    video: bool,
    variety: int,
) -> Row:
    person = calls.team[agent] if agent >= 0 else None
    account = person.account if person else None
    customer_number: str | None
    stringee_number: str | None
    caller: str | None
    callee: str | None
    if direction == INTERNAL:
        colleague = calls.team[other_agent].account
        customer_number, stringee_number = colleague, account
        caller, callee = account, colleague
    else:
        customer_number = _spelling(int(calls.customer_numbers[customer]), variety)
        stringee_number = STRINGEE_NUMBERS[number]
        caller, callee = (account, customer_number) if direction == OUTBOUND else (None, account)
    reasons = _REASONS.get(status, _SURVEY_REASONS)
    company_id, company_name = company(customer)
    row: Row = {
        "object_type": "call",
        "id": call_id,
        "project_id": _PROJECT_ID,
        "portal": _PORTAL,
        "customer_number": customer_number,
        "stringee_number": stringee_number,
        "direction": direction,
        "status": status,
        "start_time": start,
        "end_time": end,
        "answer_time": answer,
        "first_answer_time": answer or None,
        "enqueue_time": start + ivr * 1000 if routed else 0,
        "queue_duration": queue,
        "duration": duration,
        "ivr_duration": ivr,
        "hold_duration": hold,
        "talk_duration": talk,
        "acw_duration": acw,
        "answer_duration": answer_s if answer else None,
        "answer_duration_minutes": -(-answer_s // 60) if answer else None,
        "account": account,
        "account_name": person.name if person else None,
        "account_email": person.email if person else None,
        "from_user_id": caller,
        "callee": callee,
        "recorded": recorded,
        "have_voice_mail": voicemail,
        "route_to_agent": routed,
        "record_path": f"{calls.record_link_base}/v1/call/recording/{call_id}" if recorded else None,
        "end_call_reason": reasons[variety % len(reasons)],
        "campaign_name": CAMPAIGNS[campaign] if campaign >= 0 else None,
        "contactname": contact_name(customer) if settled and customer >= 0 else None,
        "company_id": company_id,
        "companyname": company_name,
        "participants": _participants(variety, account, customer_number, status == MET),
        "video_call": (1 if video else 0) if variety % 3 else (1 if video else None),
    }
    if version == 1:
        del row["queue_duration"]
    return row


def _spelling(number: int, variety: int) -> str:
    """Spell a number as users of the API have seen it: mostly bare digits, sometimes ``+84...`` or ``0...``."""
    digits = str(number)
    if variety >= 970:
        return f"+{digits}"
    return f"0{digits[2:]}" if variety >= 945 and digits.startswith("84") else digits


def _participants(variety: int, account: str | None, other: str | None, met: bool) -> Any:
    """Return who took part, in every shape that has been seen or is to be expected."""
    if not met or variety % 5 < 2 or account is None or other is None:
        return None
    if variety % 5 == 2:
        return f"{account};{other};"
    if variety % 5 == 3:
        return [account, other]
    people = [{"type": "internal", "number": account}, {"type": "external", "number": other}]
    return people if variety % 2 else json.dumps(people)


def to_json(row: Row) -> bytes:
    """Serialise one row; what strict JSON writers refuse (a lone surrogate, a huge integer) goes out all the same."""
    try:
        # a copy of the right size: what orjson returns keeps its work space, some 8 kB a row, for as long as it lives
        return bytes(memoryview(orjson.dumps(row)))
    except TypeError:
        return json.dumps(row, ensure_ascii=True, separators=(",", ":")).encode()
