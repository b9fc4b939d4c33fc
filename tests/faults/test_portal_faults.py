"""A portal on its bad days: complete and correct, or disputed or failed and due again; never green and wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import stamina

from pipelines.export.run import RunSummary
from pipelines.export.window import Event, Outcome, Step
from pipelines.simulator import Fault, Portal, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.simulator.data_faults import DuplicateIds, FewerRows, FieldAs, OtherPortal, RenameField, SetField
from pipelines.simulator.wire import Request
from sinks.raw import raw_files, read_raw
from tests.exports import FIRST, assert_holds, expected, range_ms
from tests.faults import processes
from tests.faults.changes import whole_rows
from tests.faults.conftest import DAY_AFTER, LAST
from tests.faults.matrix import (
    DISPUTED_THEN_COMPLETE,
    FAILED_THEN_COMPLETE,
    HELD_THEN_COMPLETE,
    SURVIVED,
    Cell,
    databases_of,
    tried,
)
from tests.faults.sites import Site

PUBLISHED = ("calls", "call_participants", "call_versions", "rejected_rows")
BOTH_OVER = DAY_AFTER + (LAST - FIRST)
_FIRST_DAY_ONLY = f"{range_ms(FIRST, FIRST)[0]}-"


def first_day(request: Request) -> bool:
    return _FIRST_DAY_ONLY in str(request.query)


def later_page(request: Request) -> bool:
    return bool(request.parameters("search_after[]")) and first_day(request)


@dataclass(frozen=True)
class BadDay:
    """A fault, what the run may say of it, and settings that make it short."""

    make: Callable[[], Fault]
    outcome: str
    says: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    attempts: int = 3


def _grow(portal: Portal, _: Request) -> None:
    rows = whole_rows(portal)
    portal.add_call(rows[-1] | {"id": "call-vn-1-GROWN00000-1767600000000"})
    portal.add_call(rows[0] | {"id": "call-vn-1-GROWN00001-1767600000000"})


def _shrink(portal: Portal, _: Request) -> None:
    portal.remove_call(whole_rows(portal)[0]["id"])


def _clock(portal: Portal, _: Request) -> None:
    portal.clock.advance(-86_400 if portal.clock.now_ms() > BOTH_OVER.timestamp() * 1000 - 60_000 else 86_400)


BAD_DAYS = {
    "repeats": BadDay(lambda: fault.RepeatPage(when=later_page, count=1), SURVIVED),
    "larger-pages": BadDay(lambda: fault.LargerPages(when=first_day), SURVIVED, settings={"STRINGEEX_PAGE_SIZE": "20"}),
    "loops": BadDay(
        lambda: fault.LoopSearchAfter(when=first_day),
        DISPUTED_THEN_COMPLETE,
        "keeps serving the same page",
        {"STRINGEEX_PAGE_SIZE": "20"},
    ),
    "other-window": BadDay(
        lambda: fault.OtherWindow(when=first_day, shift_seconds=86_400),
        FAILED_THEN_COMPLETE,
        "the answer is another window's",
    ),
    "grows": BadDay(lambda: fault.Hook(when=later_page, count=1, action=_grow), SURVIVED),
    "shrinks": BadDay(lambda: fault.Hook(when=later_page, count=1, action=_shrink), SURVIVED),
    "ids-twice": BadDay(lambda: DuplicateIds(share=0.2), SURVIVED),
    "total-too-small": BadDay(lambda: fault.WrongTotal(offset=-3, when=first_day), DISPUTED_THEN_COMPLETE, "served"),
    "total-too-large": BadDay(lambda: fault.WrongTotal(offset=3, when=first_day), DISPUTED_THEN_COMPLETE, "served"),
    "total-ignores-window": BadDay(
        lambda: fault.WrongTotal(offset=3_000_000_000, when=first_day), DISPUTED_THEN_COMPLETE, "served"
    ),
    "blocks": BadDay(lambda: fault.RateLimited(retry_after="1", count=2, when=first_day), SURVIVED),
    "total-text": BadDay(lambda: fault.WrongTotal(form="text"), SURVIVED),
    "total-missing": BadDay(
        lambda: fault.WrongTotal(form="missing", when=first_day), DISPUTED_THEN_COMPLETE, "gives no usable count"
    ),
    "drops-rows": BadDay(lambda: fault.DropRows(when=first_day), DISPUTED_THEN_COMPLETE, "served"),
    "stalls": BadDay(
        lambda: fault.Stall(when=first_day, seconds_per_byte=0.05),
        FAILED_THEN_COMPLETE,
        "did not end in time",
        {"STRINGEEX_TIMEOUT_SECONDS": "0.2"},
        attempts=1,
    ),
    "stalls-head": BadDay(
        lambda: fault.StallHead(when=first_day, seconds_per_byte=0.05),
        FAILED_THEN_COMPLETE,
        "did not end in time",
        {"STRINGEEX_TIMEOUT_SECONDS": "0.2"},
        attempts=1,
    ),
    "continues": BadDay(
        lambda: fault.ContinueForever(when=first_day, seconds_between=0.05),
        FAILED_THEN_COMPLETE,
        "did not end in time",
        {"STRINGEEX_TIMEOUT_SECONDS": "0.2"},
        attempts=1,
    ),
    "cookie-bomb": BadDay(lambda: fault.CookieBomb(), SURVIVED),
    "clock": BadDay(lambda: fault.Hook(when=later_page, action=_clock), SURVIVED),
}


def run(place: Site, **options: Any) -> RunSummary:
    return place.export.run(FIRST, LAST, now=BOTH_OVER, **options)


def assert_never_green_with_rows_missing(portal: Portal, place: Site, summary: RunSummary) -> None:
    """What is called complete is; what is called disputed is what was served; what failed has moved nothing."""
    in_warehouse = [row["call_date"] for row in processes.tables_of(place.export.settings)["calls"]]
    for result in summary.results:
        day = result.window.call_date
        if result.outcome is Outcome.COMPLETE:
            assert_holds_day(portal, place, day)
        elif result.outcome is Outcome.DISPUTED:
            assert day in in_warehouse
            assert result.error is not None
        else:
            assert day not in in_warehouse
            assert result.error is not None


def assert_holds_day(portal: Portal, place: Site, day: date) -> None:
    wanted, _, _ = expected(portal.rows(*range_ms(day, day)), day, day)
    rows = [row for row in processes.tables_of(place.export.settings)["calls"] if row["call_date"] == day]
    live = sorted((row["call_id"], row["row_hash"]) for row in rows if row["deleted_at"] is None)
    assert live == sorted(zip(wanted["call_id"], wanted["row_hash"], strict=True))


def assert_mended(portal: Portal, place: Site) -> None:
    portal.faults.clear()
    portal.clock.set(BOTH_OVER)
    assert run(place, force=True).is_complete
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)


@pytest.mark.parametrize(("name", "database"), tried(*(f"portal-{name}" for name in BAD_DAYS)), indirect=["database"])
def test_a_bad_day(name: str, portal: Portal, place: Site, cell: Cell) -> None:
    bad = BAD_DAYS[name.removeprefix("portal-")]
    place.more.update(bad.settings)
    striking = bad.make()
    portal.faults.append(striking)
    with stamina.set_testing(True, attempts=bad.attempts, cap=True):
        summary = run(place)
    assert striking.fired
    assert summary.is_complete == (bad.outcome == SURVIVED), [result.error for result in summary.results]
    if not summary.is_complete:
        is_disputed = bad.outcome == DISPUTED_THEN_COMPLETE
        [undone] = summary.with_outcome(Outcome.DISPUTED if is_disputed else Outcome.FAILED)
        assert bad.says in str(undone.error)
    portal.faults.clear()
    portal.clock.set(BOTH_OVER)
    if name not in ("portal-grows", "portal-shrinks", "portal-ids-twice"):  # there, what is true has changed since
        assert_never_green_with_rows_missing(portal, place, summary)
    place.more.pop("STRINGEEX_TIMEOUT_SECONDS", None)
    assert_mended(portal, place)
    cell(name, place.database, bad.outcome)


HELD_DAYS: dict[str, Callable[[], Fault]] = {
    "portal-field-renamed": lambda: RenameField(field="status", to="state"),
    "portal-unreadable": lambda: SetField(field="duration", value="00:05:00"),
    "portal-mostly-gone": lambda: FewerRows(keep=5),
    "portal-another-portal": lambda: OtherPortal(seed=9),
}


@pytest.mark.parametrize(("name", "database"), tried(*HELD_DAYS), indirect=["database"])
def test_a_day_that_is_held(name: str, portal: Portal, place: Site, cell: Cell) -> None:
    assert run(place).is_complete
    published = {name: rows for name, rows in processes.tables_of(place.export.settings).items() if name in PUBLISHED}
    files = processes.files_below(place.data / "lake" / "calls")
    portal.faults.append(HELD_DAYS[name]())
    summary = run(place, force=True)
    assert [result.outcome for result in summary.results] == [Outcome.HELD, Outcome.HELD]
    tables = processes.tables_of(place.export.settings)
    assert {name: tables[name] for name in PUBLISHED} == published
    assert processes.files_below(place.data / "lake" / "calls") == files
    portal.faults.clear()
    mended = run(place)
    assert [str(result.due) for result in mended.results] == ["disputed", "disputed"]
    assert_mended(portal, place)
    cell(name, place.database, HELD_THEN_COMPLETE)


def test_it_dies_between_pages(portal: Portal, portal_server: SimulatedPortal, place: Site, cell: Cell) -> None:
    died: list[Step] = []

    def die(event: Event) -> None:
        if event.step is Step.PAGE_READ and not died:
            died.append(event.step)
            portal_server.stop()

    summary = run(place, on_event=die)
    assert not summary.is_complete
    portal_server.start()
    assert_never_green_with_rows_missing(portal, place, summary)
    assert_mended(portal, place)
    cell("portal-dies", place.database, FAILED_THEN_COMPLETE)


@contextmanager
def another_host() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that notes the headers of every request it gets."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            """Keep quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://localhost:{server.server_address[1]}/v1/call/history", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("database", databases_of("portal-redirects"), indirect=True)
def test_it_redirects_to_another_host_which_sees_nothing(portal: Portal, place: Site, cell: Cell) -> None:
    with another_host() as (location, seen):
        portal.faults.append(fault.Redirect(location=location, when=first_day))
        summary = run(place)
    assert seen == []
    [failed] = summary.with_outcome(Outcome.FAILED)
    assert "redirected to host localhost" in str(failed.error)
    assert_never_green_with_rows_missing(portal, place, summary)
    assert_mended(portal, place)
    cell("portal-redirects", place.database, FAILED_THEN_COMPLETE)


