"""The lake: what a reader of the Parquet files sees, and that equal rows make equal bytes."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sinks.content_hash import content_hash
from sinks.parquet import ROW_GROUP_ROWS, Lake, LakeWriter
from sinks.storage import TEMPORARY_NAME, Storage
from transforms.errors import StorageError
from transforms.schema import CALLS

DAY = date(2026, 1, 5)
START = datetime(2026, 1, 4, 17, tzinfo=UTC)
END = START + timedelta(days=1)
NAME = "calls/call_date=2026-01-05/calls.parquet"


def calls(*hours: float, marker: str = "0") -> pa.Table:
    """Rows of the lake's schema, one per hour of the day given, in that order."""
    started = [START + timedelta(hours=hour) for hour in hours]
    values: dict[str, object] = {}
    for field in CALLS.lake_schema:
        if field.nullable:
            values[field.name] = [None] * len(hours)
        elif pa.types.is_timestamp(field.type):
            values[field.name] = started
        elif pa.types.is_string(field.type):
            values[field.name] = [f"{marker}-{hour:09.4f}" for hour in hours]
        else:
            values[field.name] = [7] * len(hours)
    values["row_hash"] = [f"{index:031x}{marker}" for index in range(len(hours))]
    values["contact_name"] = [f"Nguyễn Văn 🎧 {hour}" for hour in hours]
    return pa.table(values, schema=CALLS.lake_schema)  # type: ignore[arg-type]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Storage(str(tmp_path / "lake")), ZoneInfo("Asia/Ho_Chi_Minh"))


def write(
    lake: Lake,
    tmp_path: Path,
    *batches: pa.Table,
    start: datetime = START,
    end: datetime = END,
    whole_day: bool = True,
) -> bool:
    with LakeWriter(lake, CALLS, DAY, start, end, whole_day=whole_day, folder=tmp_path) as writer:
        for batch in batches:
            writer.write(batch)
        writer.finish()
        return writer.publish()


def hours_of(lake: Lake) -> list[float]:
    started = pq.read_table(lake.storage.path(NAME), columns=["started_at"], partitioning=None)["started_at"]
    return [(instant - START) / timedelta(hours=1) for instant in started.to_pylist()]


def test_a_day_reads_back_value_for_value(lake: Lake, tmp_path: Path) -> None:
    rows = calls(0, 1, 2.5)
    assert write(lake, tmp_path, rows)
    assert pq.read_table(lake.storage.path(NAME), partitioning=None).equals(rows)


def test_duckdb_and_pandas_read_the_day_from_the_folder_name(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0, 23.9))
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT call_date, count(*), max(started_at) AT TIME ZONE 'UTC', typeof(any_value(started_at)) "
            f"FROM read_parquet('{lake.storage.location}/calls/*/*.parquet') GROUP BY call_date"
        ).fetchall()
    assert found == [(DAY, 2, (START + timedelta(hours=23.9)).replace(tzinfo=None), "TIMESTAMP WITH TIME ZONE")]
    frame = pd.read_parquet(f"{lake.storage.location}/calls")
    assert frame["call_date"].astype(str).tolist() == ["2026-01-05"] * 2
    assert frame["started_at"].tolist() == [pd.Timestamp(START), pd.Timestamp(START + timedelta(hours=23.9))]


def test_the_file_is_what_other_readers_can_take(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0))
    file = pq.ParquetFile(lake.storage.path(NAME))
    started = file.schema.column(file.schema_arrow.get_field_index("started_at"))
    logical_type = json.loads(started.logical_type.to_json())
    assert (logical_type["timeUnit"], logical_type["isAdjustedToUTC"]) == ("milliseconds", True)
    assert {file.metadata.row_group(0).column(i).compression for i in range(file.metadata.num_columns)} == {"ZSTD"}
    assert "call_date" not in file.schema_arrow.names
    assert all(not pa.types.is_dictionary(f.type) and not pa.types.is_large_string(f.type) for f in file.schema_arrow)


