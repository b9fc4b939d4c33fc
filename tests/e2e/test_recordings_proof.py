"""The archive of recordings proven: killed at random, read back, and deleted at the source only when that is safe."""

from __future__ import annotations

import importlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import utc_now
from pipelines.recordings.delete import Deletion, delete_planned, plan_deletion
from pipelines.recordings.verify import Finding, Verification, verify_recordings
from pipelines.simulator import Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator import faults as fault
from pipelines.simulator.limits import NO_LIMITS
from pipelines.stringeex.operations import StringeeX
from sinks.recordings import Recordings
from tests.archives import FIRST, Archived, archived_at, recordings_of, s3_server
from tests.e2e.command import REPOSITORY, environment
from transforms.errors import RetryableError

KILLS = 10

DRIVER = '''
"""Runs the archive again and again, each time in a process of its own that is killed somewhere; tells what is left."""
import hashlib, json, os, random, signal, sys, time

from sinks.storage import Storage
from tests.archives import archived_at

POINTS = ("begun", "receiving", "fetched", "checked", "publishing", "published", "saved")


def run_until_killed(archived, seed):
    rng = random.Random(seed)
    point, left = POINTS[seed % len(POINTS)], rng.randrange(1, 7)

    def reached(name):
        nonlocal left
        left -= name == point
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    publish = Storage.publish_incoming

    def publish_incoming(self, file, name):
        reached("publishing")
        publish(self, file, name)

    Storage.publish_incoming = publish_incoming
    archived.run(on_event=lambda event: reached(event.step.value))


def tell(archived, began, was_killed):
    files = archived.files()
    published = {
        name.rpartition("/")[2].removesuffix(".wav"): (
            json.loads(files[name + ".json"])["sha256"] == hashlib.sha256(audio).hexdigest()
        )
        for name, audio in files.items()
        if name.endswith(".wav")
    }
    print(json.dumps({"began": began, "was_killed": was_killed, "published": published}), flush=True)


def in_a_process_of_its_own(work, *arguments):
    child = os.fork()
    if child == 0:
        work(*arguments)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


base_url, folder, url, kills = sys.argv[1:]
archived = archived_at(base_url, folder, CALLHISTORY_ARCHIVE_URL=url)
for seed in range(int(kills)):
    began = time.time()
    was_killed = in_a_process_of_its_own(run_until_killed, archived, seed)
    in_a_process_of_its_own(tell, archived, began, was_killed)
'''


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_killed_ten_times_every_recording_is_whole_and_nothing_published_is_fetched_twice(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = generate(seed=9, start_date=FIRST, days=1, calls_total=60)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    with ExitStack() as stack:
        server = stack.enter_context(SimulatedPortal(portal))
        url = f"{tmp_path}/recordings"
        if place == "bucket":
            stack.enter_context(s3_server(monkeypatch, "recordings"))
            url = "s3://recordings/archive"
        archived = archived_at(server.base_url, tmp_path, CALLHISTORY_ARCHIVE_URL=url)
        archived.export()
        expected = recordings_of(portal)
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, server.base_url, str(tmp_path), url, str(KILLS)],
            cwd=REPOSITORY, env=environment({}), capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        attempts = [json.loads(line) for line in done.stdout.splitlines()]
        assert [attempt["was_killed"] for attempt in attempts] == [True] * KILLS
        assert all(all(attempt["published"].values()) for attempt in attempts), "a reader saw half a file"
        assert 0 < len(attempts[-1]["published"]) < len(expected)
        before_the_last_run = time.time()
        assert archived.run().is_complete
        archived.check_every_recording(expected)
    begins = [*(attempt["began"] for attempt in attempts[1:]), before_the_last_run]
    for attempt, next_began in zip(attempts, begins, strict=True):
        later = [entry for entry in portal.log if entry.at > next_began]
        asked = {entry.path.rpartition("/")[2] for entry in later if entry.operation == "download_recording"}
        assert not asked & set(attempt["published"])


def portal_with_six_recordings() -> Portal:
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    start_ms = int(datetime(2026, 1, 5, 3, tzinfo=UTC).timestamp() * 1000)
    for number in range(6):
        row = {
            "id": f"call-vn-1-{number}-1", "start_time": start_ms + number, "end_time": start_ms + 9_000,
            "duration": 9, "talk_duration": 5 + number, "recorded": 1, "direction": 1, "status": 1,
        }  # fmt: skip
        portal.add_call(row)
    return portal


