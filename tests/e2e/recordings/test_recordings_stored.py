"""Recordings in buckets and folders: large ones, in parts, and storage that fails."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
import wave
from pathlib import Path
from typing import Any

import pytest
import s3fs

from pipelines.simulator import Portal, SimulatedPortal
from sinks.storage import Storage
from tests.archives import archived_at, other_host, serve
from tests.e2e.recordings.portals import BUCKET, add_call
from transforms.errors import StorageError


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
