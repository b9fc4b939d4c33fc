"""Calls in progress, and what can be done to them and to greetings: by the command, and by the class."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulator import Portal
from pipelines.simulator import faults as fault
from pipelines.simulator.audio import recording
from pipelines.simulator.wire import Response
from pipelines.stringeex.operations import CallEnd, StringeeX
from tests.e2e.command import Finished
from tests.e2e.operations.portals import CALL_ID, LIVE_ID, live_call, queried
from transforms.errors import ApiError, DataError, ServerError, TransportError

WORLD = ("transfer", "stop", "add_participant", "delete_recording", "upload_greeting")


def test_calls_in_progress_by_the_command(run: Callable[..., Finished], portal: Portal, tmp_path: Path) -> None:
    shown = run("live")
    assert shown.exit_code == 0
    for expected in (LIVE_ID, "inbound", "talking", "user_3", "Tổng đài chính"):
        assert expected in shown.stdout
    portal.realtime_calls.append(live_call("call-vn-1-LIVE000002-1", direction="callout", answeredTime=0))
    stored = run("live", "--store", "--json")
    assert [(call["call_id"], call["direction"]) for call in stored.json["calls"]] == [
        (LIVE_ID, "inbound"),
        ("call-vn-1-LIVE000002-1", "outbound"),
    ]
    in_view = "SELECT call_id, direction, status FROM calls_with_live WHERE is_provisional ORDER BY ALL"
    assert queried(tmp_path, in_view) == [
        (LIVE_ID, "inbound", "in_progress"),
        ("call-vn-1-LIVE000002-1", "outbound", "in_progress"),
    ]
    portal.realtime_calls.clear()
    watched = run("live", "--watch", "--refreshes", "2", "--interval", "1", "--store")
    assert watched.exit_code == 0
    assert watched.stdout.count("0 calls in progress") == 2
    assert queried(tmp_path, in_view) == []
    assert queried(tmp_path, "SELECT count(*) FROM live_calls") == [(2,)]
    assert run("live", "--watch", "--json").exit_code == 2


def test_what_can_be_done_to_a_call_by_the_command(run: Callable[..., Finished], portal: Portal) -> None:
    unasked = run("calls", "stop", LIVE_ID)
    assert unasked.exit_code == 2
    assert "add --yes" in unasked.stderr
    assert portal.operations == []

    transferred = run("calls", "transfer", LIVE_ID, "--to", "user_2", "--yes", "--json")
    assert (transferred.exit_code, transferred.json["operation"], transferred.json["r"]) == (0, "transfer", 0)
    assert f"about to transfer call {LIVE_ID} to internal user_2" in transferred.stderr
    portal.options.operation_methods = ("POST",)
    added = run("calls", "add-participant", LIVE_ID, "--to", "84900000013", "--from", "842473000001", "--yes")
    assert added.exit_code == 0
    assert "accepted add_participant" in added.stdout
    stopped = run("calls", "stop", LIVE_ID, "--yes")
    assert stopped.exit_code == 0
    assert portal.operations == [
        ("transfer", {"callId": LIVE_ID, "to": {"type": "internal", "number": "user_2", "alias": "user_2"}}),
        (
            "add_participant",
            {
                "callId": LIVE_ID,
                "from": {"type": "external", "number": "842473000001", "alias": "842473000001"},
                "to": {"type": "external", "number": "84900000013", "alias": "84900000013"},
            },
        ),
        ("stop", {"callId": LIVE_ID}),
    ]
    assert [(entry.method, entry.status) for entry in portal.log if entry.path.startswith("/v1/call/")] == [
        ("GET", 200),
        ("GET", 405),
        ("POST", 200),
        ("GET", 405),
        ("POST", 200),
    ]
    refused = run("calls", "stop", LIVE_ID, "--yes")
    assert refused.exit_code == 1
    assert "r=8, call not found" in refused.stderr


@pytest.mark.parametrize(
    ("answer", "exit_code", "done"), [("y\n", 0, 1), ("n\n", 1, 0), ("\n", 1, 0), ("\x04", 130, 0)]
)
def test_a_person_is_asked(
    run: Callable[..., Finished], portal: Portal, answer: str, exit_code: int, done: int
) -> None:
    terminal, keyboard = os.openpty()
    with os.fdopen(keyboard, "r") as stdin, os.fdopen(terminal, "w") as person:
        person.write(answer)
        person.flush()
        finished = run("calls", "stop", LIVE_ID, stdin=stdin)
    assert (finished.exit_code, len(portal.operations)) == (exit_code, done)
    assert f"about to stop call {LIVE_ID}" in finished.stderr
    assert "Do it? [y/N]" in finished.stderr


def test_a_greeting_is_looked_into_before_it_is_sent(
    run: Callable[..., Finished], portal: Portal, tmp_path: Path
) -> None:
    greeting = tmp_path / "chào.wav"
    greeting.write_bytes(recording("greeting", 3))
    done = run("greetings", "upload", "chào.wav", "--desc", "Xin chào", "--yes", "--json")
    assert (done.exit_code, done.json["file_sid"], done.json["filename"]) == (0, "GRSIMULATED1", "chào.wav")
    assert portal.greetings == {"GRSIMULATED1": ("chào.wav", greeting.read_bytes())}
    (tmp_path / "page.wav").write_text("<html>")
    refused = run("greetings", "upload", "page.wav", "--desc", "x", "--yes")
    assert refused.exit_code == 1
    assert "WAV or MP3" in refused.stderr
    assert run("greetings", "upload", "absent.wav", "--desc", "x", "--yes").exit_code == 2
    assert portal.counts["upload_greeting"] == 1


def deeds(api: StringeeX, greeting: Path) -> dict[str, Callable[[], object]]:
    user = CallEnd.of("user_2")
    return {
        "transfer": lambda: api.transfer_call(LIVE_ID, user),
        "stop": lambda: api.stop_call(LIVE_ID),
        "add_participant": lambda: api.add_participant(LIVE_ID, user, user),
        "delete_recording": lambda: api.delete_recording(CALL_ID),
        "upload_greeting": lambda: api.upload_greeting(greeting, "x"),
    }


@pytest.fixture
def greeting(tmp_path: Path) -> Path:
    path = tmp_path / "greeting.wav"
    path.write_bytes(recording("greeting", 3))
    return path


@pytest.mark.parametrize("operation", WORLD)
@pytest.mark.parametrize(
    ("what", "error"),
    [
        (fault.Status(status=503), ServerError),
        (fault.Reset(), TransportError),
        (fault.Cut(), TransportError),
        (fault.Envelope(), ServerError),
    ],
    ids=["503", "reset", "cut", "busy"],
)
def test_what_changes_the_world_is_sent_once(
    connect: Callable[..., Any],
    portal: Portal,
    greeting: Path,
    operation: str,
    what: fault.Fault,
    error: type[Exception],
) -> None:
    portal.faults.append(type(what)(operation=operation))
    with connect() as api, pytest.raises(error):
        deeds(api, greeting)[operation]()
    assert portal.counts[operation] == 1


@pytest.mark.parametrize("operation", WORLD)
def test_a_request_with_a_rejected_token_has_done_nothing_and_is_sent_again(
    connect: Callable[..., Any], portal: Portal, greeting: Path, operation: str
) -> None:
    portal.faults.append(fault.AuthRejected(operation=operation, count=1))
    with connect() as api:
        deeds(api, greeting)[operation]()
    assert portal.counts[operation] == 2
    done = [name for name, _ in portal.operations] + ["delete_recording"] * len(portal.deleted_recordings)
    assert done + ["upload_greeting"] * len(portal.greetings) == [operation]
    assert all(content == greeting.read_bytes() for _, content in portal.greetings.values())


def test_a_pinned_method_has_no_second_try(connect: Callable[..., Any], portal: Portal) -> None:
    portal.options.operation_methods = ("POST",)
    with connect(STRINGEEX_ENDPOINT_STOP="GET /v1/call/stop") as api, pytest.raises(ApiError):
        api.stop_call(LIVE_ID)
    with connect(STRINGEEX_ENDPOINT_STOP="POST /v1/call/stop") as api:
        api.stop_call(LIVE_ID)
    assert [entry.method for entry in portal.log] == ["GET", "POST"]


def test_all_pages_of_calls_in_progress_are_read_each_call_once(connect: Callable[..., Any], portal: Portal) -> None:
    portal.realtime_calls[:] = [live_call(f"call-{number}") for number in range(450)]
    portal.realtime_calls += [live_call("call-0"), {"direction": "callin"} | {"callId": ""}]
    with connect() as api:
        found = api.realtime_calls()
    assert [call.call_id for call in found.calls] == [f"call-{number}" for number in range(450)]
    assert (found.api_total, found.unreadable, portal.counts["realtime"]) == (452, 1, 3)


@dataclass(kw_only=True)
class OddCounts(fault.Fault):
    """The counts of calls in progress as a careless server could give them; None leaves one out."""

    operation: str = "realtime"
    total: object = None
    pages: object = None

    def on_answer(self, response: Response) -> Response:
        answer = json.loads(response.body)
        for name, value in (("totalCount", self.total), ("totalPages", self.pages)):
            del answer["data"][name]
            answer["data"] |= {} if value is None else {name: value}
        return replace(response, body=json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("total", "pages", "requests"),
    [
        ("450", "3", 3),
        (450, 0, 3),
        (None, 3, 3),
        (450, None, 3),
        (None, None, 4),
        ("many", "few", 4),
        (9_999, 3, 4),
        (0, 0, 1),
    ],
)
def test_calls_in_progress_ended_after_one_page_where_the_count_of_pages_was_odd(
    connect: Callable[..., Any], portal: Portal, total: object, pages: object, requests: int
) -> None:
    portal.realtime_calls[:] = [live_call(f"call-{number}") for number in range(450)]
    portal.faults.append(OddCounts(total=total, pages=pages))
    with connect() as api:
        found = api.realtime_calls()
    assert (len(found.calls), portal.counts["realtime"]) == (200 if total == 0 else 450, requests)


def test_a_call_in_progress_is_read_without_trust(connect: Callable[..., Any], portal: Portal) -> None:
    portal.realtime_calls[:] = [
        live_call(
            "odd", direction="sideways", startTime="1767546000000", answeredTime=0, agent=17, customerNumber="user_2"
        )
    ]
    with connect() as api:
        (call,) = api.realtime_calls().calls
    assert (call.direction, call.agent_id, call.answered_at) == ("unknown", "17", None)
    assert call.started_at == datetime.fromtimestamp(1767546000, UTC)
    assert (str(call.call_date), call.call_hour) == ("2026-01-05", 0)
    assert (call.customer_number, call.customer_number_e164) == ("user_2", None)


@pytest.mark.parametrize("served", [1767546000, "1767546000.0", "2026-01-04T17:00:00Z", "2026-01-05T00:00:00+0700"])
@pytest.mark.parametrize("number", [84900000012.0, "tel:+84900000012", "+84\u00a0900\u2011000\u2011012"])
def test_a_call_in_progress_is_read_as_calls_are(
    connect: Callable[..., Any], portal: Portal, served: Any, number: Any
) -> None:
    portal.realtime_calls[:] = [live_call("a", startTime=served, answeredTime=served, customerNumber=number)]
    with connect() as api:
        (call,) = api.realtime_calls().calls
    assert call.started_at == call.answered_at == datetime.fromtimestamp(1767546000, UTC)
    assert call.customer_number_e164 == "+84900000012"


def test_a_call_in_progress_has_the_id_that_it_has_as_a_call(connect: Callable[..., Any], portal: Portal) -> None:
    """White space was taken off, and an id longer than any database's key went on to the insert."""
    portal.realtime_calls[:] = [live_call(call_id) for call_id in ("5 ", "5", 6, 7.0, "a\0", "a" * 513)]  # type: ignore[arg-type]
    with connect() as api:
        found = api.realtime_calls()
    assert [call.call_id for call in found.calls] == ["5 ", "5", "6"]
    assert found.unreadable == 3


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        ("84900000012", "external"),
        ("+84900000012", "external"),
        ("0900000012", "external"),
        ("user_2", "internal"),
        ("2", "internal"),
    ],
)
def test_who_is_internal(number: str, expected: str) -> None:
    assert CallEnd.of(number) == CallEnd(expected, number, number)  # type: ignore[arg-type]
    assert CallEnd.of(number, "internal", "Me") == CallEnd("internal", number, "Me")


def test_a_greeting_of_another_format_is_refused(connect: Callable[..., Any], tmp_path: Path, portal: Portal) -> None:
    path = tmp_path / "greeting.txt"
    path.write_text(json.dumps({"r": 0}))
    with connect() as api, pytest.raises(DataError):
        api.upload_greeting(path, "x")
    assert portal.counts["upload_greeting"] == 0


def test_reading_is_tried_again(connect: Callable[..., Any], portal: Portal) -> None:
    portal.faults.append(fault.Status(operation="realtime", count=1))
    with connect() as api:
        assert len(api.realtime_calls().calls) == 1
    assert portal.counts["realtime"] == 2
