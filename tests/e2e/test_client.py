"""The client against the simulated portal, over HTTP: tokens, retries, refusals, and what it never does."""

import logging
import threading
import time
import tracemalloc

import httpx
import jwt
import pytest

from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, mixed_faults
from pipelines.simulator import faults as fault
from pipelines.stringeex.auth import TOKEN_HEADER, KeyPairAuth, may_see_token
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.request_budget import Block, RequestBudget
from transforms.errors import (
    ApiError,
    AuthenticationError,
    CallHistoryError,
    RateLimitedError,
    RetryableError,
    ServerError,
    TransportError,
)

KEY_PAIR = {
    "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
    "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
}
LOGIN = {"STRINGEEX_EMAIL": CREDENTIALS.email, "STRINGEEX_PASSWORD": CREDENTIALS.password}
AT_ONCE = RetryPolicy(wait_initial_seconds=0, wait_max_seconds=0, wait_jitter_seconds=0)
WINDOW = {"time": "1767546000000-1767632399999", "version": "2"}


@pytest.fixture
def portal():
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    portal.add_call({"id": "call-vn-1-AAAAAAAAAA-1767546000001", "start_time": 1767546000001})
    return portal


@pytest.fixture
def server(portal):
    with SimulatedPortal(portal) as server:
        yield server


@pytest.fixture
def connect(server):
    clients = []

    def connect(login=KEY_PAIR, *, budget=None, transport=None, retry=AT_ONCE, **overrides):
        settings = load_settings(None, overrides={"STRINGEEX_BASE_URL": server.base_url, **login, **overrides})
        client = StringeeXClient(settings, budget=budget or RequestBudget([]), transport=transport, retry=retry)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def virtual_budget(*blocks):
    """A budget whose waiting takes no time, and the list of what it waited."""
    now, waited = [1_767_600_003.0], []

    def wait(stopped, seconds):
        waited.append(round(seconds, 1))
        now[0] += seconds

    return RequestBudget(blocks, clock=lambda: now[0], wait=wait), waited


@pytest.mark.parametrize("login", [KEY_PAIR, LOGIN], ids=["key pair", "login"])
@pytest.mark.parametrize("auth_failure", ["401", "403", "envelope"])
def test_a_token_is_reused_and_renewed_once_when_it_is_rejected(portal, connect, login, auth_failure):
    portal.options.auth_failure = auth_failure
    client = connect(login)
    for _ in range(3):
        assert client.request("history", params=WINDOW)["totalCount"] == 1
    logins = 1 if login is LOGIN else 0
    assert portal.counts["history"] == 3
    assert portal.counts["account"] == logins
    portal.access.revoke_tokens()
    assert client.request("history", params=WINDOW)["totalCount"] == 1
    assert portal.counts["history"] == 5
    assert portal.counts["account"] == 2 * logins
    assert client.budget.counts() == {name: count for name, count in portal.counts.items() if count}
    assert all("access_token" not in entry.query for entry in portal.log)


@pytest.mark.parametrize("auth_failure", ["401", "403", "envelope"])
def test_a_wrong_secret_costs_two_requests_and_names_the_setting(portal, connect, auth_failure):
    portal.options.auth_failure = auth_failure
    client = connect({**KEY_PAIR, "STRINGEEX_API_KEY_SECRET": "wrong"})
    for _ in range(3):
        with pytest.raises(AuthenticationError, match="STRINGEEX_API_KEY_SECRET") as caught:
            client.request("history", params=WINDOW)
        assert "wrong" not in str(caught.value)
    assert portal.counts["history"] == 2


def test_settings_that_worked_are_tried_again_after_a_refusal(portal, connect):
    client = connect()
    client.request("history", params=WINDOW)
    portal.faults.append(fault.AuthRejected(count=2))
    with pytest.raises(AuthenticationError):
        client.request("history", params=WINDOW)
    assert client.request("history", params=WINDOW)["totalCount"] == 1


def test_a_proxy_of_the_environment_is_not_used_for_this_machine(monkeypatch, connect):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert connect().request("history", params=WINDOW)["totalCount"] == 1


