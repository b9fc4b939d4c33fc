"""``/_simulator/...``: a portal in another process, looked at and steered over HTTP. Not counted, not limited.

======================================  ==========================================================================
``GET, DELETE /_simulator/log``         requests seen so far, oldest first; DELETE forgets log and counts
``GET /_simulator/counts``              requests per operation
``GET /_simulator/rows?time=a-b``       the truth: rows now visible (``version=1`` for the other variant)
``GET /_simulator/keys?time=a-b``       the same as pairs of start in ms and call id
``GET, POST, DELETE /_simulator/faults``  ``{"fault": "Cut", "count": 1, ...}``, see ``faults.fault_from_json``
``POST /_simulator/calls``              ``{"row": {...}, "start_ms", "call_id", "visible_from_ms"}``
``PATCH, DELETE /_simulator/calls/ID``  change fields; remove
``POST /_simulator/clock``              ``{"now_ms"}`` or ``{"advance_seconds"}``; answers ``{"now_ms"}``
``PATCH /_simulator/options``           fields of ``PortalOptions``; ``rate_limits`` as an object
``POST /_simulator/realtime``           a list: the calls in progress
``POST /_simulator/revoke_tokens``      every token known so far is refused from now on
======================================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import unquote

import orjson

from pipelines.simulator.faults import fault_from_json
from pipelines.simulator.limits import RateLimits
from pipelines.simulator.portal import Portal
from pipelines.simulator.wire import Request, Response

PREFIX = "/_simulator/"


def handle(portal: Portal, request: Request) -> Response:
    """Do what a control request asks; 400 with the reason where that cannot be done."""
    resource, _, name = request.path.removeprefix(PREFIX).partition("/")
    try:
        body = orjson.loads(request.body) if request.body else None
        with portal.lock:
            return _done(portal, f"{request.method} {resource}", unquote(name), body, request)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Response(400, orjson.dumps({"error": str(error)}))


def _done(portal: Portal, action: str, name: str, body: Any, request: Request) -> Response:
    answer: Any = {}
    match action:
        case "GET log":
            answer = [dataclasses.asdict(entry) for entry in portal.log]
        case "DELETE log":
            portal.log.clear()
            portal.counts.clear()
        case "GET counts":
            answer = dict(portal.counts)
        case "GET rows":
            return Response(200, b"[" + b",".join(portal.rows_json(*_window(request), _version(request))) + b"]")
        case "GET keys":
            answer = portal.keys(*_window(request))
        case "GET faults":
            answer = [{"fault": type(fault).__name__, "fired": fault.fired} for fault in portal.faults]
        case "POST faults":
            portal.faults.append(fault_from_json(body))
        case "DELETE faults":
            portal.faults.clear()
        case "POST calls":
            portal.add_call(**body)
        case "PATCH calls":
            portal.update_call(name, **body)
        case "DELETE calls":
            portal.remove_call(name)
        case "POST clock":
            if "now_ms" in body:
                portal.clock.set(body["now_ms"])
            portal.clock.advance(body.get("advance_seconds", 0))
            answer = {"now_ms": portal.clock.now_ms()}
        case "PATCH options":
            for field, value in body.items():
                getattr(portal.options, field)
                setattr(portal.options, field, RateLimits(**value) if field == "rate_limits" else value)
        case "POST realtime":
            portal.realtime_calls[:] = body
        case "POST revoke_tokens":
            portal.access.revoke_tokens()
        case _:
            return Response(404, orjson.dumps({"error": f"no such control: {action}"}))
    return Response(200, orjson.dumps(answer))


def _window(request: Request) -> tuple[int, int]:
    first, _, last = (request.parameter("time") or f"0-{2**60}").partition("-")
    return int(first), int(last)


def _version(request: Request) -> int:
    return int(request.parameter("version") or 2)