HUGE: dict[str, tuple[Callable[[], Fault], str]] = {
    "huge-page": (lambda: fault.HugePage(megabytes=200, when=first_day), "larger than 64 MiB"),
    "gzip-bomb": (lambda: fault.GzipBomb(megabytes=400, when=first_day), "larger than 64 MiB"),
}
MEMORY_GROWTH_BYTES = 250 * 1024 * 1024
"""What a run may take: two answers of at most 64 MiB being read at once, each copied once, and the export itself."""


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("database", databases_of(*(f"portal-{name}" for name in HUGE)), indirect=True)
def test_huge_answers_take_bounded_memory(name: str, portal: Portal, place: Site, cell: Cell) -> None:
    make, says = HUGE[name]
    portal.faults.append(make())
    job = processes.Job(place.overrides, place.folder, FIRST, LAST, "huge", BOTH_OVER)
    summary, growth_bytes = processes.start(processes.export_and_weigh, job, temporary=place.temporary).result()
    [failed] = summary.with_outcome(Outcome.FAILED)
    assert says in str(failed.error)
    assert growth_bytes < MEMORY_GROWTH_BYTES
    portal.faults.clear()
    assert_never_green_with_rows_missing(portal, place, summary)
    assert_mended(portal, place)
    cell(f"portal-{name}", place.database, FAILED_THEN_COMPLETE)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("database", databases_of("clock-forward", "clock-backward"), indirect=True)
