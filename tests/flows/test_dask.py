"""Backfills by the worker processes of a Dask cluster, into PostgreSQL: same result, one budget, workers that die."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines import flows
from pipelines.context import open_pipeline, utc_now
from pipelines.export.run import plan_days, run_plans
from pipelines.settings import load_settings
from pipelines.simulator import Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import Hook
from pipelines.windows import day_bounds
from sinks.warehouse import Warehouse
from tests.flows.conftest import FIRST, LAST, PrefectServer, free_port, process_group, settings_for
from transforms.errors import SettingsError

NewDatabase = Callable[[], str]
ZONE = "Asia/Ho_Chi_Minh"
MANY_DAYS = 60
HISTORY_LIMIT, BLOCK_SECONDS = 30, 10


@dataclass
class Cluster:
    """A scheduler and its workers, each a process of its own."""

    address: str
    workers: list[subprocess.Popen[bytes]]

    def kill_a_worker(self) -> None:
        """Kill a worker, as the kernel does when memory runs out."""
        self.workers[0].send_signal(signal.SIGKILL)


@contextmanager
def cluster(
    server: PrefectServer, settings: dict[str, str], folder: Path, workers: int, threads: int
) -> Iterator[Cluster]:
    """Start a cluster as an operator does, on loopback."""
    address = f"tcp://127.0.0.1:{free_port()}"
    dask, port = [sys.executable, "-m", "dask"], address.rpartition(":")[2]
    scheduler = [*dask, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]
    worker = [*dask, "worker", address, "--no-nanny", "--nthreads", str(threads), "--no-dashboard"]
    surroundings = server.environment | {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "false"}
    with ExitStack() as stack:
        stack.enter_context(process_group(scheduler, surroundings, folder, folder / "scheduler.log"))
        started = []
        for number in range(workers):
            log = stack.enter_context((folder / f"worker-{number}.log").open("wb"))
            environment = surroundings | settings
            started.append(subprocess.Popen(worker, cwd=folder, env=environment, stdout=log, stderr=log))
            stack.callback(started[-1].wait, 20)
            stack.callback(started[-1].terminate)
        yield Cluster(address, started)


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Work with these settings, in a folder of their own; returns them."""

    def apply(base_url: str, name: str, **more: str) -> dict[str, str]:
        folder = tmp_path / name
        folder.mkdir()
        settings = settings_for(base_url, folder, **more)
        monkeypatch.chdir(folder)
        for setting, value in settings.items():
            monkeypatch.setenv(setting, value)
        return settings

    return apply


def proven(warehouse_url: str) -> tuple[list[tuple[int, str]], list[Any]]:
    """Return what the warehouse holds (start in milliseconds, call id), and the ledger's certificates."""
    with Warehouse(warehouse_url) as warehouse, warehouse.reading() as connection:
        calls, windows = warehouse.tables["calls"].c, warehouse.tables["export_windows"].c
        rows = connection.execute(sa.select(calls.started_at, calls.call_id)).tuples().all()
        ledger = connection.execute(sa.select(windows)).mappings().all()
    return sorted((round(started_at.timestamp() * 1000), call_id) for started_at, call_id in rows), list(ledger)


@pytest.mark.usefixtures("prefect_client")
def test_in_process_in_threads_and_on_dask_the_result_is_the_same(
    portal: SimulatedPortal, postgresql_url: NewDatabase, use: Callable[..., dict[str, str]]
) -> None:
    summaries, found = {}, {}
    for name in ("in process", "threads", "dask"):
        url = postgresql_url()
        use(portal.base_url, name, CALLHISTORY_WAREHOUSE_URL=url)
        if name == "in process":
            with open_pipeline(load_settings()) as pipeline:
                summaries[name] = run_plans(pipeline, plan_days(pipeline, FIRST, LAST, utc_now())).to_dict()
        else:
            summaries[name] = flows.run_backfill_flow(FIRST, LAST, dask="2" if name == "dask" else None)
        found[name], ledger = proven(url)
        assert {row["run_id"] for row in ledger} == {summaries[name].pop("run_id")}
        assert {row["claimed_by"] for row in ledger} == {None}
    assert summaries["in process"] == summaries["threads"] == summaries["dask"]
    assert found["in process"] == found["threads"] == found["dask"]
    assert len(found["dask"]) == summaries["dask"]["calls"] == 300