def test_a_wrong_password_costs_one_request_and_names_the_setting(portal, connect):
    client = connect({**LOGIN, "STRINGEEX_PASSWORD": "wrong-password"})
    with pytest.raises(AuthenticationError, match="STRINGEEX_PASSWORD") as caught:
        client.request("history", params=WINDOW)
    assert "wrong-password" not in str(caught.value)
    assert sum(portal.counts.values()) == 1


def test_one_of_several_portals_has_to_be_named():
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS, portal_count=2))
    with SimulatedPortal(portal) as server:

        def ask(**more):
            overrides = {"STRINGEEX_BASE_URL": server.base_url, **LOGIN, **more}
            with StringeeXClient(load_settings(None, overrides=overrides), budget=RequestBudget([])) as client:
                return client.request("history", params=WINDOW)["totalCount"]

        with pytest.raises(AuthenticationError, match=r"STRINGEEX_PORTAL.*portal1.*portal2"):
            ask()
        with pytest.raises(AuthenticationError, match=r"STRINGEEX_PORTAL.*portal1.*portal2"):
            ask(STRINGEEX_PORTAL="portal3")
        assert ask(STRINGEEX_PORTAL="portal2") == 0


def test_the_token_is_minted_as_documented_and_renewed_before_it_expires(monkeypatch):
    auth = KeyPairAuth("SKexample", "short", base_url="https://api.example.com", lifetime_seconds=100)
    now = time.time()
    token = auth.token()
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256", "cty": "stringee-api;v=1"}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["iss"] == "SKexample"
    assert claims["rest_api"] is True
    assert claims["exp"] - now == pytest.approx(100, abs=2)
    assert set(claims) == {"jti", "iss", "exp", "rest_api"}
    assert auth.token() == token
    monkeypatch.setattr("time.time", lambda: now + 95)
    renewed = auth.token()
    assert jwt.decode(renewed, options={"verify_signature": False})["jti"] != claims["jti"]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://api.example.com/v1", True),
        ("http://api.example.com/v1", False),
        ("https://stringee.com/x", True),
        ("https://asia-3.api.stringee.com/x", True),
        ("http://asia-3.api.stringee.com/x", False),
        ("https://evilstringee.com/x", False),
        ("https://stringee.com.evil.example/x", False),
        ("https://evil.example/stringee.com", False),
    ],
)
def test_only_allowed_hosts_see_the_token(url, allowed):
    hosts = ("stringee.com", "stringeex.com")
    assert may_see_token(httpx.URL(url), httpx.URL("https://api.example.com"), hosts) is allowed


def test_a_link_to_another_host_is_fetched_without_the_token(connect):
    seen = []

    def answer(request):
        seen.append((request.url.host, TOKEN_HEADER in request.headers))
        return httpx.Response(200, content=b"audio")

    client = connect(transport=httpx.MockTransport(answer))
    for url in ("https://asia-3.api.stringee.com/r", "https://cdn.example.com/r", "http://127.0.0.1:1/r"):
        with client.stream("download_recording", url=url) as response:
            assert response.read() == b"audio"
    with client.stream("download_recording", path_values={"call_id": "../a?b"}) as response:
        assert str(response.url).endswith("/v1/call/recording/..%2Fa%3Fb")
    assert seen == [
        ("asia-3.api.stringee.com", True),
        ("cdn.example.com", False),
        ("127.0.0.1", False),
        ("127.0.0.1", True),
    ]


def test_a_redirect_is_not_followed_and_names_the_host(portal, connect):
    portal.faults.append(fault.Redirect())
    with pytest.raises(ApiError, match=r"redirected to host evilstringee\.com"):
        connect().request("history", params=WINDOW)
    assert portal.counts["history"] == 1


TRANSIENT = [
    fault.Reset(count=2),
    fault.Close(count=2),
    fault.Cut(count=2),
    fault.EmptyBody(count=2),
    fault.Html(count=2),
    fault.InvalidJson(count=2),
    fault.Envelope(count=2),
    fault.Envelope(count=2, r=77, message="Server BUSY"),
    *(fault.Status(count=2, status=status) for status in (500, 502, 503, 504)),
]


