"""The simulated portal when it misbehaves: odd answers, broken connections, odd rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import httpx
import pytest

from pipelines.simulator import Fault, OddRows, SimulatedPortal, mixed_faults
from pipelines.simulator import faults as f
from tests.unit.portals import DAY, FIRST, HISTORY, LAST, ask, make, read_all, serving, token


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
    (f.NothingThere(), lambda answer: answer.json()["data"]["totalCount"] == 0 and not answer.json()["data"]["rows"]),
    (f.WrongTotal(offset=-3), lambda answer: answer.json()["data"]["totalCount"] == 597),
    (f.WrongTotal(form="text"), lambda answer: answer.json()["data"]["totalCount"] == "600"),
    (f.WrongTotal(form="null"), lambda answer: answer.json()["data"]["totalCount"] is None),
    (f.WrongTotal(form="missing"), lambda answer: "totalCount" not in answer.json()["data"]),
    (f.CodeAs(), lambda answer: answer.content.startswith(b'{"r":0.0,')),
    (f.CodeAs(form="missing"), lambda answer: "r" not in answer.json()),
    (f.LargerPages(factor=3), lambda answer: len(answer.json()["data"]["rows"]) == 30),
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

    def test_a_page_begins_with_the_last_row_of_the_one_before(self) -> None:
        portal = make(30, faults=[f.UnstablePages()])
        with serving(portal) as http:
            first, second = (http.get(HISTORY, params={"limit": 10, "page": page}).json()["data"] for page in (1, 2))
        assert first["totalCount"] == second["totalCount"] == 30
        assert second["rows"][0] == first["rows"][-1]
        assert len(second["rows"]) == 10

    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            (f.Reset(), httpx.ReadError),
            (f.Close(), httpx.RemoteProtocolError),
            (f.Cut(), httpx.RemoteProtocolError),
            (f.Stall(seconds_per_byte=3_600), httpx.ReadTimeout),
            (f.StallHead(seconds_per_byte=3_600), httpx.ReadTimeout),
            (f.ContinueForever(seconds_between=3_600), httpx.ReadTimeout),
            (f.EndlessBody(seconds_between=3_600), httpx.ReadTimeout),
        ],
    )
    def test_broken_connections(self, fault: Fault, error: type[Exception]) -> None:
        fault.count, fault.after = 1, 1
        with serving(make(faults=[fault]), timeout=1) as http:
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
