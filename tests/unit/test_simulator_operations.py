"""The simulated portal beyond the call history: recordings, live calls, greetings, and the days that it makes up."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import wave
from collections import Counter
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.simulator import CREDENTIALS, Clock, Portal, generate, spawn
from tests.unit.portals import DAY, FIRST, HISTORY, LAST, LATER, make, read_all, serving, token


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
            "import hashlib, sys; from pipelines.simulator import *;"
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
