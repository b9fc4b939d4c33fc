"""Servers that die, connections that are cut, deadlocks and locks that last: undone as a whole, complete afterwards."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
import stamina

from pipelines.export.run import RunSummary
from pipelines.export.window import Event, Outcome, Step
from pipelines.simulator import Portal
from sinks.warehouse import Warehouse
from tests.exports import FIRST, assert_holds, range_ms
from tests.faults import processes
from tests.faults.changes import change
from tests.faults.conftest import DAY_AFTER
from tests.faults.matrix import FAILED_THEN_COMPLETE, SURVIVED, Cell
from tests.faults.sites import EMBEDDED, Site, cut_connections
from transforms.errors import BusyError

servers_only = pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)


def run(place: Site, at: Step | None = None, strike: Callable[[], object] = lambda: None) -> RunSummary:
    """Read the first day again, with a blow the first time that a step is done."""
    struck: list[Step] = []

    def on_event(event: Event) -> None:
        if event.step is at and not struck:
            struck.append(event.step)
            strike()

    summary = place.export.run(FIRST, FIRST, now=DAY_AFTER, force=True, on_event=on_event)
    assert struck or at is None
    return summary


def assert_failed(summary: RunSummary, reason: str) -> None:
    [result] = summary.results
    assert result.outcome is Outcome.FAILED
    assert result.may_succeed_later
    assert result.error is not None
    assert reason in result.error


def assert_recovers(portal: Portal, place: Site, before: list[dict[str, Any]]) -> None:
    """Nothing of what was cut off is seen, and the next run is complete."""
    assert calls_of(place) == before
    processes.expire_claims(place.export.settings)
    again = place.export.run(FIRST, FIRST, now=DAY_AFTER)
    assert [result.outcome for result in again.results] == [Outcome.COMPLETE]
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)


def calls_of(place: Site) -> list[dict[str, Any]]:
    return processes.tables_of(place.export.settings)["calls"]


@pytest.fixture
def exported(portal: Portal, place: Site) -> Site:
    """A place to which the first day was exported before it changed."""
    run(place)
    change(portal, 5)
    return place


@servers_only
def test_the_server_dies_in_mid_commit_and_comes_back(portal: Portal, exported: Site, cell: Cell) -> None:
    server = exported.server
    assert server is not None
    before = calls_of(exported)

    def restart() -> None:
        server.kill()
        server.start()

    assert_failed(run(exported, Step.CERTIFIED, restart), "closed the connection")
    assert_recovers(portal, exported, before)
    cell("server-restarted", exported.database, FAILED_THEN_COMPLETE)


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
@servers_only
def test_the_server_dies_in_mid_commit_and_stays_away(portal: Portal, exported: Site, cell: Cell) -> None:
    server = exported.server
    assert server is not None
    before = calls_of(exported)
    try:
        with pytest.raises(BusyError, match="closed the connection") as caught:
            run(exported, Step.CERTIFIED, server.kill)
        assert "\n" not in str(caught.value)
    finally:
        server.start()
    del caught
    gc.collect()  # here, and not in a later test: PyMySQL leaves a socket open that it cannot connect
    assert_recovers(portal, exported, before)
    cell("server-gone", exported.database, FAILED_THEN_COMPLETE)


@servers_only
@pytest.mark.parametrize("at", [Step.RAW_PUBLISHED, Step.STAGED, Step.MERGED, Step.CERTIFIED])
def test_the_connection_is_cut(at: Step, portal: Portal, exported: Site, cell: Cell) -> None:
    before = calls_of(exported)
    assert_failed(run(exported, at, lambda: cut_connections(exported)), "closed the connection")
    assert_recovers(portal, exported, before)
    cell("connection-cut", exported.database, FAILED_THEN_COMPLETE)


@servers_only
def test_a_deadlock_is_lost(portal: Portal, exported: Site, cell: Cell) -> None:
    """Another transaction has changed the calls and now wants the ledger; this one has the ledger and wants a call."""
    before = calls_of(exported)
    with Warehouse(exported.warehouse_url) as warehouse:
        calls, windows = warehouse.tables["calls"], warehouse.tables["export_windows"]
        engine = sa.create_engine(exported.warehouse_url, poolclass=sa.pool.NullPool)
        with engine.connect() as other:
            if exported.database == "postgresql":
                # Whoever has waited for that long looks for a deadlock, and gives up if it finds one.
                other.exec_driver_sql("SET deadlock_timeout = '60s'")
            else:
                # The smaller transaction gives up.
                other.exec_driver_sql("CREATE TABLE ballast (number INT) ENGINE = InnoDB")
                other.exec_driver_sql("INSERT INTO ballast SELECT seq FROM seq_1_to_10000")
            other.execute(sa.update(calls).values(contact_name="held"))

            def want_the_ledger() -> None:
                other.execute(sa.update(windows).values(error="held"))
                other.rollback()

            wanting = threading.Thread(target=want_the_ledger)
            summary = run(exported, Step.STAGED, wanting.start)
            wanting.join()
    assert_failed(summary, "is busy")
    assert_recovers(portal, exported, before)
    cell("deadlock", exported.database, FAILED_THEN_COMPLETE)


@contextmanager
def held(place: Site, release: threading.Event | Any) -> Iterator[Callable[[], None]]:
    """Give a function that has another process hold the database's calls until ``release`` is set."""
    holding: list[processes.Running] = []

    def hold() -> None:
        taken = processes.event()
        holding.append(
            processes.start(processes.hold_calls, place.warehouse_url, taken, release, temporary=place.temporary)
        )
        assert taken.wait(60)

    yield hold
    release.set()
    for running in holding:
        running.result()


def test_another_process_holds_the_rows_for_a_while(portal: Portal, exported: Site, cell: Cell) -> None:
    release = processes.event()
    with stamina.set_testing(False), held(exported, release) as hold:

        def hold_a_moment() -> None:
            hold()
            threading.Timer(0.5, release.set).start()

        assert run(exported, Step.FETCHED, hold_a_moment).is_complete
    assert_holds(exported.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    cell("lock-short", exported.database, SURVIVED)


def test_another_process_holds_the_rows_for_too_long(
    portal: Portal, exported: Site, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = calls_of(exported)
    release = processes.event()
    with monkeypatch.context() as patched, stamina.set_testing(False), held(exported, release) as hold:
        patched.setattr("pipelines.context.Warehouse", partial(Warehouse, busy_timeout_seconds=1))
        try:
            assert_failed(run(exported, Step.FETCHED, hold), "is busy")
        except BusyError as error:
            if exported.database not in EMBEDDED or "is busy" not in str(error):  # there, the ledger is held too
                raise
    assert_recovers(portal, exported, before)
    cell("lock-long", exported.database, FAILED_THEN_COMPLETE)
