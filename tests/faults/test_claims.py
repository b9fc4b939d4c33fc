"""Two processes on one range: each window once, nobody waits for long, nobody fails, and no dead one keeps a day."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import stamina

from pipelines.export.progress import Event
from pipelines.export.run import RunSummary, plan_days
from pipelines.export.window import Outcome, Step
from pipelines.simulator import Portal
from sinks.ledger import ClaimedDay, Ledger, WindowStatus, attempt_of
from sinks.parquet import Lake
from sinks.warehouse import Warehouse
from tests.exports import FIRST, assert_holds, range_ms
from tests.faults import processes
from tests.faults.changes import change
from tests.faults.conftest import DAY_AFTER, LAST
from tests.faults.matrix import SURVIVED, Cell
from tests.faults.processes import Job
from tests.faults.sites import Site, cut_connections
from transforms.errors import BusyError, ClaimLostError, StorageError
from transforms.schema import CALL_PARTICIPANTS, CALLS, Table

BOTH_OVER = DAY_AFTER + (LAST - FIRST)


def job(place: Site, run_id: str, *, force: bool = False) -> Job:
    return Job(place.overrides, place.folder, FIRST, LAST, run_id, BOTH_OVER, force)


@pytest.mark.parametrize("both_force", [False, True], ids=["export and backfill", "two forced backfills"])
def test_two_at_once_do_each_window_once(both_force: bool, portal: Portal, place: Site, cell: Cell) -> None:
    place.more["CALLHISTORY_WINDOW"] = "12h"
    if both_force:
        place.export.run(FIRST, LAST, now=BOTH_OVER - timedelta(minutes=20))
    together = processes.barrier(2)
    running = [
        processes.start(
            processes.export_together, job(place, name, force=both_force), together, temporary=place.folder / name
        )
        for name in ("one", "other")
    ]
    (one, one_steps), (other, other_steps) = (process.result() for process in running)

    assert one.is_complete
    assert other.is_complete
    committed = sorted(window for step, window in one_steps + other_steps if step == Step.COMMITTED)
    assert len(committed) == 4
    assert committed == sorted(set(committed))
    fetched = [window for step, window in one_steps + other_steps if step == Step.FETCHED]
    assert len(fetched) == 4
    with place.export.open() as pipeline:
        assert all(row.claimed_by is None for row in pipeline.ledger.rows())
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)
    cell("two-at-once", place.database, SURVIVED)


def wait_until_it_stands_still(process_id: int) -> None:
    deadline = time.monotonic() + 60
    while "State:\tT" not in Path(f"/proc/{process_id}/status").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def outcomes(summary: RunSummary) -> list[Outcome]:
    return [result.outcome for result in summary.results]


def test_one_that_stood_still_for_longer_than_its_lease_publishes_nothing(
    portal: Portal, place: Site, cell: Cell
) -> None:
    stalled_job = Job(place.overrides, place.folder, FIRST, FIRST, "stalled", DAY_AFTER)
    stalled = processes.start(processes.export_and_stand_still, stalled_job, Step.FETCHED, temporary=place.temporary)
    assert stalled.process.pid is not None
    wait_until_it_stands_still(stalled.process.pid)
    try:
        left_alone = place.export.run(FIRST, FIRST, now=DAY_AFTER)
        assert outcomes(left_alone) == [Outcome.CLAIMED_ELSEWHERE]
        assert left_alone.requests == 0

        processes.expire_claims(place.export.settings, "stalled")
        some_call = next(row["id"] for row in portal.rows(*range_ms(FIRST, FIRST)) if isinstance(row["id"], str))
        portal.update_call(some_call, contactname="Lê Văn Sau")
        assert outcomes(place.export.run(FIRST, FIRST, now=DAY_AFTER)) == [Outcome.COMPLETE]
        before = processes.tables_of(place.export.settings), processes.files_below(place.data)
    finally:
        os.kill(stalled.process.pid, signal.SIGCONT)
    assert outcomes(stalled.result()) == [Outcome.DONE_ELSEWHERE]

    after = processes.tables_of(place.export.settings), processes.files_below(place.data)
    assert after[0] == before[0]
    assert {n: f for n, f in after[1].items() if n.startswith("lake/")} == {
        n: f for n, f in before[1].items() if n.startswith("lake/")
    }
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    cell("stalled", place.database, SURVIVED)


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_one_that_stood_still_and_lost_its_session_wrote_its_old_file_over_the_newer_one(
    portal: Portal, place: Site
) -> None:
    """A first export, which asks the database nothing more before it swaps its files in."""
    stalled_job = Job(place.overrides, place.folder, FIRST, FIRST, "stalled", DAY_AFTER, force=True)
    change(portal, 1)
    stalled = processes.start(processes.export_and_stand_still, stalled_job, Step.MERGED, temporary=place.temporary)
    assert stalled.process.pid is not None
    wait_until_it_stands_still(stalled.process.pid)
    try:
        cut_connections(place)
        processes.expire_claims(place.export.settings, "stalled")
        change(portal, 2)
        assert outcomes(place.export.run(FIRST, FIRST, now=DAY_AFTER, force=True)) == [Outcome.COMPLETE]
        before = processes.tables_of(place.export.settings), processes.files_below(place.data / "lake")
    finally:
        os.kill(stalled.process.pid, signal.SIGCONT)
    with suppress(processes.ExportError):
        assert outcomes(stalled.result()) != [Outcome.COMPLETE]

    assert (processes.tables_of(place.export.settings), processes.files_below(place.data / "lake")) == before
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)


@pytest.mark.parametrize("table", [CALLS, CALL_PARTICIPANTS], ids=lambda table: table.name)
def test_a_lake_file_that_is_not_the_certified_one_stayed_unnoticed(table: Table, portal: Portal, place: Site) -> None:
    """An older file put back, by a process that came late or by a person: the ledger says otherwise."""
    assert place.export.run(FIRST, LAST, now=BOTH_OVER).is_complete
    file = place.data / "lake" / Lake.file_name(table, FIRST)
    old = file.read_bytes()
    change(portal, 1)
    change(portal, 2)
    assert place.export.run(FIRST, LAST, now=BOTH_OVER, force=True).is_complete
    newest = file.read_bytes()
    assert newest != old
    file.write_bytes(old)

    again = place.export.run(FIRST, LAST, now=BOTH_OVER)
    assert [(result.window.call_date, str(result.due)) for result in again.results] == [(FIRST, "altered")]
    assert again.is_complete
    assert file.read_bytes() == newest
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)
    assert place.export.run(FIRST, LAST, now=BOTH_OVER).results == []


def test_a_stalled_run_does_not_mark_a_window_failed_that_another_has_completed(portal: Portal, place: Site) -> None:
    with place.export.open() as pipeline:
        assert outcomes(place.export.run(FIRST, FIRST, now=DAY_AFTER)) == [Outcome.COMPLETE]
        [row] = pipeline.ledger.rows(FIRST, FIRST)
        stalled = ClaimedDay(FIRST, row.window_start, row.window_end, attempt_of("stalled"))
        pipeline.ledger.fail(stalled, row.window_start, "too late")
        [row] = pipeline.ledger.rows(FIRST, FIRST)
    assert row.status is WindowStatus.COMPLETE


def test_a_claim_from_the_future_does_not_keep_a_day(place: Site) -> None:
    """The clock that the lease was taken by has been set back since: by a day, say."""
    dead = Job(place.overrides, place.folder, FIRST, FIRST, "dead", DAY_AFTER)
    processes.start(processes.export_and_die, dead, Step.FETCHED, temporary=place.temporary).result()
    assert outcomes(place.export.run(FIRST, FIRST, now=DAY_AFTER)) == [Outcome.CLAIMED_ELSEWHERE]
    with Warehouse(place.warehouse_url) as warehouse, warehouse.transaction() as connection:
        windows = warehouse.tables["export_windows"]
        tomorrow = warehouse.utc_now(connection) + (LAST - FIRST)
        connection.execute(sa.update(windows).values(claim_expires_at=tomorrow))
    assert outcomes(place.export.run(FIRST, FIRST, now=DAY_AFTER)) == [Outcome.COMPLETE]


def test_the_run_after_a_crash_takes_its_days_over_and_ends_complete(portal: Portal, place: Site) -> None:
    """A killed run still holds its day, for as long as its lease lasts: the next run waits for that, and does it."""
    place.export.run(FIRST + timedelta(days=1), LAST, now=BOTH_OVER)
    dead = Job(place.overrides, place.folder, FIRST, FIRST, "dead", DAY_AFTER)
    processes.start(processes.export_and_die, dead, Step.FETCHED, temporary=place.temporary).result()
    processes.expire_claims(place.export.settings, "dead", after=timedelta(seconds=2))

    again = place.export.run(FIRST, LAST, now=BOTH_OVER, patience=timedelta(seconds=30))
    assert [result.outcome for result in again.results if result.window.call_date == FIRST] == [Outcome.COMPLETE]
    assert again.is_complete
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)


def test_a_run_waits_for_what_another_that_is_alive_is_at_work_on(portal: Portal, place: Site) -> None:
    """It costs no request, and counts as done by the other."""
    slow = Job(place.overrides, place.folder, FIRST, FIRST, "slow", DAY_AFTER)
    held = processes.start(processes.export_and_stand_still, slow, Step.FETCHED, temporary=place.temporary)
    assert held.process.pid is not None
    wait_until_it_stands_still(held.process.pid)
    # The two wait for each other's turns at a database file.
    with stamina.set_testing(False), ThreadPoolExecutor(1) as pool:
        run = pool.submit(place.export.run, FIRST, FIRST, now=DAY_AFTER, patience=timedelta(seconds=60))
        try:
            with pytest.raises(TimeoutError):
                run.result(timeout=0.5)
        finally:
            os.kill(held.process.pid, signal.SIGCONT)
        summary = run.result()
    assert outcomes(held.result()) == [Outcome.COMPLETE]
    assert outcomes(summary) == [Outcome.DONE_ELSEWHERE]
    assert (summary.is_complete, summary.requests) == (True, 0)
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)


def test_the_heartbeat_of_a_claim_ended_with_the_first_error_that_did_not_say_try_again(
    portal: Portal, place: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    errors: list[Exception] = [
        StorageError("the disk of the database is full"),
        sa.exc.OperationalError("UPDATE", {}, Exception("secret-of-the-driver")),
        StorageError("the disk of the database is full"),
        BusyError("the database is held by another process"),
        ValueError("secret-of-a-row"),
    ]
    renew_claim, renewed = Ledger.renew_claim, threading.Event()

    def renew(ledger: Ledger, day: ClaimedDay, lease: timedelta) -> bool:
        if errors:
            raise errors.pop(0)
        is_ours = renew_claim(ledger, day, lease)
        renewed.set()
        return is_ours

    monkeypatch.setattr(Ledger, "renew_claim", renew)

    def wait_for_a_renewal(event: Event) -> None:
        if event.step is Step.FETCHED:
            assert renewed.wait(60)

    summary = place.export.run(FIRST, FIRST, now=DAY_AFTER, on_event=wait_for_a_renewal, lease=timedelta(seconds=2))
    assert outcomes(summary) == [Outcome.COMPLETE]
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"the claim on {FIRST} was not renewed, trying again: {reason}"
        for reason in (
            "the disk of the database is full",
            "OperationalError",
            "the database is held by another process",
            "ValueError",
        )
    ]


def test_another_attempt_of_the_same_run_takes_the_day_over_at_once(place: Site) -> None:
    """A scheduler that has lost a worker has another one do its day; the first publishes nothing more."""
    lease = timedelta(minutes=2)
    with place.export.open() as pipeline:
        [day] = plan_days(pipeline, FIRST, FIRST, DAY_AFTER)
        first, second, other = (
            ClaimedDay(FIRST, day.lock_start, day.lock_end, attempt_of(run)) for run in ("run-1", "run-1", "run-11")
        )
        assert pipeline.ledger.claim_day(first, day.windows, lease) is not None
        assert pipeline.ledger.claim_day(other, day.windows, lease) is None
        assert pipeline.ledger.claim_day(second, day.windows, lease) is not None
        assert not pipeline.ledger.renew_claim(first, lease)
        with pytest.raises(ClaimLostError), pipeline.warehouse.transaction() as connection:
            pipeline.ledger.check_claim(connection, first)
        pipeline.ledger.release_day(first)
        assert pipeline.ledger.renew_claim(second, lease)

        pipeline.ledger.release_run("run-11")
        assert pipeline.ledger.renew_claim(second, lease)
        pipeline.ledger.release_run("run-1")
        assert not pipeline.ledger.renew_claim(second, lease)
        assert pipeline.ledger.claim_day(other, day.windows, lease) is not None
