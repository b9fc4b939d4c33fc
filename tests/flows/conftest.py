"""One Prefect server process for all tests of this folder, and a portal with settings that point to it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.logging.handlers import APILogHandler
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate

FIRST, LAST = date(2026, 1, 5), date(2026, 1, 7)

T = TypeVar("T")


def poll(read: Callable[[], T | None], what: str, timeout_seconds: float = 180) -> T:
    """Return the first answer of ``read`` that is true; fail when there is none in time.

    Prefect's server gives up waiting for a lock in SQLite after a minute, and then goes on.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if answer := read():
            return answer
        time.sleep(0.1)
    pytest.fail(f"waited {timeout_seconds} s in vain for {what}")


@contextmanager
def process_group(command: list[str], environment: dict[str, str], folder: Path, log: Path) -> Iterator[None]:
    """Run a command for the length of the block; at its end nothing that it started is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield
            assert process.poll() is None, f"{command} ended early: {log.read_text()[-2000:]}"
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(20)


@dataclass(frozen=True)
class PrefectServer:
    """A running server: how commands reach it, and all that it knows."""

    api_url: str
    home: Path
    environment: dict[str, str]

    def prefect(self, *arguments: str, folder: Path, **environment: str) -> str:
        """Run a ``prefect`` command in ``folder`` and return what it says; fail when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def dump(self) -> str:
        """Return everything that the server has stored: parameters, logs, artifacts, states, events."""
        with closing(sqlite3.connect(f"file:{self.home / 'prefect.db'}?mode=ro", uri=True)) as connection:
            return "\n".join(connection.iterdump())

    def stored_results(self) -> list[Path]:
        """Return the files of results that runs have persisted."""
        return [path for path in (self.home / "storage").rglob("*") if path.is_file()]


_CALL_IDS = re.compile(r"call-vn-\d+-\w+-\d+")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def server_at(home: Path, port: int) -> PrefectServer:
    """Return a server that keeps all it knows in ``home``; `serving` runs it."""
    api_url = f"http://127.0.0.1:{port}/api"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_UI_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        # A hundred runs ahead of every schedule are a load under which SQLite's one writer gets stuck.
        "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    return PrefectServer(api_url, home, environment)


@contextmanager
def serving(server: PrefectServer) -> Iterator[None]:
    """Run the server for the length of the block."""
    port = server.api_url.removesuffix("/api").rpartition(":")[2]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    log = server.home / "server.log"
    with process_group(command, server.environment, server.home, log), httpx.Client(trust_env=False) as http:

        def is_healthy() -> bool:
            try:
                return http.get(f"{server.api_url}/health").is_success
            except httpx.TransportError:
                return False

        poll(is_healthy, "the Prefect server")
        yield


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's database without a run in it, made once for all test processes: making it takes ten seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = folder / "prefect" / "prefect.db"
    with (folder / "prefect.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            server = server_at(folder / "prefect-in-the-making", 0)
            server.home.mkdir()
            server.prefect("server", "database", "upgrade", "--yes", folder=server.home)
            server.home.rename(made.parent)
    return made


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[PrefectServer]:
    server = server_at(tmp_path_factory.mktemp("prefect"), free_port())
    shutil.copy(prefect_database, server.home)
    with serving(server):
        yield server


@pytest.fixture
def prefect_client(prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A client; for as long as it is open, flows that are called in this process run against the server."""
    monkeypatch.setenv("DO_NOT_TRACK", "1")
    with (
        temporary_settings({PREFECT_API_URL: prefect_server.api_url, PREFECT_HOME: prefect_server.home}),
        get_client(sync_client=True) as client,
    ):
        yield client
        APILogHandler().flush()
    # Whatever a test was about: ids of calls, and with them what else is a customer's, stay away from the server.
    assert set(_CALL_IDS.findall(prefect_server.dump())) == set()


@pytest.fixture
def portal() -> Iterator[SimulatedPortal]:
    """A portal in this process with three past days, FIRST to LAST."""
    calls = generate(seed=7, start_date=FIRST, days=3, calls_total=300)
    with SimulatedPortal(Portal(calls, PortalOptions(max_limit=100, rate_limits=NO_LIMITS))) as server:
        yield server


def settings_for(base_url: str, folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of an export from a portal into a warehouse and a lake inside ``folder``."""
    return {
        "STRINGEEX_BASE_URL": base_url,
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
        "CALLHISTORY_WAREHOUSE_URL": f"duckdb:///{folder / 'warehouse.duckdb'}",
        "CALLHISTORY_LAKE_URL": str(folder / "lake"),
    } | more
