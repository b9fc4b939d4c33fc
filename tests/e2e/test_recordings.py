"""The archive of recordings against the simulated portal: whole, proven, polite, discreet, whatever goes wrong."""

from __future__ import annotations

import hashlib
import io
import threading
import tracemalloc
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import s3fs
import stamina
from fsspec.implementations.local import LocalFileSystem

from pipelines.recordings.archive import GIVE_UP_AFTER_FAILURES, Event, Step
from pipelines.stringeex.budget import Block, RequestBudget
from pipelines.stringeex.simulator import Portal, PortalOptions, RateLimits, SimulatedPortal, generate, mixed_faults
from pipelines.stringeex.simulator import faults as fault
from pipelines.stringeex.simulator.audio import recording
from pipelines.stringeex.simulator.limits import NO_LIMITS
from sinks.recordings import RecordingStatus
from sinks.storage import Storage
from tests.archives import (
    FIRST,
    archived_at,
    other_host,
    recordings_of,
    requests_for_recordings,
    s3_server,
    serve,
)
from transforms.errors import AuthenticationError, BusyError, StorageError, TransportError

BUCKET = "recordings"
START = datetime(2026, 1, 5, 3, tzinfo=UTC)


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    """The waits between two tries are none of the behaviour under test."""
    with stamina.set_testing(True, attempts=1_000):
        yield


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    with s3_server(monkeypatch, BUCKET) as files:
        yield files


