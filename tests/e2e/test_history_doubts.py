"""A history that contradicts itself: pages that repeat, rows that come and go, counts that lie, ids twice."""

import json
import tracemalloc
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.simulator import faults as fault
from pipelines.stringeex.server_traits import ServerTraits
from tests.e2e.histories import (
    DAY,
    START,
    START_MS,
    call,
    canonical,
    portal_of,
    read_all,
    read_any,
    reader_of,
    truth,
)


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
