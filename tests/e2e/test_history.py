"""Reading windows from the simulated portal, over HTTP: exactly what is there, in as few requests as it takes."""

import json
import threading
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.simulator import NO_LIMITS, OddRows, Portal, PortalOptions
from pipelines.simulator import faults as fault
from pipelines.stringeex import history_part
from pipelines.stringeex.server_traits import ServerTraits
from tests.e2e.histories import DAY, START, START_MS, call, canonical, portal_of, read_all, reader_of, truth
from transforms.errors import ApiError, DataError, RetryableError

TIES = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 12)), max_size=12).map(
    lambda ties: [offset for offset, count in ties for _ in range(count)]
)


@settings(max_examples=40, deadline=None)
@given(
    offsets=TIES,
    max_limit=st.integers(1, 30),
    version_2=st.booleans(),
    refuses_ascending=st.booleans(),
    large_limit=st.sampled_from(["truncate", "refuse", "bad_request"]),
    wanted=st.sampled_from([None, 5, 7, 30]),
    at_end=st.sampled_from([[], None, "missing"]),
)
def test_any_ties_any_page_any_version(offsets, max_limit, version_2, refuses_ascending, large_limit, wanted, at_end):
    if large_limit != "truncate":
        max_limit = max(max_limit, wanted or 100)  # a portal that refuses 100 rows is not served
    portal = portal_of(
        offsets,
        max_limit=max_limit,
        supports_version_2=version_2,
        refuses_ascending=refuses_ascending,
        large_limit=large_limit,
        search_after_at_end=at_end,
    )
    with reader_of(portal, **({"STRINGEEX_PAGE_SIZE": str(wanted)} if wanted else {})) as reader:
        first, rows = read_all(reader)
        again, _ = read_all(reader)
    expected = truth(portal, 2 if version_2 else 1)
    assert canonical(rows) == canonical(expected)
    if not refuses_ascending:
        assert [row["start_time"] for row in rows] == [row["start_time"] for row in expected]
    page_size = min(max_limit, wanted or 1000)
    # Ten rows, the documented default, may be all that the server gives, as long as no larger page was seen.
    perhaps_all = len(offsets) == 10 and page_size > 10
    assert again.requests <= len(offsets) / page_size + 1 + perhaps_all
    assert again.repeated_rows == 0
    # Finding out costs one request for the order and one for the page size, once.
    discoveries = refuses_ascending + (not wanted and (large_limit != "truncate" or max_limit == 10))
    assert first.requests <= again.requests + discoveries
    assert portal.counts["history"] == first.requests + again.requests


@settings(max_examples=25, deadline=None)
@given(
    offsets=st.lists(st.integers(0, 400), max_size=60),
    cap=st.integers(5, 40),
    limit=st.integers(1, 12),
    version_2=st.booleans(),
    past_cap=st.sampled_from(["empty", "error"]),
)
def test_a_window_past_the_result_cap_is_split(offsets, cap, limit, version_2, past_cap):
    full_millisecond = max((offsets.count(offset) for offset in offsets), default=0) >= cap
    portal = portal_of(offsets, max_limit=limit, result_cap=cap, supports_version_2=version_2, past_result_cap=past_cap)
    with reader_of(portal, STRINGEEX_RESULT_CAP=str(cap), STRINGEEX_PAGE_SIZE=str(limit)) as reader:
        if full_millisecond:
            with pytest.raises(DataError, match="in one millisecond"):
                read_all(reader)
            return
        read, rows = read_all(reader)
    assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))
    assert [row["start_time"] for row in rows] == sorted(row["start_time"] for row in rows)
    assert read.parts > 1 or len(offsets) < cap


@dataclass(kw_only=True)
class NothingAfterRow(fault.Fault):
    """The count is exact, but nothing comes after row ``number`` of a query."""

    number: int

    def on_page(self, page, query, portal):
        past_it = portal.keys(query.start_ms, query.end_ms)[self.number - 1 :]
        return replace(page, rows=[]) if query.search_after in past_it else page


def test_a_keyset_reading_that_stops_at_the_cap_is_split_and_remembered():
    offsets = range(0, 95_000, 1000)
    portal = portal_of(offsets, max_limit=10)
    portal.faults.append(NothingAfterRow(number=40))
    with reader_of(portal, STRINGEEX_RESULT_CAP="40", STRINGEEX_PAGE_SIZE="10") as reader:
        read, rows = read_all(reader, end=START + timedelta(seconds=100))
        assert canonical(rows) == canonical(truth(portal))
        assert read.parts > 1
        assert reader.traits.keyset_capped
        learning = portal.counts["history"]
        read_all(reader, end=START + timedelta(seconds=100))
        assert portal.counts["history"] - learning < learning