@pytest.fixture
def portal() -> Portal:
    """A portal without calls and limits."""
    return Portal(options=PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server
        assert server.errors == []


def add_call(portal: Portal, call_id: str = "call-vn-1-AAAAAAAAAA-1", **fields: Any) -> None:
    start_ms = int(START.timestamp() * 1000) + 60_000 * len(portal.keys(0, 2**60))
    row = {
        "id": call_id, "start_time": start_ms, "end_time": start_ms + 12_000, "duration": 12, "talk_duration": 10,
        "recorded": 1, "direction": 1, "status": 1,
    }  # fmt: skip
    portal.add_call({**row, **fields})


def big_portal(calls: int = 60, **options: Any) -> Portal:
    return Portal(generate(seed=5, start_date=FIRST, days=1, calls_total=calls), PortalOptions(**options))


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_every_recording_byte_for_byte_though_the_portal_fails(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    portal = big_portal(rate_limits=NO_LIMITS)
    places = {}
    if place == "bucket":
        request.getfixturevalue("bucket")
        places = {"CALLHISTORY_ARCHIVE_URL": f"s3://{BUCKET}/archive"}
    with SimulatedPortal(portal) as server:
        archived = archived_at(server.base_url, tmp_path, **places)
        archived.export()
        portal.faults.append(mixed_faults(0.08, seed=3))
        expected = recordings_of(portal)
        assert len(expected) > 30
        while (summary := archived.run(now=datetime.now(UTC) + timedelta(days=2))).statuses[RecordingStatus.FAILED]:
            pass
        assert summary.is_complete
        assert any(entry.fault for entry in portal.log if entry.operation == "download_recording")
        archived.check_every_recording(expected)
        portal.faults.clear()
        portal.log.clear()
        again = archived.run()
        assert (again.archived, again.requests, again.bytes) == (0, 0, 0)
        archived.export()
        assert requests_for_recordings(portal) == []
        archived.check_every_recording(expected)


def test_facts_lie_beside_the_audio(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal, customer_number="84900000001", contactname="Nguyễn Văn A")
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    archived.run()
    (row,) = archived.rows().values()
    assert row["archive_path"] == "call_date=2026-01-05/call-vn-1-AAAAAAAAAA-1.wav"
    assert (row["content_type"], row["duration_seconds"], row["last_error"]) == ("audio/wav", 10, None)
    facts = archived.files()[row["archive_path"] + ".json"].decode()
    for expected in ('"sha256": "' + row["sha256"], '"status": "answered"', "Nguyễn Văn A", '"+84900000001"'):
        assert expected in facts


def test_recordings_are_fetched_oldest_first_and_side_by_side(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    ids = [f"call-vn-1-{number:04}-1" for number in range(12)]
    for call_id in ids:
        add_call(portal, call_id)
    archived = archived_at(server.base_url, tmp_path, CALLHISTORY_CONCURRENCY="3")
    archived.export()
    together = threading.Barrier(3, timeout=20)
    waited = threading.local()

    def meet(event: Event) -> None:
        # Only passes when three recordings are under way at the same time.
        if event.step is Step.BEGUN and not getattr(waited, "once", False):
            waited.once = True
            together.wait()

    assert archived.run(on_event=meet).archived == 12
    order = [ids.index(call_id) for call_id in requests_for_recordings(portal)]
    assert all(abs(place - position) < 3 for position, place in enumerate(order))


def test_a_cut_is_resumed_where_the_server_takes_ranges(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal, talk_duration=300, duration=300)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Cut(operation="download_recording", count=2))
    summary = archived.run()
    assert [entry.status for entry in portal.log if entry.operation == "download_recording"] == [200, 206, 206]
    assert summary.bytes == len(recording("call-vn-1-AAAAAAAAAA-1", 300)), "nothing was received twice"
    archived.check_every_recording(recordings_of(portal))


def test_a_cut_starts_anew_where_the_server_takes_no_ranges(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    audio = recording("x", 10)
    answers = [serve(audio, cut_at=5_000), serve(audio)]
    with other_host(lambda handler: answers.pop(0)(handler)) as host:
        add_call(portal, record_path=f"{host.base_url}/x.wav")
        archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        archived.export()
        assert archived.run().archived == 1
        assert [headers.get("range") for headers in host.seen] == [None, "bytes=5000-"]
    assert next(content for name, content in archived.files().items() if name.endswith(".wav")) == audio


def test_the_token_goes_to_the_portal_and_nowhere_else(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    audio = recording("x", 10)
    with other_host(serve(audio)) as host:
        add_call(portal, "call-vn-1-LINK-1", record_path=f"{host.base_url}/a?signature=1")
        add_call(portal, "call-vn-1-REDIRECT-1")
        add_call(portal, "call-vn-1-OWN-1", record_path="/v1/call/recording/call-vn-1-OWN-1")
        add_call(portal, "call-vn-1-NOLINK-1", record_path=None)
        refusing = archived_at(server.base_url, tmp_path / "1")
        refusing.export()
        redirect = fault.Redirect(
            operation="download_recording",
            location=f"{host.base_url}/b",
            when=lambda request: "REDIRECT" in request.path,
        )
        portal.faults.append(redirect)
        summary = refusing.run()
        assert (summary.archived, summary.failed) == (2, 2)
        assert host.seen == []
        errors = {call_id: row["last_error"] for call_id, row in refusing.rows().items() if row["last_error"]}
        assert set(errors) == {"call-vn-1-LINK-1", "call-vn-1-REDIRECT-1"}
        assert all("STRINGEEX_RECORDING_HOSTS" in error and "signature" not in error for error in errors.values())

        allowing = archived_at(server.base_url, tmp_path / "2", STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        allowing.export()
        assert allowing.run().archived == 4
        assert {headers[":path"] for headers in host.seen} == {"/a?signature=1", "/b"}
    assert all(entry.had_token for entry in portal.log if entry.operation == "download_recording")


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/x",
        "https://169.254.169.254/latest",
        "https://localhost/x",
        "//192.168.0.1/x",
        "ftp://127.0.0.1/x",
    ],
)
def test_a_redirect_leads_into_no_private_network(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="10.0.0.1,192.168.0.1,169.254.169.254")
    archived.export()
    portal.faults.append(fault.Redirect(operation="download_recording", location=location))
    assert archived.run().failed == 1
    assert portal.counts["download_recording"] == 1


def test_a_redirect_is_not_followed_for_ever(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(
        fault.Redirect(operation="download_recording", location="/v1/call/recording/call-vn-1-AAAAAAAAAA-1")
    )
    assert archived.run().failed == 1
    assert portal.counts["download_recording"] == 5 * 6


@pytest.mark.parametrize(
    "what",
    [fault.Html(), fault.EmptyBody(), fault.InvalidJson(), fault.Envelope(), fault.Status(status=500), fault.Reset()],
    ids=lambda what: type(what).__name__,
)
def test_what_is_no_recording_is_not_archived(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, what: fault.Fault
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    what.operation = "download_recording"
    portal.faults.append(what)
    assert not archived.run().is_complete
    (row,) = archived.rows().values()
    assert row["status"] == "failed"
    assert archived.files() == {}


def test_a_failure_is_tried_again_ever_more_rarely(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording"))
    now = datetime.now(UTC).replace(microsecond=0)
    waits = []
    for _ in range(3):
        archived.run(now=now)
        (row,) = archived.rows().values()
        waits.append(row["next_attempt_at"] - now)
        assert archived.run(now=row["next_attempt_at"] - timedelta(seconds=1)).requests == 0
        now = row["next_attempt_at"]
    assert waits == [timedelta(minutes=5), timedelta(minutes=10), timedelta(minutes=20)]
    portal.faults.clear()
    assert archived.run(now=now).is_complete
    archived.check_every_recording(recordings_of(portal))


def test_audio_that_is_damaged_or_not_this_calls_is_not_archived(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    audio = recording("x", 10)
    answers = {"/text": b"Plain text.", "/cut": audio[:-1], "/long": recording("x", 3_000), "/good": audio}
    with other_host(lambda handler: serve(answers[handler.path])(handler)) as host:
        for number, path in enumerate(answers):
            add_call(portal, f"call-vn-1-{number}-1", record_path=host.base_url + path)
        archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        archived.export()
        archived.run()
    errors = [row["last_error"] for _, row in sorted(archived.rows().items())]
    assert ["not WAV" in errors[0], "cut short" in errors[1], "3000 seconds" in errors[2], errors[3]] == [True] * 3 + [
        None
    ]
    assert len(archived.files()) == 2


@pytest.mark.parametrize("missing_recording", ["404", "envelope"])
def test_what_is_not_there_is_asked_for_over_days_and_then_missing(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, missing_recording: Any
) -> None:
    portal.options.missing_recording = missing_recording
    portal.options.recording_kept_days = 0.000_001
    add_call(portal)
    ended = START + timedelta(seconds=12)
    archived = archived_at(server.base_url, tmp_path, CALLHISTORY_RECORDING_RETRIES="1h,1d,7d")
    archived.export()
    asked_at = [timedelta(minutes=5), timedelta(hours=1), timedelta(days=1)]
    for age, next_age in zip(asked_at, [*asked_at[1:], timedelta(days=7)], strict=True):
        summary = archived.run(now=ended + age)
        assert (summary.not_ready, summary.is_complete) == (1, True)
        (row,) = archived.rows().values()
        assert (row["status"], row["next_attempt_at"]) == ("not_ready", ended + next_age)
        assert archived.run(now=ended + next_age - timedelta(seconds=1)).requests == 0
    summary = archived.run(now=ended + timedelta(days=7))
    assert (summary.missing, summary.is_complete) == (1, False)
    assert archived.run(now=ended + timedelta(days=400)).requests == 0
    (row,) = archived.rows().values()
    assert (row["status"], row["attempts"], row["next_attempt_at"]) == ("missing", 4, None)


def test_hostile_call_ids_stay_inside_and_apart(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    hostile = [
        "../../../etc/passwd",
        "a/b",
        "a\\b",
        "x" * 300,
        "X" * 300,
        "Gọi đi 📞",
        "con",
        "%2e%2e%2f",
        "a?b#c",
        " . ",
    ]
    for call_id in hostile:
        add_call(portal, call_id, record_path=None)
    archived = archived_at(server.base_url, tmp_path / "deep" / "deeper")
    archived.export()
    assert archived.run().is_complete
    rows = archived.rows()
    assert len({row["archive_path"].casefold() for row in rows.values()}) == len(hostile)
    root = tmp_path / "deep" / "deeper" / "recordings"
    assert {path.parent for path in tmp_path.rglob("*.wav")} == {root / "call_date=2026-01-05"}
    for call_id, row in rows.items():
        assert (root / row["archive_path"]).read_bytes() == recording(call_id, 10)


def test_the_budget_is_kept(tmp_path: Path) -> None:
    now, lock = [1_767_600_003.0], threading.Lock()
    portal = Portal(
        generate(seed=5, start_date=FIRST, days=1, calls_total=110),
        PortalOptions(rate_limits=NO_LIMITS),
        limits_clock=lambda: now[0],
    )

    def wait(_: threading.Event, seconds: float) -> None:
        with lock:
            now[0] += min(seconds, 0.5)

    with SimulatedPortal(portal) as server:
        archived = archived_at(server.base_url, tmp_path)
        archived.export()
        portal.options.rate_limits = RateLimits(recordings_per_minute=30, all_per_hour=50)
        began = now[0]
        budget = RequestBudget([Block(60, 30, "recording"), Block(3600, 50)], clock=lambda: now[0], wait=wait)
        summary = archived.run(budget=budget)
    assert summary.archived > 60
    assert {entry.status for entry in portal.log if entry.operation == "download_recording"} == {200}
    assert now[0] - began > 3_000, "the second fifty waited for the next hour"


def test_one_listing_and_no_look_at_single_files(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        add_call(portal, f"call-vn-1-{number}-1")
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    archived.run()
    add_call(portal, "call-vn-1-LAST-1")
    archived.export()
    looks: list[str] = []
    for name in ("find", "exists", "info", "size", "open"):
        original = getattr(LocalFileSystem, name)

        def spy(self: Any, path: Any, *args: Any, _name: str = name, _original: Any = original, **options: Any) -> Any:
            if "recordings" in str(path) and ".writable" not in str(path):
                looks.append(_name)
            return _original(self, path, *args, **options)

        monkeypatch.setattr(LocalFileSystem, name, spy)
    assert archived.run().archived == 1
    assert looks.count("find") == 1
    assert not {"exists", "size", "open"} & set(looks)


def test_a_recording_that_a_killed_run_had_published_is_not_fetched_again(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()

    def killed(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("sinks.recordings.Recordings.save", killed)
        with pytest.raises(MemoryError):
            archived.run()
    assert {row["status"] for row in archived.rows().values()} == {"pending"}
    portal.log.clear()
    summary = archived.run()
    assert (summary.archived, summary.adopted, requests_for_recordings(portal)) == (1, 1, [])
    archived.check_every_recording(recordings_of(portal))

    (name,) = (name for name in archived.files() if name.endswith(".wav"))
    (tmp_path / "recordings" / name).write_bytes(b"not what was archived")
    with archived.open() as stores:
        from sinks.recordings import Recordings

        Recordings(stores.warehouse).want_again(archived.rows())
    assert archived.run().adopted == 0
    archived.check_every_recording(recordings_of(portal))


def test_an_api_that_answers_nothing_ends_the_run_and_harms_nothing(tmp_path: Path) -> None:
    portal = big_portal(rate_limits=NO_LIMITS)
    with SimulatedPortal(portal) as server:
        archived = archived_at(server.base_url, tmp_path)
        archived.export()
        portal.faults.append(fault.Close(operation="download_recording"))
        with pytest.raises(TransportError):
            archived.run()
        failed = [row for row in archived.rows().values() if row["status"] == "failed"]
        assert GIVE_UP_AFTER_FAILURES <= len(failed) < 2 * GIVE_UP_AFTER_FAILURES
        portal.faults[:] = [fault.AuthRejected(operation="download_recording")]
        with pytest.raises(AuthenticationError):
            archived.run()
        portal.faults.clear()
        expected = recordings_of(portal)
        assert archived.run(now=datetime.now(UTC) + timedelta(days=2)).archived == len(expected)
        archived.check_every_recording(expected)


def test_a_token_that_expires_is_renewed(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.AuthRejected(operation="download_recording", count=1))
    assert archived.run().archived == 1
    assert [entry.status for entry in portal.log if entry.operation == "download_recording"] == [401, 200]


def test_two_runs_do_not_fetch_the_same(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    refused: list[str] = []

    def run_another(event: Event) -> None:
        if event.step is Step.FETCHED:
            with pytest.raises(BusyError) as caught:
                archived.run()
            refused.append(str(caught.value))

    assert archived.run(on_event=run_another).archived == 1
    assert "another run is writing to" in refused[0]
    assert len(requests_for_recordings(portal)) == 1


def test_storage_that_cannot_be_written_is_named(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    (tmp_path / "recordings").write_text("a file, not a folder")
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    with pytest.raises(StorageError, match="recordings"):
        archived.run()


def long_wav(megabytes: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(44_100)
        audio.writeframes(bytes(range(256)) * (megabytes << 12))
    return file.getvalue()


def test_a_long_recording_goes_to_a_bucket_in_parts(
    portal: Portal, server: SimulatedPortal, bucket: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    audio = long_wav(20)
    with other_host(serve(audio)) as host:
        add_call(portal, record_path=f"{host.base_url}/x.wav", duration=300, talk_duration=240)
        archived = archived_at(
            server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1", CALLHISTORY_ARCHIVE_URL=f"s3://{BUCKET}/a"
        )
        archived.export()
        assert archived.run().is_complete
    (row,) = archived.rows().values()
    stored = bucket.info(f"{BUCKET}/a/{row['archive_path']}")
    assert stored["size"] == len(audio)
    assert stored["ETag"].strip('"').endswith("-3"), "three parts"
    assert archived.files()[row["archive_path"]] == audio


def test_a_long_recording_takes_no_more_memory_than_a_short_one(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    audio = long_wav(48)
    with other_host(serve(audio)) as host:
        add_call(portal, record_path=f"{host.base_url}/x.wav", duration=600, talk_duration=580)
        archived = archived_at(server.base_url, tmp_path, STRINGEEX_RECORDING_HOSTS="127.0.0.1")
        archived.export()
        tracemalloc.start()
        try:
            assert archived.run().is_complete
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 << 20
    (row,) = archived.rows().values()
    assert (row["bytes"], row["sha256"]) == (len(audio), hashlib.sha256(audio).hexdigest())


def test_an_upload_that_breaks_leaves_nothing_in_the_bucket(
    bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"s3://{BUCKET}/a")
    sent = []
    original = s3fs.core.S3File._upload_chunk

    def break_at_the_second_part(self: Any, final: bool = False) -> Any:
        sent.append(final)
        if len(sent) == 2:
            raise OSError("the network is gone")
        return original(self, final)

    monkeypatch.setattr(s3fs.core.S3File, "_upload_chunk", break_at_the_second_part)
    with storage.incoming() as file:
        file.write(bytes(20 << 20))
        with pytest.raises(StorageError):
            storage.publish_incoming(file, "x.wav")
    assert len(sent) == 2
    assert storage.sizes() == {}
    assert bucket.list_multipart_uploads(BUCKET) == []
