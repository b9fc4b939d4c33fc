"""The simulated portal, through the door that clients use: HTTP."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipelines.simulator import CREDENTIALS, NO_LIMITS, Clock, Portal, PortalOptions, RateLimits, generate
from pipelines.simulator import faults as f
from tests.unit.portals import DAY, FIRST, HISTORY, LAST, ask, make, read_all, read_keyset, serving, token


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
