"""Reading windows from the simulated portal, over HTTP: exactly what is there, in as few requests as it takes."""

import contextlib
import json
import threading
import tracemalloc
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, OddRows, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.stringeex import history_part
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.history import HistoryReader
from pipelines.stringeex.history_part import ReadAgainError
from pipelines.stringeex.request_budget import RequestBudget
from pipelines.stringeex.server_traits import ServerTraits
from transforms.errors import ApiError, DataError, RetryableError

START = datetime(2026, 1, 5, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
DAY = timedelta(days=1)
MOST_READS = 5
"""A reader that learns something each time would never end."""
AT_ONCE = RetryPolicy(wait_initial_seconds=0, wait_max_seconds=0, wait_jitter_seconds=0)


def call(number, offset_ms):
    start_ms = START_MS + offset_ms
    return {"id": f"call-vn-1-{number:010d}-{start_ms}", "start_time": start_ms, "duration": number}


def portal_of(offsets, **options):
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS, **options))
    for number, offset_ms in enumerate(offsets):
        portal.add_call(call(number, offset_ms))
    return portal


@contextlib.contextmanager
def reader_of(portal, traits=None, **overrides):
    with SimulatedPortal(portal) as server:
        given = {
            "STRINGEEX_BASE_URL": server.base_url,
            "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
            "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
            **overrides,
        }
        with StringeeXClient(load_settings(None, overrides=given), budget=RequestBudget([]), retry=AT_ONCE) as client:
            yield HistoryReader(client, traits=traits)


def read_any(reader, start=START, end=START + DAY):
    """Read a window as a caller does, again at once where something was learnt. Returns the read and its rows."""
    for _ in range(MOST_READS):
        read = reader.read(start, end)
        with contextlib.suppress(ReadAgainError):
            rows = [row for page in read for row in page.rows]
            assert read.kept_rows == len(rows)
            return read, rows
    raise AssertionError(f"something new was learnt in each of {MOST_READS} reads")


def read_all(reader, start=START, end=START + DAY):
    """Read a window that is proven."""
    read, rows = read_any(reader, start, end)
    assert read.dispute is None
    assert read.api_total == len(rows)
    return read, rows


def truth(portal, version=2, start_ms=START_MS, end_ms=START_MS + 86_400_000):
    return portal.rows(start_ms, end_ms - 1, version)


def canonical(rows):
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


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


@pytest.mark.parametrize("version_2", [True, False])
def test_a_repeated_page_is_dropped(version_2):
    portal = portal_of(range(450), supports_version_2=version_2)
    portal.faults.append(fault.RepeatPage(after=2, count=1))
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
    assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))
    assert (read.repeated_rows, read.requests) == (100, 6)


def test_a_repeated_page_of_rows_without_ids_is_dropped():
    portal = portal_of([])
    for number in range(250):
        portal.add_call({"start_time": START_MS + number}, start_ms=START_MS + number, call_id=f"index-{number:03d}")
    portal.faults.append(fault.RepeatPage(after=2, count=1))
    with reader_of(portal) as reader:
        read = reader.read(START, START + DAY)
        assert canonical(row for page in read for row in page.rows) == canonical(truth(portal))
        assert read.repeated_rows == 100


@pytest.mark.parametrize(
    ("version_2", "looping"),
    [(True, fault.LoopSearchAfter()), (True, fault.RepeatPage(after=1)), (False, fault.RepeatPage(after=1))],
)
def test_a_page_that_repeats_forever_ends_in_a_dispute_with_what_came(version_2, looping):
    portal = portal_of(range(450), supports_version_2=version_2)
    portal.faults.append(looping)
    with reader_of(portal) as reader:
        read, rows = read_any(reader)
    assert "same page" in read.dispute
    assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1)[: len(rows)])
    assert 100 <= len(rows) <= 200
    assert portal.counts["history"] <= 4


def arrivals(portal, *, at_request, **changes):
    def change(portal, request):
        for action, value in changes.items():
            getattr(portal, action)(**value)

    portal.faults.append(fault.Hook(after=at_request, count=1, action=change))


@pytest.mark.parametrize("version_2", [True, False])
def test_a_row_that_arrives_behind_the_reader_is_noticed(version_2):
    portal = portal_of(range(100, 450), supports_version_2=version_2)
    arrivals(portal, at_request=2, add_call={"row": call(9999, 5)})
    with reader_of(portal) as reader:
        assert "counts 351 calls" in read_any(reader)[0].dispute
        assert canonical(read_all(reader)[1]) == canonical(truth(portal, 2 if version_2 else 1))


@pytest.mark.parametrize("version_2", [True, False])
def test_a_row_that_arrives_ahead_of_the_reader_is_read(version_2):
    portal = portal_of(range(100, 450), supports_version_2=version_2)
    arrivals(portal, at_request=2, add_call={"row": call(9999, 5000)})
    with reader_of(portal) as reader:
        assert canonical(read_all(reader)[1]) == canonical(truth(portal, 2 if version_2 else 1))


@pytest.mark.parametrize("version_2", [True, False])
def test_a_row_that_goes_away_is_noticed(version_2):
    portal = portal_of(range(100, 450), supports_version_2=version_2)
    arrivals(portal, at_request=2, remove_call={"call_id": call(5, 105)["id"]})
    with reader_of(portal) as reader:
        assert read_any(reader)[0].dispute is not None
        assert canonical(read_all(reader)[1]) == canonical(truth(portal, 2 if version_2 else 1))


