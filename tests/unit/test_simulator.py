"""The simulated portal, through the door that clients use: HTTP."""

from __future__ import annotations

import io
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import wave
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import jwt
import numpy as np
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.stringeex.simulator import (
    CREDENTIALS,
    NO_LIMITS,
    Clock,
    Fault,
    OddRows,
    Portal,
    PortalOptions,
    RateLimits,
    SimulatedPortal,
    generate,
    mixed_faults,
    spawn,
)
from pipelines.stringeex.simulator import faults as f

HISTORY = "/v1/call/history"
DAY = 86_400_000
FIRST = int(datetime(2026, 1, 5, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh")).timestamp() * 1000)
LAST = FIRST + 3 * DAY - 1
LATER = datetime(2026, 3, 1, tzinfo=UTC)


def token(
    secret: str = CREDENTIALS.api_key_secret, algorithm: str = "HS256", cty: str | None = None, **claims: Any
) -> str:
    claims = {"jti": "a", "iss": CREDENTIALS.api_key_sid, "exp": int(time.time()) + 600, "rest_api": True} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm, headers={"cty": cty or "stringee-api;v=1"})


def make(
    calls: int = 600,
    *,
    odd_rows: OddRows | None = None,
    faults: list[Fault] | None = None,
    ties: int = 1,
    **options: Any,
) -> Portal:
    return Portal(
        generate(1, "2026-01-05", 3, calls, ties=ties),
        PortalOptions(**{"rate_limits": NO_LIMITS} | options),
        odd_rows=odd_rows,
        faults=faults or [],
        clock=Clock(LATER),
    )


NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP: nothing worth loading for every client


@contextmanager
def serving(portal: Portal, headers: dict[str, str] | None = None, timeout: float = 10) -> Iterator[httpx.Client]:
    headers = {"X-STRINGEE-AUTH": token()} if headers is None else headers
    with SimulatedPortal(portal) as server:
        with httpx.Client(base_url=server.base_url, headers=headers, timeout=timeout, verify=NO_CERTIFICATES) as http:
            yield http
        assert server.errors == []


def ask(http: httpx.Client, **parameters: Any) -> dict[str, Any]:
    window = {"time": f"{FIRST}-{LAST}", "version": 2, "limit": 100, "sort_order": "asc"}
    parameters = {
        name.replace("search_after", "search_after[]"): value for name, value in (window | parameters).items()
    }
    answer: dict[str, Any] = json.loads(http.get(HISTORY, params=parameters).content)
    return answer


def read_keyset(http: httpx.Client, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    data = ask(http, **parameters)["data"]
    while data["rows"]:
        yield data["rows"]
        data = ask(http, search_after=data["search_after"], **parameters)["data"]


def read_all(http: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    return [row for page in read_keyset(http, **parameters) for row in page]


class TestHistory:
    @pytest.mark.parametrize("ties", [1, 40])
    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_keyset_reading_serves_the_truth_once_and_in_order(self, ties: int, order: str) -> None:
        portal = make(ties=ties)
        with serving(portal) as http:
            pages = list(read_keyset(http, sort_order=order, limit=7))
        rows = [row for page in pages for row in page]
        truth = portal.rows(FIRST, LAST)
        assert rows == (truth if order == "asc" else truth[::-1])
        assert len(truth) == len({row["id"] for row in truth}) == 600
        assert {len(page) for page in pages[:-1]} == {7}
        assert len({row["start_time"] for row in truth}) <= 600 / ties

    def test_page_numbers_serve_the_other_variant(self) -> None:
        portal = make(250)
        with serving(portal) as http:
            pages = [ask(http, version=1, page=page)["data"] for page in (1, 2, 3, 4)]
        assert [len(page["rows"]) for page in pages] == [100, 100, 50, 0]
        assert {(page["totalCount"], page["totalPages"]) for page in pages} == {(250, 3)}
        assert not any("search_after" in page for page in pages)
        rows = [row for page in pages for row in page["rows"]]
        assert rows == portal.rows(FIRST, LAST, version=1)
        assert {row["recorded"] for row in rows} == {True, False}
        assert not any("queue_duration" in row for row in rows)
        assert {type(row["recorded"]) for row in portal.rows(FIRST, LAST)} == {int}

    def test_both_ends_of_a_window_belong_to_it(self) -> None:
        portal = make()
        starts = [start for start, _ in portal.keys(FIRST, LAST)]
        with serving(portal) as http:
            total = ask(http, time=f"{starts[100]}-{starts[300]}")["data"]["totalCount"]
            outside = ask(http, time=f"{starts[100] + 1}-{starts[300] - 1}")["data"]["totalCount"]
        assert (total, outside) == (201, 199)

    @pytest.mark.parametrize(
        ("name", "column"),
        [
            ("call_id", "id"), ("agent_id", "account"), ("stringee_number", "stringee_number"),
            ("customer_number", "customer_number"), ("direction", "direction"), ("status", "status"),
            ("answer_duration", "answer_duration"), ("queue_duration", "queue_duration"),
            ("has_voicemail", "have_voice_mail"),
        ],
    )  # fmt: skip
    def test_filters(self, name: str, column: str) -> None:
        portal = make(1_500)
        truth = portal.rows(FIRST, LAST)
        value = next(row[column] for row in truth if row[column] not in (None, 0))
        expected = [row for row in truth if row[column] == value]
        with serving(portal) as http:
            assert read_all(http, **{name: value}) == expected
            assert ask(http, **{name: value})["data"]["totalCount"] == len(expected) < len(truth)

    def test_sorting_by_another_field(self) -> None:
        portal = make()
        with serving(portal) as http:
            rows = read_all(http, sort_by="duration", sort_order="desc", limit=50)
            assert ask(http, sort_by="contactname")["r"] == 11
        expected = sorted(portal.rows(FIRST, LAST), key=lambda row: (row["duration"], row["id"]), reverse=True)
        assert rows == expected

    def test_what_portals_differ_in(self) -> None:
        portal = make()
        options = portal.options
        with serving(portal) as http:
            assert len(ask(http, limit="")["data"]["rows"]) == 10
            assert len(ask(http, limit=500)["data"]["rows"]) == 100
            options.large_limit = "refuse"
            assert ask(http, limit=500)["r"] == 2
            options.large_limit = "bad_request"
            assert http.get(HISTORY, params={"limit": 101}).status_code == 400
            options.version_2_honours_limit = False
            assert len(ask(http, limit=50)["data"]["rows"]) == 10
            options.supports_version_2 = False
            assert "search_after" not in ask(http)["data"]
            options.refuses_ascending, options.message_key = True, "message"
            assert ask(http) == {"r": 12, "message": "sort_order not allowed"}
            assert ask(http, sort_order="desc")["r"] == 0

    def test_result_cap(self) -> None:
        portal = make(result_cap=250)
        with serving(portal) as http:
            lengths = [len(ask(http, version=1, page=page)["data"]["rows"]) for page in (1, 2, 3, 4)]
            assert lengths == [100, 100, 50, 0]
            assert ask(http)["data"]["totalCount"] == 250
            assert len(read_all(http)) == 600
            portal.options.past_result_cap = "error"
            assert http.get(HISTORY, params={"limit": 100, "page": 3}).status_code == 500

    @pytest.mark.parametrize(
        "parameters",
        [{"time": "soon"}, {"time": "5-4"}, {"limit": 0}, {"page": -1}, {"search_after": ["1"]}, {"sort_order": "up"}],
    )
    def test_nonsense_is_refused(self, parameters: dict[str, Any]) -> None:
        with serving(make(5)) as http:
            assert ask(http, **parameters)["r"] > 0

    def test_clients_read_at_once_without_mixing_answers(self) -> None:
        portal = make()
        windows = [(FIRST + part * DAY // 2, FIRST + (part + 1) * DAY // 2 - 1) for part in range(6)]
        with serving(portal) as http, ThreadPoolExecutor(6) as pool:
            read = list(pool.map(lambda window: read_all(http, time=f"{window[0]}-{window[1]}", limit=7), windows))
        assert read == [portal.rows(*window) for window in windows]
        assert portal.counts["history"] == len(portal.log)

    def test_bodies_without_a_length_are_refused(self) -> None:
        with serving(make(5)) as http:
            assert http.post("/v1/call/stop", content=iter([b"{}"])).status_code == 411
            assert ask(http)["r"] == 0

    def test_unknown_paths_and_methods(self) -> None:
        with serving(make(5)) as http:
            assert http.get("/v1/call/nothing").status_code == 404
            assert http.post(HISTORY).status_code == 405


class TestAccess:
    @pytest.mark.parametrize(
        "bad",
        [
            "", "nonsense", token(secret="x" * 40), token(exp=1), token(iss="SKother"), token(cty="other"),
            token(rest_api=None), token(rest_api="true"), token(jti=None), token(exp=None),
            token(algorithm="HS512", secret="x" * 64),
        ],
    )  # fmt: skip
    def test_bad_tokens(self, bad: str) -> None:
        portal = make(5)
        with serving(portal, headers={"X-STRINGEE-AUTH": bad}) as http:
            assert http.get(HISTORY).status_code == 401
            portal.options.auth_failure = "403"
            assert http.get("/v1/call/realtime").status_code == 403
            portal.options.auth_failure = "envelope"
            answer = http.get("/v1/call/recording/x")
        assert answer.status_code == 200
        assert answer.json()["r"] != 0
        assert "token" in answer.json()["msg"]

    def test_an_expired_token_stops_working(self, monkeypatch: pytest.MonkeyPatch) -> None:
        portal = make(5)
        short = token(exp=int(time.time()) + 60)
        with serving(portal, headers={"X-STRINGEE-AUTH": short}) as http:
            assert http.get(HISTORY).status_code == 200
            now = time.time()
            monkeypatch.setattr(time, "time", lambda: now + 61)
            assert http.get(HISTORY).status_code == 401

    def test_login_and_revocation(self) -> None:
        portal = make(5, portal_count=2)
        login = {"email": CREDENTIALS.email, "password": CREDENTIALS.password}
        with serving(portal, headers={}) as http:
            assert http.post("/v1/account", json=login | {"password": "wrong"}).json()["r"] == 1
            assert http.post("/v1/account", content=b"[").status_code == 400
            portals = http.post("/v1/account", json=login).json()["portals"]
            assert len({entry["auth_token"] for entry in portals}) == 2
            good = {"X-STRINGEE-AUTH": portals[1]["auth_token"]}
            assert http.get(HISTORY, headers=good).status_code == 200
            assert http.get(HISTORY, params={"access_token": token()}).status_code == 200
            portal.access.revoke_tokens()
            assert http.get(HISTORY, headers=good).status_code == 401
            assert http.get(HISTORY, params={"access_token": token(jti="new")}).status_code == 200
        assert [entry.had_token for entry in portal.log] == [False, False, False, True, True, True, True]
        assert portal.log[0].host.startswith("127.0.0.1:")


class TestLimits:
    def test_history_is_blocked_until_the_block_ends(self) -> None:
        now = [1_000_009.0]
        portal = Portal(options=PortalOptions(retry_after=True), limits_clock=lambda: now[0])
        with serving(portal) as http:
            answers = [http.get(HISTORY) for _ in range(31)]
            assert [answer.status_code for answer in answers] == [200] * 30 + [429]
            assert [answer.headers["X-RateLimit-Remaining"] for answer in answers[::10]] == ["29", "19", "9", "0"]
            assert answers[-1].headers["Retry-After"] == "2"
            assert http.get("/v1/call/realtime").status_code == 200
            now[0] += 0.9
            assert http.get(HISTORY).status_code == 429
            now[0] += 0.2
            assert http.get(HISTORY).status_code == 200
        assert Counter(entry.status for entry in portal.log) == {200: 32, 429: 2}
        assert portal.counts == {"history": 33, "realtime": 1}

    @pytest.mark.parametrize(
        ("limits", "path", "block_seconds"),
        [
            (RateLimits(0, 3, 0, 0), "/v1/call/realtime", 10),
            (RateLimits(0, 0, 3, 0), "/v1/call/realtime", 3600),
            (RateLimits(0, 0, 0, 3), "/v1/call/recording/x", 60),
        ],
    )
    def test_every_limit_has_its_own_block(self, limits: RateLimits, path: str, block_seconds: int) -> None:
        now = [7_200.0 + 3_599]
        portal = Portal(options=PortalOptions(rate_limits=limits), limits_clock=lambda: now[0])
        with serving(portal) as http:
            assert [http.get(path).status_code == 429 for _ in range(4)] == [False] * 3 + [True]
            now[0] += 1
            assert [http.get(path).status_code == 429 for _ in range(4)] == [False] * 3 + [True]
            now[0] += block_seconds - 0.001
            assert http.get(path).status_code == 429
            portal.options.rate_limits = NO_LIMITS
            answer = http.get(path)
        assert answer.status_code != 429
        assert "X-RateLimit-Limit" not in answer.headers


class TestLifecycle:
    def test_calls_appear_when_they_end_and_change_later(self) -> None:
        portal = Portal(
            generate(3, "2026-01-05", 3, 800), PortalOptions(rate_limits=NO_LIMITS), clock=Clock(FIRST + DAY)
        )
        with serving(portal) as http:
            early = {row["id"]: row for row in read_all(http)}
            assert 0 < len(early) < 800
            assert max(row["end_time"] for row in early.values()) < FIRST + DAY
            portal.clock.advance(10 * 86_400)
            final = {row["id"]: row for row in read_all(http)}
            portal.clock.set(FIRST + DAY)
            assert {row["id"]: row for row in read_all(http)} == early
        assert len(final) == 800
        late = [row for row in final.values() if row["id"] not in early and row["end_time"] < FIRST + DAY - 60_000]
        assert late, "some calls come days late"
        changed = {name for call_id, row in early.items() for name in row if final[call_id][name] != row[name]}
        assert changed == {"recorded", "record_path", "acw_duration", "contactname"}

    def test_calls_can_be_added_changed_and_removed(self) -> None:
        portal = make(50)
        first, second, third, *_ = (row["id"] for row in portal.rows(FIRST, LAST))
        with serving(portal) as http:
            portal.update_call(first, contactname="Lan", start_time=LAST)
            portal.remove_call(second)
            portal.add_call({"id": "own", "start_time": FIRST})
            portal.add_call({"id": None}, start_ms=FIRST + 1, call_id="odd")
            portal.add_call({"id": "tomorrow", "start_time": FIRST}, visible_from_ms=portal.clock.now_ms() + 1)
            rows = read_all(http, limit=3)
            assert rows == portal.rows(FIRST, LAST)
            assert [row["id"] for row in rows[:3]] == ["own", None, third]
            assert (rows[-1]["id"], rows[-1]["contactname"]) == (first, "Lan")
            assert len(rows) == 51
            portal.clock.advance(0.001)
            assert len(read_all(http)) == 52
            portal.remove_call("own")
            portal.remove_call(first)
            assert len(read_all(http)) == 50
        with pytest.raises(KeyError):
            portal.remove_call(second)
        with pytest.raises(ValueError, match="already"):
            portal.add_call({"id": third, "start_time": FIRST})
        with pytest.raises(ValueError, match="start_ms"):
            portal.add_call({"id": "x"})

    def test_a_hook_changes_calls_between_pages(self) -> None:
        def grow(portal: Portal, request: Any) -> None:
            portal.add_call({"id": f"new-{len(portal.log)}", "start_time": LAST})

        portal = make(20, faults=[f.Hook(action=grow, after=1, count=2)])
        with serving(portal) as http:
            rows = read_all(http, limit=5)
        assert {row["id"] for row in rows} >= {"new-1", "new-2"}
        assert len(rows) == 22


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


ANSWERED_ODDLY: list[tuple[Fault, Callable[[httpx.Response], bool]]] = [
    (f.Status(status=500), lambda answer: answer.status_code == 500),
    (f.Status(status=503, retry_after="7"), lambda answer: answer.headers["Retry-After"] == "7"),
    (f.RateLimited(), lambda answer: answer.status_code == 429 and "Retry-After" not in answer.headers),
    (f.RateLimited(retry_after="1"), lambda answer: answer.headers["Retry-After"] == "1"),
    (f.Envelope(), lambda answer: answer.status_code == 200 and answer.json()["r"] == -1),
    (f.Envelope(r=5, message="wrong region"), lambda answer: answer.json() == {"r": 5, "msg": "wrong region"}),
    (f.AuthRejected(), lambda answer: answer.status_code == 401),
    (f.AuthRejected(mode="403"), lambda answer: answer.status_code == 403),
    (f.AuthRejected(mode="envelope"), lambda answer: answer.status_code == 200 and "token" in answer.json()["msg"]),
    (f.Html(), lambda answer: answer.status_code == 200 and answer.text.startswith("<!doctype")),
    (f.Html(status=502), lambda answer: answer.status_code == 502 and "html" in answer.headers["Content-Type"]),
    (f.EmptyBody(), lambda answer: answer.status_code == 200 and answer.content == b""),
    (f.InvalidJson(), lambda answer: not is_json(answer.content)),
    (f.Redirect(), lambda answer: answer.headers["Location"].startswith("https://evilstringee.com/")),
    (f.CookieBomb(), lambda answer: len(answer.headers.get_list("set-cookie")) == 20 and answer.json()["r"] == 0),
    (
        f.GzipBomb(megabytes=2),
        lambda answer: len(answer.content) == 2 << 20 and int(answer.headers["Content-Length"]) < 1e5,
    ),
    (
        f.HugePage(megabytes=1),
        lambda answer: len(answer.content) > 1 << 20 and len(answer.json()["data"]["rows"]) == 10,
    ),
    (f.WrongTotal(offset=-3), lambda answer: answer.json()["data"]["totalCount"] == 597),
    (f.WrongTotal(form="text"), lambda answer: answer.json()["data"]["totalCount"] == "600"),
    (f.WrongTotal(form="null"), lambda answer: answer.json()["data"]["totalCount"] is None),
    (f.WrongTotal(form="missing"), lambda answer: "totalCount" not in answer.json()["data"]),
    (f.DropRows(rows=2), lambda answer: len(answer.json()["data"]["rows"]) == 8),
]


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "holds"), ANSWERED_ODDLY, ids=lambda value: getattr(value, "__doc__", None) and type(value).__name__
    )
    def test_odd_answers_come_once_and_pass(self, fault: Fault, holds: Callable[[httpx.Response], bool]) -> None:
        fault.count = 1
        portal = make(faults=[fault])
        with serving(portal) as http:
            assert holds(http.get(HISTORY, params={"version": 2}))
            assert not holds_again(holds, http.get(HISTORY, params={"version": 2}))
        assert [entry.fault for entry in portal.log] == [type(fault).__name__, ""]

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (f.Reset(), httpx.ReadError),
            (f.Close(), httpx.RemoteProtocolError),
            (f.Cut(), httpx.RemoteProtocolError),
            (f.Stall(seconds_per_byte=3_600), httpx.ReadTimeout),
        ],
    )
    def test_broken_connections(self, fault: Fault, error: type[Exception]) -> None:
        fault.count, fault.after = 1, 1
        with serving(make(faults=[fault]), timeout=0.2) as http:
            assert ask(http)["r"] == 0
            with pytest.raises(error):
                ask(http)
            assert ask(http)["r"] == 0

    def test_a_stopped_portal_refuses_connections_and_comes_back(self) -> None:
        server = SimulatedPortal(make(5)).start()
        base_url = server.base_url
        with httpx.Client(base_url=base_url, headers={"X-STRINGEE-AUTH": token()}) as http:
            assert http.get(HISTORY).status_code == 200
            server.stop()
            with pytest.raises(httpx.TransportError):
                http.get(HISTORY)
            with server:
                assert server.base_url == base_url
                assert http.get(HISTORY).status_code == 200
        assert not [
            thread for thread in threading.enumerate() if "simulated" in thread.name or "process_request" in thread.name
        ]

    def test_pages_that_repeat_loop_or_belong_elsewhere(self) -> None:
        portal = make()
        truth = portal.rows(FIRST, LAST)
        with serving(portal) as http:
            portal.faults[:] = [f.RepeatPage(after=1, count=1)]
            one = ask(http)["data"]
            two = ask(http, search_after=one["search_after"])["data"]
            assert two == one
            portal.faults[:] = [f.LoopSearchAfter()]
            assert ask(http, search_after=one["search_after"])["data"]["search_after"] == one["search_after"]
            portal.faults[:] = [f.OtherWindow(shift_seconds=-86_400)]
            day_two = ask(http, time=f"{FIRST + DAY}-{FIRST + 2 * DAY - 1}")["data"]["rows"]
            assert day_two == [row for row in truth if row["start_time"] < FIRST + DAY][:100]

    def test_a_fault_names_its_requests(self) -> None:
        only_page_two = f.Status(when=lambda request: request.parameter("page") == "2")
        portal = make(faults=[only_page_two, f.Status(operation="realtime", status=504)])
        with serving(portal) as http:
            statuses = [http.get(HISTORY, params={"page": page}).status_code for page in (1, 2, 3, 2)]
            assert statuses == [200, 503, 200, 503]
            assert http.get("/v1/call/realtime").status_code == 504

    def test_mixed_faults_hit_their_share_reproducibly(self) -> None:
        def outcomes() -> list[str]:
            portal = make(10, faults=[mixed_faults(0.3, seed=5)])
            with serving(portal) as http:
                for _ in range(300):
                    try:
                        answer = http.get(HISTORY)
                        assert portal.log[-1].fault or answer.json()["r"] == 0
                    except httpx.TransportError:
                        assert portal.log[-1].fault in ("Reset", "Close", "Cut")
            return [entry.fault for entry in portal.log]

        first = outcomes()
        assert first == outcomes()
        assert 60 < sum(map(bool, first)) < 120
        assert len(set(first)) >= 9


def holds_again(holds: Callable[[httpx.Response], bool], answer: httpx.Response) -> bool:
    try:
        return holds(answer)
    except KeyError:
        return False


class TestOddRows:
    def test_odd_rows_keep_their_place_and_come_in_every_kind(self) -> None:
        odd, plain = make(6_000, odd_rows=OddRows(0.2, seed=5)), make(6_000)
        with serving(odd) as http:
            rows = read_all(http)
        assert rows == odd.rows(FIRST, LAST)
        assert odd.keys(FIRST, LAST) == plain.keys(FIRST, LAST)
        changed = [(row, was) for row, was in zip(rows, plain.rows(FIRST, LAST), strict=True) if row != was]
        assert 0.16 * 6_000 < len(changed) < 0.22 * 6_000
        rejects = [
            row
            for row, was in changed
            if row.get("id") != was["id"] or str(row["start_time"]).removesuffix(".0") != str(was["start_time"])
        ]
        assert 5 <= len(rejects) <= 60
        text = json.dumps([row for row, _ in changed])
        for kind in (
            "\\u0000",
            "\\ud800",
            "sentiment_score",
            '"duration": {',
            '"true"',
            '"duration": "',
            ": -",
            "about a minute",
        ):
            assert kind in text
        assert any(len(str(row.get("contactname"))) > 70_000 for row, _ in changed)

    def test_a_row_is_odd_in_the_same_way_every_time(self) -> None:
        portals = [make(300, odd_rows=OddRows(0.5, seed=1)) for _ in range(2)]
        assert portals[0].rows_json(FIRST, LAST) == portals[1].rows_json(FIRST, LAST)
        assert make(300, odd_rows=OddRows(0.5, seed=2)).rows_json(FIRST, LAST) != portals[0].rows_json(FIRST, LAST)


class TestRecordings:
    def test_audio_is_valid_and_as_long_as_the_talk(self) -> None:
        portal = make(50)
        row = next(row for row in portal.rows(FIRST, LAST) if row["recorded"] and row["talk_duration"] > 5)
        with serving(portal) as http:
            whole = http.get(row["record_path"])
            part = http.get(row["record_path"], headers={"Range": "bytes=100-299"})
            rest = http.get(row["record_path"], headers={"Range": "bytes=300-"})
            tail = http.get(row["record_path"], headers={"Range": "bytes=-10"})
            beyond = http.get(row["record_path"], headers={"Range": "bytes=99999999-"})
        assert whole.headers["Content-Type"] == "audio/wav"
        with wave.open(io.BytesIO(whole.content)) as audio:
            assert audio.getnframes() / audio.getframerate() == row["talk_duration"]
            assert len(set(audio.readframes(1_000))) > 20
        assert (part.status_code, beyond.status_code) == (206, 416)
        assert whole.content[:100] + part.content + rest.content == whole.content
        assert tail.content == whole.content[-10:]
        assert part.headers["Content-Range"] == f"bytes 100-299/{len(whole.content)}"

    def test_not_ready_expired_deleted_or_never_there(self) -> None:
        portal = make(200, recording_kept_days=365)
        rows = portal.rows(FIRST, LAST)
        row = next(row for row in rows if row["recorded"])
        path = row["record_path"]
        silent = next(row["id"] for row in rows if not row["recorded"])
        visible = {
            row["id"]: portal.store.visible_from_ms(portal.store.find(row["id"], portal.clock.now_ms()) or 0)
            for row in rows
        }
        with serving(portal) as http:
            assert http.get(f"/v1/call/recording/{silent}").status_code == 404
            assert http.delete(f"/v1/call/recording/{silent}").status_code == 404
            portal.options.recording_ready_seconds = 4 * 86_400
            portal.clock.set(visible[row["id"]])
            assert http.get(path).status_code == 404
            portal.clock.set(row["end_time"] + 4 * DAY)
            assert http.get(path).status_code == 200
            portal.clock.set(row["end_time"] + 366 * DAY)
            assert http.get(path).status_code == 404
            portal.clock.set(LATER)
            assert http.delete(path).json()["r"] == 0
            portal.options.missing_recording = "envelope"
            missing = http.get(path)
        assert missing.status_code == 200
        assert missing.json()["r"] != 0

    def test_links_can_be_absolute(self) -> None:
        calls = generate(1, "2026-01-05", 1, 20, record_link_base="https://asia-3.api.stringee.com")
        links = [row["record_path"] for row in Portal(calls, clock=Clock(LATER)).rows(FIRST, LAST) if row["recorded"]]
        assert links
        assert all(link.startswith("https://asia-3.api.stringee.com/v1/call/recording/call-vn-1-") for link in links)


class TestOtherOperations:
    def test_realtime_follows_the_clock(self) -> None:
        portal = make(5_000)
        now_ms = FIRST + DAY // 2 - 2 * 3_600_000
        running = {row["id"] for row in portal.rows(FIRST, LAST) if row["start_time"] <= now_ms < row["end_time"]}
        portal.clock.set(now_ms)
        with serving(portal) as http:
            answer = http.get("/v1/call/realtime", params={"limit": 2}).json()
            calls = [
                call
                for page in range(1, answer["data"]["totalPages"] + 1)
                for call in http.get("/v1/call/realtime", params={"limit": 2, "page": page}).json()["data"]["calls"]
            ]
        assert answer["message"] == "Success"
        assert answer["data"]["totalCount"] == len(running) > 2
        assert {call["callId"] for call in calls} == running
        assert {call["direction"] for call in calls} <= {"callin", "callout"}

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_calls_in_progress_can_be_steered(self, method: str) -> None:
        portal = make(5)
        portal.realtime_calls.append({"callId": "running", "agent": "user_1"})
        end = {"type": "external", "number": "84900000001", "alias": "a"}
        with serving(portal) as http:

            def do(operation: str, **body: Any) -> httpx.Response:
                return http.request(method, f"/v1/call/{operation}", json=body)

            assert do("transfer", callId="gone", to=end).json()["r"] == 8
            assert do("transfer", callId="running", to={"type": "other", "number": "1"}).json()["r"] == 9
            assert do("addparticipant", callId="running", to=end).json()["r"] == 9
            assert do("transfer", callId="running", to=end).json()["r"] == 0
            assert do("addparticipant", callId="running", to=end, **{"from": end}).json()["r"] == 0
            assert do("stop", callId="running").json()["r"] == 0
            assert do("stop", callId="running").json()["r"] == 8
            assert http.get("/v1/call/realtime").json()["data"]["calls"] == []
            portal.options.operation_methods = ("PUT",)
            assert do("stop", callId="running").status_code == 405
        assert [name for name, _ in portal.operations] == ["transfer", "add_participant", "stop"]

    def test_greetings_are_kept_byte_for_byte(self) -> None:
        portal = make(5)
        audio = bytes(range(256)) + b"\r\n\n\r--x\x00"
        with serving(portal) as http:
            answer = http.post(
                "/v1/greetingfile", data={"desc": "Lời chào"}, files={"file_upload": ("chào.wav", audio)}
            ).json()
            assert http.post("/v1/greetingfile", data={"desc": "a"}).status_code == 400
        assert answer["r"] == 0
        assert portal.greetings[answer["fileSid"]] == (answer["filename"], audio)
        assert answer["filename"] == "chào.wav"


class TestGenerator:
    @given(
        seed=st.integers(0, 2**32), days=st.integers(1, 9), total=st.integers(0, 400), ties=st.integers(1, 9),
        zone=st.sampled_from(["Asia/Ho_Chi_Minh", "Europe/Berlin", "America/New_York", "UTC"]),
    )  # fmt: skip
    @settings(max_examples=40, deadline=None)
    def test_any_arguments_give_possible_calls(self, seed: int, days: int, total: int, ties: int, zone: str) -> None:
        calls = generate(seed, "2026-03-24", days, total, timezone=zone, ties=ties)
        first = datetime(2026, 3, 24, tzinfo=ZoneInfo(zone)).timestamp() * 1000
        end = (datetime(2026, 3, 24, tzinfo=ZoneInfo(zone)) + timedelta(days)).timestamp() * 1000
        assert len(calls) == len(set(calls.call_ids.tolist())) == total
        assert ((calls.start_ms >= first) & (calls.start_ms < end)).all()
        assert (np.diff(calls.start_ms) >= 0).all()
        assert (calls.end_ms > calls.start_ms).all()
        answered = calls.answer_ms > 0
        assert ((calls.answer_ms >= calls.start_ms) & (calls.answer_ms <= calls.end_ms))[answered].all()
        assert (answered == (calls.status == 1)).all()
        assert (calls.visible_from_ms > calls.end_ms).all()
        assert (calls.settled_from_ms > calls.visible_from_ms).all()
        rows = Portal(calls, clock=Clock(int(end) + 10 * DAY)).rows(0, 2**60)
        assert all(row["talk_duration"] >= 0 and row["duration"] >= (row["answer_duration"] or 0) for row in rows)

    def test_days_are_believable(self) -> None:
        calls = generate(7, "2026-01-05", 7, 30_000)
        rows = Portal(calls, clock=Clock(LATER)).rows(0, 2**60)
        zone = ZoneInfo("Asia/Ho_Chi_Minh")
        starts = [datetime.fromtimestamp(row["start_time"] / 1000, zone) for row in rows]
        weekdays, hours = Counter(start.weekday() for start in starts), Counter(start.hour for start in starts)
        assert weekdays[0] > 1.5 * weekdays[5] > weekdays[6]
        assert hours[10] > 2 * hours[18] > hours[3]
        external = [row for row in rows if row["direction"] != 2]
        numbers = {"".join(filter(str.isdigit, row["customer_number"])).removeprefix("0") for row in external}
        assert 0.28 < len(numbers) / len(external) < 0.38
        parsed = [phonenumbers.parse(row["customer_number"], "VN") if row["customer_number"][0] in "+0"
                  else phonenumbers.parse("+" + row["customer_number"]) for row in external[:4_000]]  # fmt: skip
        assert all(map(phonenumbers.is_valid_number, parsed))
        assert {number.country_code for number in parsed} == {84, 1, 61}
        assert {row["status"] for row in rows} == {1, 2, 3, 4}
        assert {row["direction"] for row in rows} == {0, 1, 2}
        midnights = {FIRST + day * DAY for day in range(1, 8)}
        assert all(any(row["start_time"] < midnight < row["end_time"] for row in rows) for midnight in midnights)
        participants = {type(row["participants"]) for row in rows}
        assert participants == {type(None), str, list}
        missed = {
            row["customer_number"]: row["end_time"] for row in rows if row["direction"] == 1 and row["status"] == 2
        }
        back = [
            row
            for row in rows
            if row["direction"] == 0 and 0 < row["start_time"] - missed.get(row["customer_number"], 0) < 5_400_000
        ]
        assert len(back) > 0.3 * len(missed)
        assert any(row["video_call"] == 1 for row in rows)
        assert any(row["have_voice_mail"] for row in rows)
        assert any(row["hold_duration"] for row in rows)
        assert {row["campaign_name"] for row in rows} > {None}

    def test_the_same_seed_gives_the_same_bytes_in_every_process(self) -> None:
        script = (
            "import hashlib, sys; from pipelines.stringeex.simulator import *;"
            "portal = Portal(generate(9, '2026-01-05', 2, 500), odd_rows=OddRows(0.3), clock=Clock(1772323200000));"
            "print(hashlib.sha256(b''.join(portal.rows_json(0, 2**60))).hexdigest(),"
            " sorted({'pandas', 'prefect'} & set(sys.modules)))"
        )
        outputs = {
            subprocess.run(
                [sys.executable, "-c", script],
                env=os.environ | {"PYTHONHASHSEED": seed},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for seed in ("1", "2")
        }
        assert len(outputs) == 1
        assert outputs.pop().endswith(" []\n"), "neither pandas nor prefect is imported"
        one, other = (generate(seed, "2026-01-05", 2, 500) for seed in (9, 10))
        assert (one.start_ms != other.start_ms).any()

    @pytest.mark.parametrize("arguments", [{"days": 0}, {"calls_total": -1}, {"ties": 0}])
    def test_impossible_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="generate"):
            generate(**arguments)


class TestOwnProcess:
    def test_a_spawned_portal_is_served_steered_and_ended(self) -> None:
        with spawn(300, 2, start_date="2026-01-05", ties=3, page_limit=50, odd_share=0.1) as portal:
            assert portal.credentials == CREDENTIALS
            with httpx.Client(base_url=portal.base_url, headers={"X-STRINGEE-AUTH": token()}) as http:
                portal.control("POST", "clock", {"now_ms": int(LATER.timestamp() * 1000)})
                assert len(portal.rows(0, 2**60)) == len(portal.keys(0, 2**60)) == 300
                (_, removed), (_start, changed), *_ = portal.keys(0, 2**60)
                portal.remove_call(removed)
                portal.update_call(changed, contactname="Lan")
                portal.add_call({"id": "own", "start_time": FIRST})
                rows = read_all(http)
                assert rows == portal.rows(0, 2**60)
                assert rows[0]["id"] == "own"
                assert next(row for row in rows if row.get("id") == changed)["contactname"] == "Lan"
                portal.add_fault("Status", status=504, count=1)
                assert http.get(HISTORY).status_code == 504
                portal.add_fault("Mixed", rate=1.0)
                portal.clear_faults()
                portal.set_options(rate_limits={"history_per_10s": 1}, default_limit=3)
                portal.clear_log()
                assert http.get(HISTORY).status_code == 429
                assert portal.counts() == {"history": 1}
                assert portal.log()[0]["status"] == 429
                portal.control("POST", "revoke_tokens")
                assert http.get("/v1/call/realtime").status_code == 401
            for method, resource, body in (
                ("POST", "faults", {"fault": "Nonsense"}), ("POST", "faults", {"fault": "Cut", "nonsense": 1}),
                ("PATCH", "options", {"nonsense": 1}), ("GET", "nonsense", None), ("DELETE", "calls/nonsense", None),
            ):  # fmt: skip
                with pytest.raises(ValueError, match="_simulator"):
                    portal.control(method, resource, body)
            base_url = portal.base_url
        with pytest.raises(httpx.ConnectError):
            httpx.get(base_url)

    def test_a_portal_that_cannot_start_says_so(self, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(RuntimeError, match="did not start"), spawn(days=0):
            pass
        assert "generate() needs days >= 1" in capfd.readouterr().err
