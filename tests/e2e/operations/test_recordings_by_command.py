"""Recordings, by the command: archived, verified, downloaded and deleted over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pipelines.simulator import CREDENTIALS, Portal
from pipelines.simulator.audio import recording
from tests.e2e.command import Finished, callhistory
from tests.e2e.operations.portals import CALL_ID, queried


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