@pytest.fixture(scope="module")
def archived_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with six recordings, exported and archived, for tests to copy."""
    folder = tmp_path_factory.mktemp("archived")
    with SimulatedPortal(portal_with_six_recordings()) as server:
        archived = archived_at(server.base_url, folder)
        archived.export()
        assert archived.run().archived == 6
    return folder


@pytest.fixture
def portal() -> Portal:
    return portal_with_six_recordings()


@pytest.fixture
def archived(portal: Portal, archived_once: Path, tmp_path: Path) -> Iterator[Archived]:
    folder = shutil.copytree(archived_once, tmp_path / "copy")
    with SimulatedPortal(portal) as server:
        yield archived_at(server.base_url, folder)
        assert server.errors == []


def audio_file(archived: Archived, number: int) -> Path:
    return Path(archived.settings.archive_url, f"call_date=2026-01-05/call-vn-1-{number}-1.wav")


def verify(archived: Archived, **options: Any) -> Verification:
    with archived.open() as stores:
        return verify_recordings(stores, **options)


def test_verification_reads_everything_back_and_says_when(archived: Archived) -> None:
    now = utc_now()
    found = verify(archived, now=lambda: now)
    assert (found.is_right, found.listed, found.read_back) == (True, 6, 6)
    assert {row["verified_at"] for row in archived.rows().values()} == {now}


def test_verification_finds_what_is_missing_or_has_changed_and_has_it_fetched_anew(
    archived: Archived, portal: Portal
) -> None:
    rotten = bytearray(audio_file(archived, 0).read_bytes())
    rotten[2_000] ^= 1
    audio_file(archived, 0).write_bytes(rotten)
    audio_file(archived, 1).unlink()
    audio_file(archived, 2).write_bytes(audio_file(archived, 2).read_bytes() + b"\0")
    audio_file(archived, 3).with_name("call-vn-1-3-1.wav.json").unlink()
    found = verify(archived, refetch=True)
    assert {(problem.call_id, problem.finding) for problem in found.problems} == {
        ("call-vn-1-0-1", Finding.DAMAGED),
        ("call-vn-1-1-1", Finding.MISSING),
        ("call-vn-1-2-1", Finding.DAMAGED),
        ("call-vn-1-3-1", Finding.WITHOUT_FACTS),
    }
    rows = archived.rows()
    assert {call_id for call_id, row in rows.items() if row["last_error"]} == {p.call_id for p in found.problems}
    assert {call_id for call_id, row in rows.items() if row["verified_at"]} == {"call-vn-1-4-1", "call-vn-1-5-1"}
    assert archived.run().archived == found.wanted_again == 4
    assert verify(archived).is_right
    archived.check_every_recording(recordings_of(portal))


def test_a_sample_goes_round(archived: Archived) -> None:
    for hour, expected in enumerate((4, 6, 6)):
        at = datetime(2026, 2, 1, hour, tzinfo=UTC)
        assert verify(archived, sample=4, now=lambda at=at: at).read_back == 4
        assert sum(row["verified_at"] is not None for row in archived.rows().values()) == min(expected, 6)


def delete(archived: Archived, age: timedelta = timedelta(days=1)) -> Deletion:
    with archived.open() as stores, archived.client() as client:
        return delete_planned(stores, StringeeX(client), plan_deletion(stores, age, utc_now()))


def hold(archived: Archived, number: int) -> None:
    with archived.open() as stores:
        Recordings(stores.warehouse).save({f"call-vn-1-{number}-1": {"legal_hold": True}})


def check_nothing_is_lost(archived: Archived, portal: Portal) -> None:
    """What is gone at the source can be read back from the archive."""
    rows = archived.rows()
    for call_id in portal.deleted_recordings:
        assert (
            Path(archived.settings.archive_url, rows[call_id]["archive_path"]).stat().st_size == rows[call_id]["bytes"]
        )


def test_the_plan_counts_what_is_old_enough_and_not_held(archived: Archived) -> None:
    hold(archived, 2)
    with archived.open() as stores:
        plan = plan_deletion(stores, timedelta(days=1), utc_now())
        assert (plan.recordings, plan.under_legal_hold) == (5, 1)
        assert (plan.first_date, plan.last_date) == (FIRST, FIRST)
        assert plan.bytes == sum(row["bytes"] for row in archived.rows().values() if not row["legal_hold"])
        assert plan_deletion(stores, timedelta(days=36_500), utc_now()).recordings == 0


def test_only_what_reads_back_and_is_not_held_is_deleted_at_the_source(archived: Archived, portal: Portal) -> None:
    hold(archived, 2)
    audio_file(archived, 0).write_bytes(b"rotten")
    audio_file(archived, 1).unlink()
    deletion = delete(archived)
    assert (deletion.deleted, len(deletion.refused)) == (3, 2)
    assert portal.deleted_recordings == {f"call-vn-1-{number}-1" for number in (3, 4, 5)}
    rows = archived.rows()
    for number in (3, 4, 5):
        row = rows[f"call-vn-1-{number}-1"]
        assert row["status"] == "deleted_at_source"
        assert row["archived_at"] <= row["verified_at"] <= row["source_deleted_at"]
    assert {rows[f"call-vn-1-{number}-1"]["status"] for number in (0, 1, 2)} == {"archived"}
    assert [entry.method for entry in portal.log if entry.operation == "delete_recording"] == ["DELETE"] * 3
    found = verify(archived, refetch=True)
    assert (len(found.problems), found.wanted_again) == (2, 2)


def test_a_hold_that_comes_after_the_plan_counts(archived: Archived, portal: Portal) -> None:
    with archived.open() as stores, archived.client() as client:
        plan = plan_deletion(stores, timedelta(days=1), utc_now())

        def hold_the_last(done: int) -> None:
            if done == 1:
                Recordings(stores.warehouse).save({"call-vn-1-5-1": {"legal_hold": True}})

        deletion = delete_planned(stores, StringeeX(client), plan, on_progress=hold_the_last)
    assert (deletion.deleted, len(deletion.refused)) == (5, 1)
    assert "call-vn-1-5-1" not in portal.deleted_recordings


class Killed(BaseException):
    pass


def test_cut_off_anywhere_nothing_is_deleted_that_cannot_be_read_back(
    archived: Archived, portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio_file(archived, 1).write_bytes(b"rotten")
    for module, name in (
        ("pipelines.recordings.delete", "by_content"),
        ("sinks.recordings.Recordings", "confirm_deletable"),
        ("pipelines.stringeex.operations.StringeeX", "delete_recording"),
        ("sinks.recordings.Recordings", "save"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"{module}.{name}", _killing_after(_resolve(module), name, call=2))
            with pytest.raises(Killed):
                delete(archived)
        check_nothing_is_lost(archived, portal)
    deletion = delete(archived)
    assert len(deletion.refused) == 1
    assert portal.deleted_recordings == {f"call-vn-1-{number}-1" for number in (0, 2, 3, 4, 5)}
    assert sum(row["status"] == "deleted_at_source" for row in archived.rows().values()) == 5
    check_nothing_is_lost(archived, portal)


def _resolve(path: str) -> Any:
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def _killing_after(owner: Any, name: str, call: int) -> Callable[..., Any]:
    """Return the original, which at its ``call``-th call does its work and then ends everything."""
    original, calls = getattr(owner, name), itertools.count(1)

    def killing(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if next(calls) == call:
            raise Killed
        return result

    return killing


def test_a_404_is_no_proof_that_a_recording_is_gone(archived: Archived, portal: Portal) -> None:
    portal.faults.append(fault.Status(operation="delete_recording", status=404))
    deletion = delete(archived)
    assert (deletion.deleted, deletion.already_gone, len(deletion.refused)) == (0, 0, 6)
    assert {row["status"] for row in archived.rows().values()} == {"archived"}
    portal.faults.clear()
    portal.deleted_recordings.add("call-vn-1-0-1")
    deletion = delete(archived)
    assert (deletion.deleted, deletion.already_gone) == (5, 1)


def test_each_deletion_is_sent_once_and_one_without_an_answer_is_told_of(archived: Archived, portal: Portal) -> None:
    portal.faults.append(fault.Status(operation="delete_recording", status=503, count=2))
    deletion = delete(archived)
    assert (deletion.deleted, len(deletion.refused)) == (4, 2)
    assert portal.counts["delete_recording"] == 6
    portal.faults[:] = [fault.Close(operation="delete_recording")]
    portal.counts.clear()
    assert delete(archived).deleted == 0
    assert portal.counts["delete_recording"] == 2


def test_an_api_that_stops_answering_ends_the_deletion(archived: Archived, portal: Portal) -> None:
    portal.faults.append(fault.Close(operation="delete_recording"))
    with pytest.raises(RetryableError):
        delete(archived)
    assert portal.counts["delete_recording"] == 5
