"""The archive of recordings against the simulated portal: whole, proven, polite, discreet, whatever goes wrong."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from pipelines.recordings.archive import GIVE_UP_AFTER_FAILURES, Event, Step
from pipelines.simulator import Portal, PortalOptions, RateLimits, SimulatedPortal, generate, mixed_faults
from pipelines.simulator import faults as fault
from pipelines.simulator.limits import NO_LIMITS
from pipelines.stringeex.request_budget import Block, RequestBudget
from sinks.identity import IDENTITY_FILE
from sinks.recordings import RecordingStatus
from tests.archives import FIRST, archived_at, recordings_of, requests_for_recordings
from tests.e2e.recordings.portals import BUCKET, START, add_call, big_portal
from transforms.errors import AuthenticationError, BusyError, TransportError


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
    later = archived.run(now=ended + timedelta(days=400))
    assert (later.requests, later.is_complete, later.statuses[RecordingStatus.MISSING]) == (0, True, 1)
    (row,) = archived.rows().values()
    assert (row["status"], row["attempts"], row["next_attempt_at"]) == ("missing", 4, None)
    assert (row["not_found_count"], row["first_not_found_at"]) == (4, ended + timedelta(minutes=5))


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
            of_the_archive_itself = ".writable" in str(path) or IDENTITY_FILE in str(path)
            if "recordings" in str(path) and not of_the_archive_itself:
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