def test_sixty_days_by_two_workers_one_of_them_killed_half_way(
    prefect_server: PrefectServer,
    prefect_client: SyncPrefectClient,
    postgresql_url: NewDatabase,
    use: Callable[..., dict[str, str]],
    tmp_path: Path,
) -> None:
    first = date(2026, 1, 5)
    last = first + timedelta(days=MANY_DAYS - 1)
    portal = Portal(generate(3, first, MANY_DAYS, 7_200), PortalOptions(max_limit=100))
    requests_in_all = 110
    url = postgresql_url()
    with SimulatedPortal(portal) as server:
        settings = use(server.base_url, "lake", CALLHISTORY_WAREHOUSE_URL=url)
        with cluster(prefect_server, settings, tmp_path / "lake", workers=2, threads=3) as dask:
            portal.faults.append(Hook(after=requests_in_all // 2, count=1, action=lambda *_: dask.kill_a_worker()))
            summary = flows.run_backfill_flow(first, last, dask=dask.address)
            assert dask.workers[0].wait(10) == -signal.SIGKILL
            assert dask.workers[1].poll() is None
    assert summary["complete"]
    assert sum(summary["windows"].values()) == MANY_DAYS

    start, end = day_bounds(first, ZONE)[0], day_bounds(last, ZONE)[1]
    found, ledger = proven(url)
    assert found == sorted(portal.keys(int(start.timestamp() * 1000), int(end.timestamp() * 1000) - 1))
    assert len(ledger) == MANY_DAYS
    for row in ledger:
        assert row["status"] == "complete"
        assert row["claimed_by"] is None
        assert row["api_total"] == row["raw_rows"] == row["lake_rows"] + row["rejected"]
        assert (row["lake_rows"], row["content_hash"]) == (row["warehouse_rows"], row["warehouse_content_hash"])

    requests = [entry for entry in portal.log if entry.operation == "history"]
    assert [entry for entry in requests if entry.status == 429] == []
    blocks = Counter(int(entry.at // BLOCK_SECONDS) for entry in requests)
    assert max(blocks.values()) <= HISTORY_LIMIT
    assert len(requests) > 2 * HISTORY_LIMIT, "the budget was felt"


@pytest.mark.parametrize("dask", ["2", "tcp://127.0.0.1:1"])
@pytest.mark.parametrize("scheme", ["duckdb", "sqlite"])
def test_a_database_of_one_process_is_refused_in_favour_of_postgresql(
    scheme: str, dask: str, tmp_path: Path, use: Callable[..., dict[str, str]], prefect_client: SyncPrefectClient
) -> None:
    use("http://127.0.0.1:1", "lake", CALLHISTORY_WAREHOUSE_URL=f"{scheme}:///{tmp_path}/w")
    with pytest.raises(SettingsError, match=r"^--dask: .* PostgreSQL"):
        flows.run_backfill_flow(FIRST, LAST, dask=dask)
    assert not (tmp_path / "w").exists()


@pytest.mark.usefixtures("prefect_client")
def test_what_else_dask_needs_is_named(use: Callable[..., dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    use("http://127.0.0.1:1", "lake", CALLHISTORY_WAREHOUSE_URL="postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(SettingsError, match="'many': should be the address"):
        flows.run_backfill_flow(FIRST, LAST, dask="many")
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(SettingsError, match=r"^PREFECT_API_URL"),
    ):
        flows.run_backfill_flow(FIRST, LAST, dask="2")
    monkeypatch.setattr("pipelines.flows.runners.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"pip install 'callhistory\[dask\]'"):
        flows.run_backfill_flow(FIRST, LAST, dask="2")