@pytest.mark.parametrize("offset", [-1, 1, -100, 50])
@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize("rows", [200, 250])
def test_a_wrong_count_never_passes_and_withholds_no_row(offset, version_2, rows):
    portal = portal_of(range(rows), supports_version_2=version_2)
    portal.faults.append(fault.WrongTotal(offset=offset))
    with reader_of(portal) as reader:
        read, found = read_any(reader)
    assert read.api_total == rows + offset
    assert f"counts {rows + offset} calls, and served {rows}" in read.dispute
    assert canonical(found) == canonical(truth(portal, 2 if version_2 else 1))


@pytest.mark.parametrize("version_2", [True, False])
def test_a_count_as_text_is_read_and_a_missing_one_proves_nothing(version_2):
    portal = portal_of(range(250), supports_version_2=version_2)
    portal.faults.append(fault.WrongTotal(form="text"))
    with reader_of(portal) as reader:
        assert read_all(reader)[0].api_total == 250
        for form in ("null", "missing"):
            portal.faults[:] = [fault.WrongTotal(form=form)]
            read, rows = read_any(reader)
            assert read.api_total is None
            assert "no usable count, and served 250" in read.dispute
            assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))


def double(portal, number, at_ms=None, **fields):
    """One more row of the id of call ``number``, under an index key of its own."""
    row = call(number, number) | fields
    start_ms = row["start_time"] if at_ms is None else START_MS + at_ms
    portal.add_call(row | {"start_time": start_ms}, call_id=f"double-{number}-{start_ms}")


@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize("at_ms", [5, 6, 99, 100, 249], ids="at {}".format)
@pytest.mark.parametrize("fields", [{}, {"duration": 4711}], ids=["equal", "unequal"])
def test_an_id_that_the_portal_holds_twice_comes_twice(version_2, at_ms, fields):
    portal = portal_of(range(250), supports_version_2=version_2)
    double(portal, 5, at_ms, **fields)
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
    assert read.api_total == 251
    assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))


@settings(max_examples=60, deadline=None)
@given(
    offsets=st.lists(st.integers(0, 60), max_size=40),
    doubles=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 60)), max_size=8, unique=True),
    limit=st.integers(2, 12),
    version_2=st.booleans(),
    repeat_after=st.none() | st.integers(0, 4),
)
def test_any_portal_with_doubles_gives_what_it_holds_or_a_dispute(offsets, doubles, limit, version_2, repeat_after):
    portal = portal_of(offsets, max_limit=limit, supports_version_2=version_2)
    for number, at_ms in doubles:
        if number < len(offsets):
            double(portal, number, at_ms)
    if repeat_after is not None:
        portal.faults.append(fault.RepeatPage(after=repeat_after, count=1))
    held = canonical(truth(portal, 2 if version_2 else 1))
    with reader_of(portal, STRINGEEX_PAGE_SIZE=str(limit)) as reader:
        read, rows = read_any(reader)
    if read.dispute is None:
        assert canonical(rows) == held
    assert {row["id"] for row in rows} == {json.loads(row)["id"] for row in held}
    assert repeat_after is not None or read.dispute is None


def test_a_keyset_that_skips_a_double_at_the_border_of_two_pages_is_asked_with_other_borders():
    portal = portal_of(range(30), max_limit=10)
    portal.add_call(call(9, 9), call_id=call(9, 9)["id"] + "~")  # in the index right behind the row that it repeats
    portal.faults.append(SkipsDouble())
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
    assert read.api_total == 31
    assert canonical(rows) == canonical(truth(portal))


@dataclass(kw_only=True)
class SkipsDouble(fault.Fault):
    """Rows of the id that the page before has ended with are not served: their key is not greater."""

    def on_page(self, page, query, portal):
        if query.search_after is None:
            return page
        ended_with = query.search_after[1].removesuffix("~")
        return replace(page, rows=[row for row in page.rows if json.loads(row)["id"] != ended_with])


@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize("total", [40_000, 3_000_000_000])
def test_a_count_that_ignores_the_window_costs_few_requests_and_no_memory(version_2, total):
    portal = portal_of(range(0, 86_400_000, 250_000), supports_version_2=version_2)
    portal.faults.append(fault.WrongTotal(offset=total))
    with reader_of(portal) as reader:
        tracemalloc.start()
        read, rows = read_any(reader)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "counts" in read.dispute
    assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))
    assert portal.counts["history"] <= 30  # three readings, each with a look at the halves
    assert peak_bytes < 20_000_000


@pytest.mark.parametrize("version_2", [True, False])
@pytest.mark.parametrize("past", ["error", "refused", "empty"])
def test_a_page_depth_that_nobody_told_of_is_learnt_once(version_2, past):
    portal = portal_of(range(0, 86_400_000, 72_000), supports_version_2=version_2, result_cap=500, past_result_cap=past)
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
        assert canonical(rows) == canonical(truth(portal, 2 if version_2 else 1))
        assert read.parts > 1
        kept = json.loads(json.dumps(reader.traits.to_dict()))
        learning = portal.counts["history"]
    assert kept.get("result_cap", 500) == 500
    with reader_of(portal, ServerTraits.from_dict(kept)) as reader:
        assert canonical(read_all(reader)[1]) == canonical(rows)
    assert portal.counts["history"] - learning < learning


def test_rows_left_out_are_noticed():
    portal = portal_of(range(250))
    portal.faults.append(fault.DropRows(rows=2, count=1, after=1))
    with reader_of(portal) as reader:
        assert "counts 250 calls, and served 248" in read_any(reader)[0].dispute


def test_a_short_page_is_not_the_end_in_page_numbers():
    portal = portal_of(range(450), supports_version_2=False)
    for page in ("2", "3"):
        portal.faults.append(
            fault.DropRows(rows=30, count=1, when=lambda request, page=page: request.parameter("page") == page)
        )
    with reader_of(portal) as reader:
        read, rows = read_all(reader)
    assert canonical(rows) == canonical(truth(portal, 1))
    assert read.requests == 5 + 2


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
