"""Processes of their own on one account, against a portal that keeps its limits: no 429, and nothing left unused."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from pipelines.simulator import CREDENTIALS, Portal, PortalOptions, SimulatedPortal
from pipelines.stringeex.request_blocks import Priority
from tests.e2e.command import REPOSITORY, callhistory, callhistory_here, environment

LIMIT, BLOCK_SECONDS, THREADS = 30, 10, 3
FOUR = (Priority.EXPORT, Priority.BACKFILL, Priority.BACKFILL, Priority.VERIFY)
TWO = (Priority.EXPORT, Priority.BACKFILL)
WORK = f"""
import sys, threading
from pipelines.settings import load_settings
from pipelines.stringeex.request_blocks import Priority
from pipelines.stringeex.client import StringeeXClient

client = StringeeXClient(load_settings(None), priority=Priority[sys.argv[1]])

def work():
    while True:
        client.request("history", params={{"time": "1-2", "version": "2", "agent_id": sys.argv[1]}})

print("ready", flush=True)
for _ in range({THREADS}):
    threading.Thread(target=work).start()
"""
"""Asks for history until it is killed, with its priority's name in the query, where the portal's log shows it."""


@dataclass
class Account:
    """An account, its portal, whose clock is ahead of ours, and the processes at work on it."""

    portal: Portal
    seconds_ahead: float
    processes: list[tuple[Priority, subprocess.Popen[str]]] = field(default_factory=list)

    def start(self, priorities: Sequence[Priority], settings: dict[str, str]) -> None:
        for priority in priorities:
            command = [sys.executable, "-c", WORK, priority.name]
            process = subprocess.Popen(
                command, env=environment(settings), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
            )
            self.processes.append((priority, process))

    def wait_until_all_are_ready(self) -> None:
        for _, process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"

    def kill(self, *priorities: Priority) -> None:
        for priority, process in self.processes:
            if priority in priorities and process.returncode is None:
                process.kill()
                process.communicate()

    def block(self, instant: float) -> int:
        return int((instant + self.seconds_ahead) // BLOCK_SECONDS)

    def let_through(self) -> dict[int, Counter[str]]:
        """Requests by the portal's block and the priority of who sent them."""
        found: dict[int, Counter[str]] = defaultdict(Counter)
        for entry in list(self.portal.log):
            found[self.block(entry.at)][parse_qs(entry.query)["agent_id"][0]] += 1
        return found

    def wait_until_used_up(self, block: int) -> None:
        """Wait until the block has all of its requests, or is over."""
        while self.let_through()[block].total() < LIMIT and self.block(time.time()) <= block:
            time.sleep(0.05)


def with_limits(base_url: str, warehouse_url: str) -> dict[str, str]:
    return {
        "STRINGEEX_BASE_URL": base_url,
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
        "CALLHISTORY_WAREHOUSE_URL": warehouse_url,
    }


@contextmanager
def account_at_work(priorities: Sequence[Priority], warehouse_url: str, seconds_ahead: float) -> Iterator[Account]:
    portal = Portal(options=PortalOptions(), limits_clock=lambda: time.time() + seconds_ahead)
    account = Account(portal, seconds_ahead)
    with SimulatedPortal(portal) as server:
        account.start(priorities, with_limits(server.base_url, warehouse_url))
        try:
            yield account
        finally:
            account.kill(*Priority)


@pytest.mark.timeout(120)
def test_processes_use_up_every_block_and_the_export_goes_first(
    postgresql_url: Callable[[], str], tmp_path: Path
) -> None:
    """On a server, and beside a database file; with a portal whose clock is ahead of ours, and one that lags behind."""
    with ExitStack() as stack:
        on_server = stack.enter_context(account_at_work(FOUR, postgresql_url(), 0.1))
        beside_a_file = stack.enter_context(account_at_work(TWO, f"duckdb:///{tmp_path}/warehouse.duckdb", -0.1))
        accounts = (on_server, beside_a_file)
        for account in accounts:
            account.wait_until_all_are_ready()
        # In this block everybody comes to wait; what is left of it has to be long enough for that.
        crowded = int((time.time() + 4) // BLOCK_SECONDS)
        for account in accounts:
            account.wait_until_used_up(crowded + 1)
            account.kill(Priority.EXPORT)
        for account in accounts:
            account.wait_until_used_up(crowded + 2)
            account.kill(*Priority)
    for account in accounts:
        by_block = account.let_through()
        assert {entry.status for entry in account.portal.log} == {200}, "no 429"
        assert by_block[crowded + 1] == {"EXPORT": LIMIT}
        # The export died while it waited for this block.
        assert by_block[crowded + 2].total() == LIMIT
        assert by_block[crowded + 2]["BACKFILL"] > by_block[crowded + 2]["EXPORT"]


def test_what_a_person_asks_for_is_done_while_the_warehouse_is_down(tmp_path: Path) -> None:
    portal = Portal()
    portal.realtime_calls.append({"callId": "call-vn-1-LIVE000001-1", "startTime": int(time.time() * 1000)})
    with SimulatedPortal(portal) as server:
        settings = with_limits(server.base_url, "postgresql://nobody@127.0.0.1:1/nowhere")
        stopped = callhistory("calls", "stop", "call-vn-1-LIVE000001-1", "--yes", cwd=tmp_path, settings=settings)
        checked = callhistory_here("check", "--json", cwd=tmp_path, settings=settings)
        exported = callhistory_here("export", cwd=tmp_path, settings=settings)
    assert (stopped.exit_code, portal.counts["stop"]) == (0, 1)
    _, warning = stopped.stderr.splitlines()
    assert warning.startswith("counting requests in this process only: cannot open the postgresql database")
    assert [check["ok"] for check in checked.json["checks"] if check["name"] in ("credentials", "database")] == [
        True,
        False,
    ]
    assert exported.exit_code == 1
    assert portal.counts["history"] == 1, "the one of the check"
