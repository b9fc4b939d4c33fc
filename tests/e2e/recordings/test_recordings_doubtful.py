"""Audio that surprises: kept byte for byte, with what is odd about it in a column of its own."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest

from pipelines.simulator import Portal, SimulatedPortal
from pipelines.simulator.audio import CONTENT_TYPES, RecordingFormat, recording
from pipelines.stringeex.audio import Doubt
from sinks.recordings import Recordings
from tests.archives import Archived, archived_at
from tests.e2e.recordings.portals import START, add_call
from transforms.side_tables import RECORDINGS

CALL_ID = "call-vn-1-AAAAAAAAAA-1"


def check_kept(archived: Archived, audio: bytes, extension: str, doubt: str | None) -> dict[str, object]:
    """The one recording is there as it was served, proven, and its facts say the same as its row, which is returned."""
    (row,) = archived.rows().values()
    assert (row["status"], row["doubt"], row["last_error"]) == ("archived", doubt, None)
    assert (row["bytes"], row["sha256"]) == (len(audio), hashlib.sha256(audio).hexdigest())
    files = archived.files()
    assert row["archive_path"] == f"call_date=2026-01-05/{CALL_ID}.{extension}"
    assert files[row["archive_path"]] == audio
    assert json.loads(files[row["archive_path"] + ".json"])["doubt"] == doubt
    return row


@pytest.mark.parametrize("form", get_args(RecordingFormat))
def test_a_format_is_kept_whether_it_is_known_or_not(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, form: RecordingFormat
) -> None:
    add_call(portal)
    portal.options.recording_format = form
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    doubt = None if form in ("wav", "mp3", "3gp") else "unknown_format"
    summary = archived.run()
    assert (summary.archived, summary.doubtful, summary.is_complete) == (1, int(doubt is not None), True)
    row = check_kept(archived, recording(CALL_ID, 10, form), "bin" if form == "raw" else form, doubt)
    assert row["content_type"] == CONTENT_TYPES[form]
    assert row["duration_seconds"] == (10 if doubt is None else None)
    with archived.open() as stores:
        assert Recordings(stores.warehouse).count_doubtful() == (doubt is not None)


@pytest.mark.parametrize(("seconds", "doubt"), [(2, "shorter_than_talk"), (3_000, "longer_than_call")])
def test_a_length_that_does_not_go_with_the_call_is_kept(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, seconds: int, doubt: str
) -> None:
    add_call(portal, talk_duration=300, duration=310)
    portal.options.recording_seconds = seconds
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    assert archived.run().doubtful == 1
    row = check_kept(archived, recording(CALL_ID, seconds), "wav", doubt)
    assert row["duration_seconds"] == seconds
    portal.log.clear()
    assert archived.run(now=datetime.now(UTC) + timedelta(days=9)).requests == 0, "it is not fetched again and again"


def test_audio_that_stays_shorter_than_its_own_header_says_is_kept_at_the_third_attempt(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    portal.options.recording_share = 0.8
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    later = START + timedelta(days=30)
    for attempt in range(2):
        assert archived.run(now=later + timedelta(days=attempt)).failed == 1
        assert archived.files() == {}
    assert archived.run(now=later + timedelta(days=2)).is_complete
    audio = recording(CALL_ID, 10)
    check_kept(archived, audio[: round(len(audio) * 0.8)], "wav", "damaged")


def test_damaged_audio_of_a_new_call_waits_for_a_better_answer(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    portal.options.recording_share = 0.8
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    for minutes in (5, 60, 120, 300):
        assert archived.run(now=START + timedelta(minutes=minutes), again=True).failed == 1
    portal.options.recording_share = 1.0
    assert archived.run(now=START + timedelta(hours=9), again=True).is_complete
    check_kept(archived, recording(CALL_ID, 10), "wav", None)


def test_what_a_killed_run_had_published_keeps_its_doubt(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_call(portal)
    portal.options.recording_format = "raw"
    archived = archived_at(server.base_url, tmp_path)
    archived.export()

    def killed(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("sinks.recordings.Recordings.save", killed)
        with pytest.raises(MemoryError):
            archived.run()
    summary = archived.run()
    assert (summary.adopted, summary.doubtful, summary.requests) == (1, 1, 0)
    check_kept(archived, recording(CALL_ID, 10, "raw"), "bin", "unknown_format")


def test_the_table_explains_every_doubt() -> None:
    assert all(doubt in RECORDINGS["doubt"].description for doubt in Doubt)