@pytest.mark.parametrize("transient", TRANSIENT, ids=lambda item: f"{type(item).__name__}{getattr(item, 'status', '')}")
def test_what_may_pass_is_tried_again(portal, connect, transient):
    client = connect()
    portal.faults.append(transient)
    assert client.request("history", params=WINDOW)["totalCount"] == 1
    assert portal.counts["history"] == 3
    portal.faults[:] = [type(transient)(**({"status": 500} if isinstance(transient, fault.Status) else {}))]
    with pytest.raises(RetryableError, match="gave up after 8 attempts") as caught:
        client.request("history", params=WINDOW)
    assert "/v1/call/history" in str(caught.value)
    assert portal.counts["history"] == 3 + 8


@pytest.mark.parametrize("status", [400, 404, 405, 409, 422])
def test_other_refusals_are_final(portal, connect, status):
    portal.faults.append(fault.Status(status=status))
    with pytest.raises(ApiError) as caught:
        connect().request("history", params=WINDOW)
    assert caught.value.status == status
    assert portal.counts["history"] == 1


def test_which_codes_are_transient_is_a_setting(portal, connect):
    portal.faults.append(fault.Envelope(r=77, message="no match"))
    with pytest.raises(ApiError, match="r=77, no match"):
        connect().request("history", params=WINDOW)
    assert portal.counts["history"] == 1
    with pytest.raises(ServerError, match="r=77"):
        connect(STRINGEEX_TRANSIENT_CODES="77").request("history", params=WINDOW)
    assert portal.counts["history"] == 9


@pytest.mark.parametrize(("retry_after", "waits"), [("3", [3.2]), (None, [7.2])])
def test_after_a_429_nobody_asks_before_the_block_ends(portal, connect, retry_after, waits):
    budget, waited = virtual_budget(Block(10, 30, "history"), Block(3600, 9000))
    portal.faults.append(fault.RateLimited(count=1, retry_after=retry_after))
    assert connect(budget=budget).request("history", params=WINDOW)["totalCount"] == 1
    assert waited == waits


def test_a_portal_that_only_says_429_is_given_up(portal, connect):
    budget, waited = virtual_budget(Block(10, 30, "history"))
    portal.faults.append(fault.RateLimited())
    with pytest.raises(RateLimitedError, match="gave up after 8 attempts"):
        connect(budget=budget).request("history", params=WINDOW)
    assert len(waited) == 7


@pytest.mark.parametrize(
    "problem", [fault.Status(operation="stop"), fault.Cut(operation="stop"), fault.Reset(operation="stop")]
)
def test_what_changes_the_world_is_never_repeated(portal, connect, problem):
    portal.faults.append(problem)
    with pytest.raises(RetryableError):
        connect().request("stop", json={"callId": "call-vn-1-BBBBBBBBBB-1"})
    assert portal.counts["stop"] == 1


def test_the_documented_get_is_tried_as_post_where_it_is_unknown(portal, connect):
    body = {"callId": "call-vn-1-BBBBBBBBBB-1"}

    def methods_tried(**overrides):
        portal.log.clear()
        with pytest.raises(ApiError):  # the portal knows no such call, whatever the method
            connect(**overrides).request("stop", json=body)
        return [entry.method for entry in portal.log if entry.path == "/v1/call/stop"]

    portal.options.operation_methods = ("POST",)
    assert methods_tried() == ["GET", "POST"]
    assert methods_tried(STRINGEEX_ENDPOINT_STOP="GET /v1/call/stop") == ["GET"]
    assert methods_tried(STRINGEEX_ENDPOINT_STOP="POST /v1/call/stop") == ["POST"]


def test_a_huge_page_ends_early(portal, connect):
    portal.faults.append(fault.HugePage(megabytes=70))
    with pytest.raises(TransportError, match="larger than 64 MiB"):
        connect(retry=RetryPolicy(attempts=1)).request("history", params=WINDOW)


def test_memory_stays_bounded_while_a_bomb_goes_off(connect):
    import gzip

    bomb = gzip.compress(b" " * (256 << 20), 1)
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=Chunks(bomb), headers=GZIP))
    tracemalloc.start()
    try:
        with pytest.raises(TransportError, match="larger than 64 MiB"):
            connect(transport=transport, retry=RetryPolicy(attempts=1)).request("history", params=WINDOW)
        assert tracemalloc.get_traced_memory()[1] < 250 << 20
    finally:
        tracemalloc.stop()


