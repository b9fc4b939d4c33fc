"""The lake in a bucket: the same files as in a folder, and objects that are left alone when nothing has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from pipelines.settings import load_settings
from pipelines.simulator import Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.limits import NO_LIMITS
from sinks.storage import Storage
from tests.e2e.command import account
from tests.e2e.place import Place
from tests.exports import FIRST, Export, export_of, range_ms
from transforms.errors import StorageError
from transforms.person import Person

BUCKET = "exports"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """An S3 server on loopback, reached as users do: by AWS's own environment variables."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir(BUCKET)
    try:
        yield files
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def objects(bucket: s3fs.S3FileSystem) -> dict[str, tuple[str, object]]:
    found = bucket.find(f"{BUCKET}/lake", detail=True)
    return {name.removeprefix(f"{BUCKET}/lake/"): (info["ETag"], info["LastModified"]) for name, info in found.items()}


def test_a_lake_in_a_bucket_is_the_lake_in_a_folder(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    calls = generate(seed=21, start_date=FIRST, days=2, calls_total=500)
    last = FIRST.replace(day=FIRST.day + 1)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        overrides = account(
            server.base_url,
            CALLHISTORY_WAREHOUSE_URL=f"duckdb:///{tmp_path}/s3.duckdb",
            CALLHISTORY_LAKE_URL=f"s3://{BUCKET}/lake",
            CALLHISTORY_WINDOW="12h",
        )
        in_bucket = Export(load_settings(None, overrides=overrides))
        in_folder = export_of(server.base_url, f"duckdb:///{tmp_path}/w.duckdb", tmp_path, CALLHISTORY_WINDOW="12h")

        assert in_bucket.run(FIRST, last).is_complete
        in_folder.run(FIRST, last)

        before = objects(bucket)
        parquet = {name for name in before if name.endswith(".parquet")}
        assert parquet == {name for name in in_folder.files() if name.endswith(".parquet")}
        times = ["first_seen_at", "updated_at"]
        for name in parquet:
            theirs = pq.read_table(f"{BUCKET}/lake/{name}", filesystem=bucket, partitioning=None)
            ours = pq.read_table(tmp_path / "lake" / name, partitioning=None)
            kept = [column for column in ours.column_names if column not in times]
            assert theirs.select(kept).equals(ours.select(kept))

        assert in_bucket.run(FIRST, last, force=True).totals["files_written"] == 0
        assert objects(bucket) == before

        server.portal.remove_call(server.portal.rows(*range_ms(last, last))[0]["id"])
        assert in_bucket.run(FIRST, last, force=True).is_complete
        changed = {name for name, state in objects(bucket).items() if before.get(name) != state}
        assert {name.split("/")[1] for name in changed} == {f"call_date={last}"}


def test_a_bucket_that_is_not_there_is_named_before_any_window_starts(bucket: s3fs.S3FileSystem) -> None:
    with pytest.raises(StorageError, match="cannot write to s3://missing/lake"):
        Storage("s3://missing/lake").check_writable()


def test_somebody_is_erased_from_a_lake_and_an_archive_in_a_bucket(bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    calls = generate(seed=4, start_date=FIRST, days=1, calls_total=30, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    theirs = portal.rows(*range_ms(FIRST, FIRST))[3]["id"]
    portal.update_call(theirs, customer_number="84900000777", participants="agent_7;84900000777", recorded=1)
    settings = {
        "CALLHISTORY_LAKE_URL": f"s3://{BUCKET}/lake",
        "CALLHISTORY_ARCHIVE_URL": f"s3://{BUCKET}/recordings",
        "CALLHISTORY_PII_KEY": "a key of the tests, long enough",
        "STRINGEEX_RECORDINGS_PER_MINUTE": "0",
    }
    person = Person.named(number="84900000777", region="VN")

    def that_speak_of_them() -> list[str]:
        found = []
        for name in bucket.find(BUCKET):
            content = bucket.cat_file(name)
            if name.endswith(".zst"):
                content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
            elif name.endswith(".parquet"):
                content = str(pq.read_table(pa.BufferReader(content)).to_pylist()).encode()
            if person.is_in(content.decode("latin-1")):
                found.append(name)
        return found

    with SimulatedPortal(portal) as server:
        place = Place(server, tmp_path, f"duckdb:///{tmp_path}/s3.duckdb")
        assert place.run("backfill", "--from", str(FIRST), "--to", str(FIRST), **settings).exit_code == 0
        assert place.run("recordings", "archive", **settings).exit_code == 0
        assert len(that_speak_of_them()) == 4  # raw copy, two tables, and what lies beside the audio
        done = place.run("erase", "--customer-number", "0900000777", "--yes", "--json", **settings)
        assert (done.exit_code, done.json["left"]) == (0, {})
        assert that_speak_of_them() == []
        assert not [name for name in bucket.find(f"{BUCKET}/recordings") if theirs in name]
        assert place.run("verify", **settings).exit_code == 0