def test_the_machines_clock_jumps(direction: str, portal: Portal, place: Site, cell: Cell) -> None:
    """By a day, between two steps; forward, it is right again the next time, and backward, it stays so for a while."""
    forward = direction == "forward"
    now = [BOTH_OVER]

    def run_at(instant: datetime, jump_to: datetime | None = None, *, force: bool = True) -> RunSummary:
        now[0] = instant

        def jump(event: Event) -> None:
            if event.step is Step.BEGUN and jump_to is not None:
                now[0] = jump_to

        def clock() -> datetime:
            now[0] += timedelta(seconds=1)
            return now[0]

        summary = place.export.run(FIRST, LAST, now=instant, on_event=jump, clock=clock, force=force)
        assert summary.is_complete
        return summary

    a_day, a_minute = timedelta(days=1), timedelta(minutes=1)
    run_at(BOTH_OVER, BOTH_OVER + a_day if forward else None)
    for number in range(3):
        portal.update_call(whole_rows(portal)[number]["id"], contactname=f"Võ Văn {number}")
        if number == 2:  # as it was at first
            portal.update_call(whole_rows(portal)[0]["id"], contactname="Võ Văn Không")
        later = BOTH_OVER + (number + 1) * a_minute
        summary = run_at(later) if forward else run_at(later, later - a_day)
        assert summary.totals["calls_updated"] == (2 if number == 2 else 1)
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)

    versions = processes.tables_of(place.export.settings)["call_versions"]
    assert len(versions) == 4
    assert all(row["superseded_at"] > row["updated_at"] for row in versions)
    with place.export.open() as pipeline:
        assert not any(row.settled or row.claimed_by for row in pipeline.ledger.rows())
        states = [raw_files(pipeline.lake.storage, day) for day in (FIRST, LAST)]
        served = portal.rows(*range_ms(FIRST, FIRST))
        assert [row for batch in read_raw(pipeline.lake.storage, states[0][-1], 1_000) for row in batch] == served
    assert [len(files) for files in states] == [4, 1]

    files = processes.files_below(place.data / "lake")
    assert run_at(BOTH_OVER + 5 * a_minute).totals["files_written"] == 0
    assert processes.files_below(place.data / "lake") == files
    due_again = run_at(BOTH_OVER + 2 * a_day, force=False)
    assert [str(result.due) for result in due_again.results] == ["reread", "reread"]
    cell(f"clock-{direction}", place.database, SURVIVED)


def test_a_byte_that_is_no_utf8_costs_no_call(portal: Portal, place: Site, cell: Cell) -> None:
    portal.faults.append(FieldAs(field="account_name", form="invalid_utf8"))
    assert run(place).is_complete
    wanted, _, _ = expected(portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)
    rows = processes.tables_of(place.export.settings)["calls"]
    assert sorted(row["call_id"] for row in rows) == sorted(wanted["call_id"])
    assert any("\ufffd" in (row["agent_name"] or "") and "\\udcff" in row["extra"] for row in rows)
    assert_mended(portal, place)
    cell("portal-no-utf8", place.database, SURVIVED)
