"""Every operation of the API over HTTP: through the command, and from Python through its one class."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import duckdb
import pytest

from pipelines.cli.main import main
from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.simulator.audio import recording
from pipelines.simulator.limits import NO_LIMITS
from pipelines.simulator.wire import Response
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.operations import CallEnd, StringeeX
from pipelines.stringeex.request_budget import RequestBudget
from tests.e2e.command import Finished, account, callhistory, environment
from transforms.errors import ApiError, DataError, ServerError, TransportError

CALL_ID = "call-vn-1-AAAAAAAAAA-1"
LIVE_ID = "call-vn-1-LIVE000001-1"
WORLD = ("transfer", "stop", "add_participant", "delete_recording", "upload_greeting")


def live_call(call_id: str = LIVE_ID, **fields: Any) -> dict[str, Any]:
    now_ms = int(time.time() * 1000)
    return {
        "callId": call_id,
        "stringeeNumber": "+842473000001",
        "stringeeNumberNickname": "Tổng đài chính",
        "agent": "user_3",
        "startTime": now_ms - 60_000,
        "answeredTime": now_ms - 50_000,
        "customerNumber": "84900000012",
        "direction": "callin",
        **fields,
    }


@pytest.fixture
def portal() -> Portal:
    """A portal with one recorded call of 5 January 2026, and one call in progress."""
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    start_ms = int(datetime(2026, 1, 5, 3, tzinfo=UTC).timestamp() * 1000)
    row = {
        "id": CALL_ID, "start_time": start_ms, "end_time": start_ms + 12_000, "duration": 12, "talk_duration": 10,
        "recorded": 1, "direction": 1, "status": 1,
    }  # fmt: skip
    portal.add_call(row)
    portal.realtime_calls.append(live_call())
    return portal


@pytest.fixture
def server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server
        assert server.errors == []


@pytest.fixture
def settings(server: SimulatedPortal) -> dict[str, str]:
    return account(server.base_url, STRINGEEX_RECORDINGS_PER_MINUTE="0")


@pytest.fixture
def run(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The command, from its arguments to its exit code, in this process: a new one takes a second to start."""
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, stdin: TextIO | None = None, **overrides: str) -> Finished:
        capfd.readouterr()
        with monkeypatch.context() as patch, open(os.devnull) as nobody:
            for name in set(os.environ) - set(wanted := environment(settings | overrides)):
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["callhistory", *arguments])
            patch.setattr("sys.stdin", stdin or nobody)
            with pytest.raises(SystemExit) as ended:
                main()
        signal.signal(signal.SIGTERM, terminate)
        shown = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Finished(ended.value.code, shown.out, shown.err)

    return run


@pytest.fixture
def connect(server: SimulatedPortal) -> Callable[..., Any]:
    @contextmanager
    def connect(**overrides: str) -> Iterator[StringeeX]:
        settings = load_settings(None, overrides=account(server.base_url, **overrides))
        with StringeeXClient(settings, budget=RequestBudget([])) as client:
            yield StringeeX(client)

    return connect


