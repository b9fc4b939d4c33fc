"""Realtime calls, and what can be done to them: transfer, stop, add a participant."""

from __future__ import annotations

import math
from typing import Any

import orjson

from pipelines.simulator.rows import Row
from pipelines.simulator.state import PortalState
from pipelines.simulator.wire import Refusal, Request, Response, envelope

_LIMIT = 200


def realtime(portal: PortalState, request: Request) -> Response:
    """Answer the calls in progress: those a test put there, and generated ones that run at the portal's time."""
    page = request.positive("page", 1)
    limit = min(request.positive("limit", _LIMIT), _LIMIT)
    calls = current(portal)
    data = {
        "totalCount": len(calls),
        "totalPages": math.ceil(len(calls) / limit),
        "currentPage": page,
        "limit": limit,
        "calls": calls[(page - 1) * limit : page * limit],
    }
    return envelope(0, "Success", "message", data=data)


def current(portal: PortalState) -> list[Row]:
    """Return the calls in progress, in the realtime operation's own fields."""
    now_ms = portal.clock.now_ms()
    stopped = {body["callId"] for name, body in portal.operations if name == "stop"}
    generated = (_realtime_row(row, now_ms) for row in portal.store.in_progress(now_ms))
    return [call for call in (*portal.realtime_calls, *generated) if call["callId"] not in stopped]


def _realtime_row(row: Row, now_ms: int) -> Row:
    answered_ms = row["answer_time"]
    return {
        "callId": row["id"],
        "stringeeNumber": row["stringee_number"],
        "stringeeNumberNickname": "Tổng đài chính",
        "agent": row["account"],
        "startTime": row["start_time"],
        "answeredTime": answered_ms if 0 < answered_ms <= now_ms else 0,
        "customerNumber": row["customer_number"],
        "direction": "callin" if row["direction"] == 1 else "callout",
    }


def transfer(portal: PortalState, request: Request) -> Response:
    """Hand a call in progress to somebody else."""
    body = _body_of_running_call(portal, request)
    _check_endpoint(body, "to")
    return _done(portal, "transfer", body)


def stop(portal: PortalState, request: Request) -> Response:
    """End a call in progress: realtime shows it no longer."""
    return _done(portal, "stop", _body_of_running_call(portal, request))


def add_participant(portal: PortalState, request: Request) -> Response:
    """Bring somebody into a call in progress."""
    body = _body_of_running_call(portal, request)
    _check_endpoint(body, "from")
    _check_endpoint(body, "to")
    return _done(portal, "add_participant", body)


def json_body(request: Request) -> dict[str, Any]:
    """Return a request's JSON object; raises Refusal for anything else."""
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(7, "body is not a JSON object", 400)
    return body


def _body_of_running_call(portal: PortalState, request: Request) -> dict[str, Any]:
    body = json_body(request)
    if body.get("callId") not in {call["callId"] for call in current(portal)}:
        raise Refusal(8, "call not found")
    return body


def _check_endpoint(body: dict[str, Any], name: str) -> None:
    end = body.get(name)
    if not isinstance(end, dict) or end.get("type") not in ("internal", "external") or not end.get("number"):
        raise Refusal(9, f"{name} is invalid")


def _done(portal: PortalState, name: str, body: dict[str, Any]) -> Response:
    portal.operations.append((name, body))
    return envelope(0, "Success", portal.options.message_key)