def test_equal_rows_make_equal_bytes_however_they_come(lake: Lake, tmp_path: Path) -> None:
    rows = calls(*[n / 2000 for n in range(ROW_GROUP_ROWS + 5)])
    write(lake, tmp_path, rows)
    before = Path(lake.storage.path(NAME)).read_bytes()
    lake.storage.remove(NAME)
    write(lake, tmp_path, *[rows.slice(first, 1000) for first in range(0, rows.num_rows, 1000)])
    assert Path(lake.storage.path(NAME)).read_bytes() == before
    assert pq.ParquetFile(lake.storage.path(NAME)).num_row_groups == 2


def test_an_equal_day_is_not_written_again(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0, 1))
    path = Path(lake.storage.path(NAME))
    before = (path.stat().st_ino, path.stat().st_mtime_ns)
    assert not write(lake, tmp_path, calls(0, 1))
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
    assert write(lake, tmp_path, calls(0, 1, marker="1"))
    assert path.stat().st_ino != before[0]


def test_a_part_of_a_day_replaces_only_its_half_open_stretch(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0, 6, 11.999, 12, 23))
    six, twelve = START + timedelta(hours=6), START + timedelta(hours=12)
    write(lake, tmp_path, calls(7, 8, marker="1"), start=six, end=twelve, whole_day=False)
    assert hours_of(lake) == [0, 7, 8, 12, 23]
    write(lake, tmp_path, start=six, end=twelve, whole_day=False)
    assert hours_of(lake) == [0, 12, 23]


def test_a_day_without_calls_has_no_file(lake: Lake, tmp_path: Path) -> None:
    assert not write(lake, tmp_path)
    write(lake, tmp_path, calls(3))
    assert write(lake, tmp_path)
    assert not lake.storage.exists(NAME)
    assert lake.window_counts(DAY, START, END) == (0, content_hash([]))


def test_a_window_is_counted_from_the_file(lake: Lake, tmp_path: Path) -> None:
    rows = calls(0, 5, 6, 23)
    write(lake, tmp_path, rows)
    hashes = rows["row_hash"].to_pylist()
    assert lake.window_counts(DAY, START, END) == (4, content_hash(hashes))  # type: ignore[arg-type]
    six = START + timedelta(hours=6)
    assert lake.window_counts(DAY, START, six) == (2, content_hash(hashes[:2]))  # type: ignore[arg-type]


def test_a_reader_that_has_the_file_open_keeps_the_old_one(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0))
    with open(lake.storage.path(NAME), "rb") as reader:
        write(lake, tmp_path, calls(0, 1))
        assert pq.read_table(reader).num_rows == 1
    assert hours_of(lake) == [0, 1]


def test_what_a_killed_run_left_is_neither_read_nor_kept(lake: Lake, tmp_path: Path) -> None:
    write(lake, tmp_path, calls(0))
    leftover = Path(lake.storage.path(NAME)).parent / TEMPORARY_NAME
    leftover.write_bytes(b"half a file")
    assert lake.storage.names("calls", ".parquet") == [NAME]
    write(lake, tmp_path, calls(0, 1))
    assert not leftover.exists()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB; needs the right to mount, as in CI."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=64k tmpfs {folder}") != 0:
        if os.environ.get("CI"):
            pytest.fail("CI has to be allowed to mount a small file system")
        pytest.skip("not allowed to mount a small file system")
    try:
        yield folder
    finally:
        os.system(f"umount {folder}")


def test_a_full_disk_is_named_and_leaves_the_old_file(full_disk: Path, tmp_path: Path) -> None:
    storage = Storage(str(full_disk))
    small, large = tmp_path / "small.bin", tmp_path / "large.bin"
    small.write_bytes(b"old")
    large.write_bytes(os.urandom(1 << 20))
    storage.publish(small, "day/file")
    with pytest.raises(StorageError, match=r"day/file .*No space left on device"):
        storage.publish(large, "day/file")
    assert (full_disk / "day/file").read_bytes() == b"old"
    assert [path.name for path in (full_disk / "day").iterdir()] == ["file"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(StorageError, match=r"cannot write to .*file/lake.*Check the path"):
        Storage(str(in_the_way / "lake")).check_writable()


def test_an_unknown_kind_of_storage_is_named() -> None:
    with pytest.raises(StorageError, match="nowhere://"):
        Storage("nowhere://bucket/prefix")


def test_publishing_makes_the_file_durable_before_it_is_seen(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        synced.append("renamed")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write(lake, tmp_path, calls(0))
    assert synced == ["file", "renamed", "folder"]