def queried(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "data/warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()


def a_day_passes(folder: Path) -> None:
    """Have the answers so far come a day earlier, and one more among them."""
    day = "INTERVAL 1 DAY"
    with duckdb.connect(str(folder / "data/warehouse.duckdb")) as connection:
        connection.execute(
            f"UPDATE recordings SET not_found_count = 2, first_not_found_at = first_not_found_at - {day}, "
            f"next_attempt_at = next_attempt_at - {day}"
        )


def test_recordings_by_the_command(run: Callable[..., Finished], portal: Portal, tmp_path: Path) -> None:
    login = {
        "STRINGEEX_API_KEY_SID": "",
        "STRINGEEX_API_KEY_SECRET": "",
        "STRINGEEX_EMAIL": CREDENTIALS.email,
        "STRINGEEX_PASSWORD": CREDENTIALS.password,
    }
    assert run("backfill", "--from", "2026-01-05", "--to", "2026-01-05", **login).exit_code == 0
    assert portal.counts["account"] == 1
    assert queried(tmp_path, "SELECT call_id, status FROM recordings") == [(CALL_ID, "pending")]

    portal.options.recording_kept_days = 0.000_001
    absent = run("recordings", "archive", "--json")
    assert (absent.exit_code, absent.json["not_ready"], absent.json["complete"]) == (0, 1, True)
    a_day_passes(tmp_path)
    missing = run("recordings", "archive")
    assert (missing.exit_code, portal.counts["download_recording"]) == (3, 2)
    assert f"missing: recording of {CALL_ID}: GET /v1/call/recording" in missing.stdout
    assert "failed:" not in missing.stdout
    known = run("recordings", "archive", "--json")
    assert (known.exit_code, known.json["missing"], known.json["recordings"]["missing"]) == (0, 0, 1)
    status = run("status", "--json", CALLHISTORY_START_DATE="2026-01-05")
    assert status.json["recordings"]["missing"] == 1
    assert status.json["complete"] == (status.json["gaps"] == []), "what is missing has been told by the run"
    portal.options.recording_kept_days = 36_500
    assert run("recordings", "archive").exit_code == 0
    assert portal.counts["download_recording"] == 2, "nobody asks by himself for what is missing"

    done = run("recordings", "archive", "--again", "--json", "--verbose")
    assert (done.exit_code, done.json["archived"], done.json["errors"]) == (0, 1, [])
    assert "published: 0 of 1 recording" in done.stderr
    asked = portal.counts["download_recording"]
    again = run("recordings", "archive")
    assert (again.exit_code, portal.counts["download_recording"]) == (0, asked)
    assert "In all: 1 archived" in again.stdout

    verified = run("recordings", "verify")
    assert verified.exit_code == 0
    assert "Nothing is missing or damaged" in verified.stdout
    (file,) = (tmp_path / "data/recordings").rglob("*.wav")
    assert file.read_bytes() == recording(CALL_ID, 10)

    file.write_bytes(b"rotten")
    damaged = run("recordings", "verify", "--json")
    assert (damaged.exit_code, damaged.json["problems"][0]["finding"]) == (3, "damaged")
    left = run("recordings", "delete", "--older-than", "1d", "--yes", "--json")
    assert (left.exit_code, left.json["deleted"], len(left.json["not_deleted"])) == (3, 0, 1)
    file.write_bytes(recording(CALL_ID, 10))

    plan = run("recordings", "delete", "--older-than", "1d")
    assert (plan.exit_code, portal.counts["delete_recording"]) == (0, 0)
    assert "1 archived recording" in plan.stdout
    assert "add --yes" in plan.stdout
    unasked = run("recordings", "delete", CALL_ID, "--json")
    assert (unasked.exit_code, portal.counts["delete_recording"]) == (2, 0)
    deleted = run("recordings", "delete", CALL_ID, "--yes", "--json")
    assert (deleted.exit_code, deleted.json["deleted"]) == (0, 1)
    assert portal.deleted_recordings == {CALL_ID}
    assert queried(tmp_path, "SELECT status FROM recordings") == [("deleted_at_source",)]
    again = run("recordings", "delete", CALL_ID, "--yes")
    assert (again.exit_code, portal.counts["delete_recording"]) == (0, 1)


def test_one_recording_to_a_file(run: Callable[..., Finished], settings: dict[str, str], tmp_path: Path) -> None:
    done = callhistory("recordings", "download", CALL_ID, "--json", cwd=tmp_path, settings=settings)
    file = tmp_path / f"{CALL_ID}.wav"
    assert (done.exit_code, done.json["file"], done.json["duration_seconds"]) == (0, str(file), 10.0)
    assert file.read_bytes() == recording(CALL_ID, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]
    file.write_bytes(b"mine")
    assert run("recordings", "download", CALL_ID).exit_code == 2
    assert file.read_bytes() == b"mine"
    absent = run("recordings", "download", "call-vn-1-NOBODY-1")
    assert (absent.exit_code, absent.stderr.count("\n")) == (1, 1)
    assert "no such recording" in absent.stderr


def test_a_recording_that_surprises_is_kept_shown_and_deleted_only_by_name(
    run: Callable[..., Finished], portal: Portal, tmp_path: Path
) -> None:
    portal.options.recording_format = "amr"
    day = ("--from", "2026-01-05", "--to", "2026-01-05")
    assert run("backfill", *day).exit_code == 0
    done = run("recordings", "archive")
    assert done.exit_code == 0, done.output
    assert "1 of them are kept as they came, but are doubtful" in done.stdout
    (file,) = (tmp_path / "data/recordings").rglob("*.amr")
    assert file.read_bytes() == recording(CALL_ID, 10, "amr")
    found = queried(tmp_path, "SELECT status, doubt, content_type, duration_seconds FROM recordings")
    assert found == [("archived", "unknown_format", "audio/AMR", None)]

    verified = run("recordings", "verify")
    assert verified.exit_code == 0
    assert "doubtful: 1 unknown_format" in verified.stdout
    assert f"{CALL_ID}.amr: unknown_format" in verified.stdout
    shown = run("recordings", "verify", "--json").json
    assert (shown["right"], shown["doubts"]) == (True, {"unknown_format": 1})
    assert [each["call_id"] for each in shown["doubtful"]] == [CALL_ID]

    left = run("recordings", "delete", "--older-than", "1d", "--yes")
    assert "0 archived recordings" in left.stdout
    assert "1 that are doubtful" in left.stdout
    assert run("recordings", "delete", "--older-than", "1d", "--json").json["plan"]["doubtful"] == 1
    assert portal.deleted_recordings == set()
    named = run("recordings", "delete", CALL_ID, "--yes")
    assert named.exit_code == 0
    assert "doubtful (unknown_format)" in named.stderr
    assert portal.deleted_recordings == {CALL_ID}

    to_file = run("recordings", "download", CALL_ID)
    assert to_file.exit_code == 1, "it is gone"
    portal.deleted_recordings.clear()
    to_file = run("recordings", "download", CALL_ID, "--json")
    assert (to_file.json["doubt"], to_file.json["duration_seconds"]) == ("unknown_format", None)
    assert (tmp_path / f"{CALL_ID}.amr").read_bytes() == recording(CALL_ID, 10, "amr")


@pytest.mark.parametrize("call_id", [".", ".."])
def test_an_id_that_no_address_can_name_is_asked_for_nowhere(
    run: Callable[..., Finished], portal: Portal, call_id: str
) -> None:
    for arguments in (("download", call_id), ("delete", call_id, "--yes", "--without-copy")):
        done = run("recordings", *arguments)
        assert done.exit_code == 1
        assert "cannot be a part of an address" in done.stderr
    assert portal.log == []


def test_a_recording_without_a_copy_is_deleted_only_on_demand(run: Callable[..., Finished], portal: Portal) -> None:
    assert run("recordings", "delete", CALL_ID, "--yes").exit_code == 2
    assert portal.deleted_recordings == set()
    done = run("recordings", "delete", CALL_ID, "--yes", "--without-copy")
    assert done.exit_code == 0
    assert "NO copy" in done.stderr
    assert portal.deleted_recordings == {CALL_ID}


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
