"""The raw copy gives back what was served, whatever that was, and adds nothing for what it has already."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sinks.raw import RawFile, RawWriter, json_line, publish_raw, raw_files, read_raw
from sinks.storage import Storage
from transforms.errors import DataError
from transforms.json_text import JsonValue, parse_json

START = datetime(2026, 1, 4, 17, tzinfo=UTC)
TEXT = st.text(st.characters(), max_size=20)
JSON: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def publish(storage: Storage, rows: list[JsonValue], read_at: datetime, folder: Path) -> RawFile:
    with RawWriter(folder / "raw.jsonl.zst") as writer:
        writer.add(rows)
    file = RawFile(START, START + timedelta(days=1), read_at, writer.content_hash, date(2026, 1, 5))
    return publish_raw(storage, writer, file)


@given(rows=st.lists(JSON, max_size=8), batch_rows=st.integers(1, 5))
@example(rows=[{"id": "\ud800", "n": 10**40, "zero": "\x00", "line": "a\nb\u2028"}], batch_rows=1)
def test_any_json_reads_back_as_it_was_served(rows: list[JsonValue], batch_rows: int) -> None:
    with TemporaryDirectory() as folder:
        storage = Storage(f"{folder}/lake")
        file = publish(storage, rows, START, Path(folder))
        batches = list(read_raw(storage, file, batch_rows))
        assert [row for batch in batches for row in batch] == rows
        assert all(0 < len(batch) <= batch_rows for batch in batches)


@given(row=JSON)
def test_a_row_is_one_line(row: JsonValue) -> None:
    assert b"\n" not in json_line(row)


@pytest.mark.parametrize(
    ("served", "kept"),
    [(b"1e400", "1e400"), (b"-1e400", "-1e400"), (b"NaN", "NaN"), (b"-Infinity", "-Infinity"), (b"9" * 30, 10**30 - 1)],
)
def test_a_number_that_has_no_double_survives(served: bytes, kept: JsonValue, tmp_path: Path) -> None:
    row = parse_json(b'{"n":' + served + b"}")
    storage = Storage(str(tmp_path / "lake"))
    file = publish(storage, [row], START, tmp_path)
    assert list(read_raw(storage, file, 10)) == [[{"n": kept}]]


@pytest.mark.parametrize("depth", [200, 300, 1000])
def test_a_deeply_nested_row_survives(depth: int, tmp_path: Path) -> None:
    row = parse_json(b"[" * depth + b"]" * depth)
    storage = Storage(str(tmp_path / "lake"))
    [[kept]] = read_raw(storage, publish(storage, [row], START, tmp_path), 10)
    for _ in range(depth - 1):
        assert isinstance(kept, list)
        [kept] = kept
    assert kept == []


def test_the_same_rows_in_another_order_add_no_file(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "lake"))
    first = publish(storage, [{"id": "a"}, {"id": "b"}], START, tmp_path)
    again = publish(storage, [{"id": "b"}, {"id": "a"}], START + timedelta(days=1), tmp_path)
    assert again == first
    assert raw_files(storage, date(2026, 1, 5)) == [first]


def test_each_state_of_a_window_is_kept_in_order(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "lake"))
    states: list[list[JsonValue]] = [[{"id": "a"}], [{"id": "a"}, {"id": "b"}], [{"id": "a"}]]
    files = [publish(storage, rows, START + timedelta(days=n), tmp_path) for n, rows in enumerate(states)]
    assert raw_files(storage, date(2026, 1, 5)) == files
    assert [next(read_raw(storage, file, 10)) for file in files] == states


def test_a_row_served_twice_is_another_content_than_once(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "lake"))
    once = publish(storage, [{"id": "a"}], START, tmp_path)
    twice = publish(storage, [{"id": "a"}, {"id": "a"}], START + timedelta(seconds=1), tmp_path)
    assert once.content_hash != twice.content_hash


def test_a_file_name_says_window_time_and_content(tmp_path: Path) -> None:
    file = RawFile(START, START + timedelta(hours=6), START + timedelta(milliseconds=7), "ab" * 16, date(2026, 1, 5))
    assert file.name == (
        "raw/call_date=2026-01-05/20260104T170000000Z--20260104T230000000Z.20260104T170000007Z."
        + "ab" * 16
        + ".jsonl.zst"
    )
    assert RawFile.parse(file.name) == file


@pytest.mark.parametrize("kept_bytes", [0, 10, -1])
def test_a_truncated_file_is_not_read_as_a_shorter_one(kept_bytes: int, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "lake"))
    file = publish(storage, [{"id": str(n)} for n in range(1000)], START, tmp_path)
    path = Path(storage.path(file.name))
    path.write_bytes(path.read_bytes()[:kept_bytes])
    with pytest.raises(DataError, match="20260104T170000000Z"):
        list(read_raw(storage, file, 100))
