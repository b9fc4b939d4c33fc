"""Answers that keep coming without ever being whole: every request has one deadline for all of its answer."""

import contextlib
import signal
import socket
import subprocess
import threading
import time
from functools import partial

import httpx
import pytest

from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.deadline import AnswerTimeout
from pipelines.stringeex.request_budget import RequestBudget
from tests.e2e.command import account, command_line, environment
from tests.exports import export_of
from transforms.errors import RetryableError, TransportError

KEY_PAIR = {
    "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
    "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
}
LOGIN = {"STRINGEEX_EMAIL": CREDENTIALS.email, "STRINGEEX_PASSWORD": CREDENTIALS.password}
ONCE = RetryPolicy(attempts=1, attempts_unreached=1)
CALL_ID = "call-vn-1-AAAAAAAAAA-1767546000001"
WINDOW = {"time": "1767546000000-1767632399999", "version": "2"}
NO_HEAD = {
    "StallHead": partial(fault.StallHead, seconds_per_byte=0.05),
    "ContinueForever": partial(fault.ContinueForever, seconds_between=0.05),
}
NO_END = NO_HEAD | {
    "EndlessBody": partial(fault.EndlessBody, seconds_between=0.05),
    "Stall": partial(fault.Stall, seconds_per_byte=0.05),
}


@pytest.fixture
def portal():
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    times = {"start_time": 1767546000001, "end_time": 1767546060001, "answer_time": 1767546000001}
    portal.add_call({"id": CALL_ID, **times, "talk_duration": 60, "recorded": 1})
    return portal


@pytest.fixture
def server(portal):
    with SimulatedPortal(portal) as server:
        yield server


def client_of(server, login=KEY_PAIR, timeout_seconds="0.15"):
    overrides = {"STRINGEEX_BASE_URL": server.base_url, "STRINGEEX_TIMEOUT_SECONDS": timeout_seconds, **login}
    settings = load_settings(None, overrides=overrides)
    return StringeeXClient(settings, budget=RequestBudget([]), retry=ONCE)


@pytest.mark.parametrize("kind", NO_END)
@pytest.mark.parametrize("operation", ["history", "account", "realtime", "stop"])
def test_an_answer_that_never_ends_is_given_up(portal, server, kind, operation):
    portal.faults.append(NO_END[kind](operation=operation))
    login = LOGIN if operation == "account" else KEY_PAIR
    with client_of(server, login) as client, pytest.raises(TransportError, match="in time"):
        client.request("history" if operation == "account" else operation, params=WINDOW)


@pytest.mark.parametrize("kind", NO_HEAD)
def test_the_head_of_a_recording_that_never_ends_is_given_up(portal, server, kind):
    portal.faults.append(NO_HEAD[kind](operation="download_recording"))
    with (
        client_of(server) as client,
        pytest.raises(TransportError, match="in time"),
        client.stream("download_recording", path_values={"call_id": CALL_ID}),
    ):
        pass


def test_the_body_of_a_recording_may_take_longer_than_its_head(portal, server):
    portal.faults.append(fault.Stall(operation="download_recording", seconds_per_byte=0.03))
    with (
        client_of(server) as client,
        client.stream("download_recording", path_values={"call_id": "call-vn-1-BBBBBBBBBB-1"}) as response,
    ):
        assert len(response.read()) * 0.03 > 3 * 0.15


def test_a_connection_that_was_given_up_is_not_used_again(portal, server):
    portal.faults.append(fault.StallHead(seconds_per_byte=0.05, count=1))
    with client_of(server) as client:
        with pytest.raises(TransportError, match="in time"):
            client.request("history", params=WINDOW)
        assert client.request("history", params=WINDOW)["totalCount"] == 1


def test_a_proxy_whose_answers_have_no_end_is_given_up(monkeypatch):
    """Nothing but ``100 Continue`` comes back from it, before there is a connection to the API at all."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def go_on():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                while True:
                    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                    time.sleep(0.02)

        thread = threading.Thread(target=go_on)
        thread.start()
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{listening.getsockname()[1]}")
        settings = load_settings(None, overrides={**KEY_PAIR, "STRINGEEX_TIMEOUT_SECONDS": "0.15"})
        with (
            StringeeXClient(settings, budget=RequestBudget([]), retry=ONCE) as client,
            pytest.raises(TransportError, match="did not end in time"),
        ):
            client.request("history", params=WINDOW)
        thread.join(10)
        assert not thread.is_alive()


def test_closing_lets_go_of_who_waits_for_an_answer(portal, server):
    arrived = threading.Event()
    portal.faults.append(fault.ContinueForever(seconds_between=3600, when=lambda _: arrived.set() is None))
    client = client_of(server, timeout_seconds="600")
    errors = []

    def work():
        try:
            client.request("history", params=WINDOW)
        except RetryableError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert arrived.wait(10)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1
    with pytest.raises(RetryableError, match="stopped"):
        client.request("history", params=WINDOW)


def test_time_spent_sending_is_not_the_answers():
    timeout = AnswerTimeout(0.5, 2.0)
    assert httpx.Timeout(1, read=timeout).as_dict()["read"] is timeout
    assert timeout.left_seconds() == 0.5
    timeout.lift()
    assert timeout.left_seconds() == 0.5


def test_ctrl_c_is_heard_while_an_answer_never_ends_and_the_claim_is_given_back(portal, server, tmp_path):
    class AndSignal(fault.ContinueForever):
        def instead(self, portal, request):
            running.send_signal(signal.SIGINT)
            return super().instead(portal, request)

    portal.faults.append(AndSignal(seconds_between=0.5, after=1))
    place = export_of(server.base_url, f"duckdb:///{tmp_path}/w.duckdb", tmp_path)
    settings = account(
        server.base_url,
        CALLHISTORY_WAREHOUSE_URL=f"duckdb:///{tmp_path}/w.duckdb",
        CALLHISTORY_LAKE_URL=str(tmp_path / "lake"),
        STRINGEEX_TIMEOUT_SECONDS="600",
    )
    running = subprocess.Popen(
        command_line("backfill", "--from=2026-01-05", "--to=2026-01-06"),
        cwd=tmp_path,
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    with place.open() as pipeline:
        rows = pipeline.ledger.rows()
    assert rows
    assert {row.claimed_by for row in rows} == {None}