def test_memory_is_bounded_by_reading_a_full_window_in_parts(monkeypatch):
    monkeypatch.setattr(history_part, "MAX_PART_ROWS", 50)
    portal = portal_of(range(0, 86_400_000, 400_000))
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
    assert rows == truth(portal)
    assert read.parts >= 4


def test_an_empty_window_is_one_request():
    with reader_of(portal_of([])) as reader:
        read, rows = read_all(reader)
    assert (rows, read.requests, read.parts) == ([], 1, 1)


def test_a_window_is_half_open():
    portal = portal_of([0, 999, 1000])
    with reader_of(portal) as reader:
        assert [row["start_time"] for row in read_all(reader, end=START + timedelta(seconds=1))[1]] == [
            START_MS,
            START_MS + 999,
        ]


@pytest.mark.parametrize("version_2", [True, False])
def test_what_was_found_out_is_kept_between_runs(version_2):
    portal = portal_of(
        range(250), large_limit="refuse", max_limit=100, supports_version_2=version_2, refuses_ascending=True
    )
    with reader_of(portal) as reader:
        assert read_all(reader)[0].requests == 3 + 2
        kept = json.loads(json.dumps(reader.traits.to_dict()))
    assert kept == {"refused_limit": 1000, "page_size": 100, "version_2": version_2, "ascending": False}
    with reader_of(portal, ServerTraits.from_dict(kept)) as reader:
        assert read_all(reader)[0].requests == 3
    assert ServerTraits.from_dict({"page_size": "many", "version_2": 1, "new": 1}).to_dict() == {}


def test_the_largest_page_that_the_server_honours_is_used():
    portal = portal_of(range(2600), max_limit=1000)
    with reader_of(portal) as reader:
        assert read_all(reader)[0].requests == 3
        assert reader.traits.page_size == 1000


def test_threads_find_out_once():
    portal = portal_of(range(250), large_limit="refuse", max_limit=100)
    with reader_of(portal) as reader:
        threads = [threading.Thread(target=lambda: read_all(reader)) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert portal.counts["history"] == 6 * 3 + 1


def test_the_answer_of_another_window_is_refused():
    portal = portal_of([*range(50), *range(90_000_000, 90_000_050)])
    portal.faults.append(fault.OtherWindow(shift_seconds=90_000))
    with reader_of(portal) as reader, pytest.raises(RetryableError, match="another window"):
        read_all(reader)
    portal = portal_of([*range(250), *range(90_000_000, 90_000_050)])
    portal.faults.append(fault.OtherWindow(shift_seconds=90_000, after=1))
    with reader_of(portal) as reader, pytest.raises(RetryableError, match=r"another window's \(all 50 rows of a page"):
        read_all(reader)


def test_odd_rows_are_passed_on_and_counted():
    portal = portal_of(range(60))
    odd = [{"start_time": START_MS + 7}, {"id": "", "start_time": None}, {"id": None}, {"id": 4711, "start_time": "x"}]
    odd += [{"id": "call-outside", "start_time": START_MS - 5_000_000}]
    for number, row in enumerate(odd):
        portal.add_call(row, start_ms=START_MS + number, call_id=f"index-{number}")
    with reader_of(portal, STRINGEEX_PAGE_SIZE="10") as reader:
        read = reader.read(START, START + DAY)
        rows = [row for page in read for row in page.rows]
    assert canonical(rows) == canonical(truth(portal))
    assert (read.api_total, read.kept_rows, read.outside_rows) == (65, 65, 1)


def test_a_portal_of_odd_rows_is_read_whole():
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS), odd_rows=OddRows(0.5, seed=2))
    for number in range(300):
        portal.add_call(call(number, number * 10))
    with reader_of(portal) as reader:
        read = reader.read(START, START + DAY)
        rows = [row for page in read for row in page.rows]
    assert len(rows) == read.api_total == 300


def test_a_refusal_names_the_endpoint_and_is_not_repeated():
    portal = portal_of(range(5))
    portal.faults.append(fault.Envelope(r=31, message="no such project"))
    with reader_of(portal, STRINGEEX_PAGE_SIZE="100") as reader, pytest.raises(ApiError, match="GET /v1/call/history"):
        read_all(reader)
    assert portal.counts["history"] == 1


def test_a_window_is_aware_and_not_empty():
    with reader_of(portal_of([])) as reader:
        for start, end in ((START, START), (START.replace(tzinfo=None), (START + DAY).replace(tzinfo=None))):
            with pytest.raises(ValueError, match="half-open"):
                reader.read(start, end)
