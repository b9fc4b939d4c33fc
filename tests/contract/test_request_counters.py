"""The shared counts of requests, on every database: one row that any number of processes change in turn."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.stringeex.request_budget import Block, Priority, RequestBudget
from sinks.request_counters import RequestCounters
from sinks.warehouse import Warehouse
from tests import databases
from transforms.errors import StorageError
from transforms.schema import REQUEST_BUDGET, TABLES

API = "api.example.com"
CHANGES = 150
ADD = """
import sys
from sinks.request_counters import RequestCounters
counters = RequestCounters(sys.argv[1], None, sys.argv[2])
for _ in range(int(sys.argv[3])):
    counters.change(lambda state, now: ((state or 0) + 1, None))
counters.close()
"""


@contextmanager
def opened(url: str, api: str = API, schema: str | None = None) -> Iterator[RequestCounters[Any]]:
    counters: RequestCounters[Any] = RequestCounters(url, schema, api)
    try:
        yield counters
    finally:
        counters.close()


def look(state: Any, now: float) -> tuple[Any, tuple[Any, float]]:
    return state, (state, now)


def test_what_one_leaves_the_other_finds(warehouse_url: str) -> None:
    """Without anything being there before, and by one clock."""
    before = datetime.now(UTC).timestamp()
    with opened(warehouse_url) as one, opened(warehouse_url) as other, opened(warehouse_url, "elsewhere") as apart:
        assert one.change(lambda state, now: ({"taken": 1, "until": 1.5}, state)) is None
        state, now = other.change(look)
        assert state == {"taken": 1, "until": 1.5}
        # The server runs on this machine, so that its clock is this one's.
        assert before - 0.001 <= now <= datetime.now(UTC).timestamp()
        assert apart.change(lambda state, _: ({}, state)) is None


def test_several_processes_at_once_lose_no_change(warehouse_url: str) -> None:
    """All begin where there is no table, no file and no row."""
    command = [sys.executable, "-c", ADD, warehouse_url, API, str(CHANGES)]
    root = Path(__file__).parents[2]
    processes = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    with opened(warehouse_url) as counters:
        assert counters.change(look)[0] == 2 * CHANGES


def test_what_fails_changes_nothing(warehouse_url: str) -> None:
    def fail(state: int | None, now: float) -> tuple[int, None]:
        raise ZeroDivisionError

    with opened(warehouse_url) as counters:
        counters.change(lambda state, now: (1, None))
        with pytest.raises(ZeroDivisionError):
            counters.change(fail)
        assert counters.change(look)[0] == 1


def test_threads_of_several_budgets_never_overdraw_a_block(warehouse_url: str) -> None:
    """Through the budget: a block of an hour lets its number of requests through and not one more."""
    block = Block(3600, 40)
    stopped = threading.Event()
    with opened(warehouse_url) as one, opened(warehouse_url) as other:
        budgets = [RequestBudget([block], counters=counters) for counters in (one, other)]
        waiting = threading.Semaphore(0)

        def wait(_: threading.Event, seconds: float) -> None:
            waiting.release()
            stopped.wait(60)

        for budget in budgets:
            budget._wait = wait

        def work(budget: RequestBudget) -> None:
            while not stopped.is_set():
                try:
                    budget.acquire("history", stopped)
                except Exception:
                    assert stopped.is_set()
                    return

        threads = [threading.Thread(target=work, args=(budget,)) for budget in budgets for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in threads:
            assert waiting.acquire(timeout=60)
        stopped.set()
        for thread in threads:
            thread.join(60)
    # Should the hour end meanwhile, the next one may be used up as well.
    assert sum(sum(budget.counts().values()) for budget in budgets) in (40, 80)


def test_an_embedded_database_keeps_them_beside_it_and_a_server_inside(warehouse_url: str, tmp_path: Path) -> None:
    with opened(warehouse_url) as counters:
        counters.change(lambda state, now: ({}, None))
    with Warehouse(warehouse_url) as warehouse:
        beside = [path.name for path in tmp_path.iterdir()]
        if warehouse.is_embedded:
            assert beside == [f"warehouse.{warehouse.name}.requests.sqlite"]
            return
        assert beside == []
        warehouse.prepare()
        with warehouse.reading() as connection:
            assert set(sa.inspect(connection).get_table_names()) == {
                REQUEST_BUDGET.name,
                *(table.name for table in TABLES),
            }


def test_they_lie_in_the_schema_that_the_tables_lie_in(postgresql_url: Callable[[], str]) -> None:
    url = postgresql_url()
    with opened(url, schema="telephony") as counters, opened(url) as elsewhere:
        counters.change(lambda state, now: (1, None))
        assert elsewhere.change(look)[0] is None
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT state FROM telephony.request_budget")) == "1"


def test_a_server_that_is_not_there_is_named_and_a_person_goes_on_without_it(
    postgresql_server: databases.Server, caplog: pytest.LogCaptureFixture
) -> None:
    url = sa.make_url(postgresql_server.url_of("warehouse_that_is_not_there")).render_as_string(hide_password=False)
    with opened(url) as counters:
        block = Block(3600, 2)
        with pytest.raises(StorageError, match="cannot open the postgresql database"):
            RequestBudget([block], counters=counters).acquire("stop")
        person = RequestBudget([block], counters=counters, priority=Priority.INTERACTIVE)
        assert [person.acquire("stop") for _ in range(2)] == [pytest.approx(0, abs=60)] * 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