GZIP = {"Content-Encoding": "gzip"}


class Chunks(httpx.SyncByteStream):
    def __init__(self, body):
        self.body = body

    def __iter__(self):
        return (self.body[start : start + 65536] for start in range(0, len(self.body), 65536))


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip"])
def test_encodings_that_were_not_asked_for_are_refused(connect, encoding):
    transport = httpx.MockTransport(
        lambda request: httpx.Response(200, stream=Chunks(b"x"), headers={"Content-Encoding": encoding})
    )
    with pytest.raises(TransportError, match="not asked for"):
        connect(transport=transport, retry=RetryPolicy(attempts=1)).request("history", params=WINDOW)


def test_a_trickling_answer_ends(portal, connect):
    portal.faults.append(fault.Stall(seconds_per_byte=0.02))
    client = connect(retry=RetryPolicy(attempts=1), STRINGEEX_TIMEOUT_SECONDS="0.1")
    with pytest.raises(TransportError, match="did not end in time"):
        client.request("history", params=WINDOW)


def test_no_network_is_told_after_three_attempts(server, connect):
    client = connect()
    server.stop()
    with pytest.raises(TransportError, match=r"no connection.*gave up after 3 attempts; look at STRINGEEX_BASE_URL"):
        client.request("history", params=WINDOW)
    assert client.budget.counts() == {"history": 3}


def test_no_cookie_is_kept(portal, connect):
    cookies = []

    def answer(request):
        cookies.append(request.headers.get("cookie"))
        return httpx.Response(200, json={"r": 0, "data": {}}, headers={"Set-Cookie": "crumb=1; Path=/"})

    client = connect(transport=httpx.MockTransport(answer))
    for _ in range(2):
        client.request("history", params=WINDOW)
    assert cookies == [None, None]


def test_errors_and_logs_hold_no_query_token_or_number(portal, connect, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    def answer(request):
        seen.append(request.headers[TOKEN_HEADER])
        message = f"refused {request.headers[TOKEN_HEADER]} for +84 90 000 0011 or someone@example.com"
        return httpx.Response(200, json={"r": 99, "message": message})

    with pytest.raises(CallHistoryError) as caught:
        connect(transport=httpx.MockTransport(answer)).request("history", params={"customer_number": "84900000011"})
    shown = str(caught.value)
    assert "refused" in shown
    for private in (seen[0], "84900000011", "000 0011", "someone"):
        assert private not in shown
    caplog.clear()
    portal.faults.append(fault.Reset(count=1))
    client = connect()
    client.request("history", params=WINDOW)
    assert any(record.name == "httpx" for record in caplog.records)
    for record in caplog.records:
        shown = f"{record.getMessage()} {vars(record)}"
        assert WINDOW["time"] not in shown
        assert client._auth.token() not in shown


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b'{"r":null}', b'{"r":true}', b'{"data":{"totalCount":0}}'])
def test_json_without_an_envelope_is_no_answer(connect, body):
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=body))
    with pytest.raises(TransportError, match="without the envelope"):
        connect(transport=transport, retry=RetryPolicy(attempts=1)).request("history", params=WINDOW)


def test_threads_share_token_connections_and_budget_under_faults(portal, connect):
    client = connect(LOGIN, budget=virtual_budget()[0])
    portal.faults.append(mixed_faults(0.2, seed=3, operation="history"))
    answers, errors = [], []

    def work():
        try:
            answers.extend(client.request("history", params=WINDOW)["totalCount"] for _ in range(10))
        except CallHistoryError as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert answers == [1] * 80
    assert portal.counts["account"] == 1


def test_closing_lets_go_of_who_waits_for_the_budget(connect):
    budget = RequestBudget([Block(3600, 1)])
    client = connect(budget=budget)
    client.request("history", params=WINDOW)
    errors = []

    def work():
        try:
            client.request("history", params=WINDOW)
        except RetryableError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert "stopped" in errors[0]
