"""A portal with a call that is over and one in progress, and two doors: the command and the class."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pytest

from pipelines.cli.main import main
from pipelines.settings import load_settings
from pipelines.simulator import Portal, PortalOptions, SimulatedPortal
from pipelines.simulator.limits import NO_LIMITS
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.operations import StringeeX
from pipelines.stringeex.request_budget import RequestBudget
from tests.e2e.command import Finished, account, environment
from tests.e2e.operations.portals import CALL_ID, live_call


@pytest.fixture
def portal() -> Portal:
    """A portal with one recorded call of 5 January 2026, and one call in progress."""
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    start_ms = int(datetime(2026, 1, 5, 3, tzinfo=UTC).timestamp() * 1000)
    row = {
        "id": CALL_ID, "start_time": start_ms, "end_time": start_ms + 12_000, "duration": 12, "talk_duration": 10,
        "recorded": 1, "direction": 1, "status": 1,
    }  # fmt: skip
    portal.add_call(row)
    portal.realtime_calls.append(live_call())
    return portal


@pytest.fixture
def server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server
        assert server.errors == []


@pytest.fixture
def settings(server: SimulatedPortal) -> dict[str, str]:
    return account(server.base_url, STRINGEEX_RECORDINGS_PER_MINUTE="0")


@pytest.fixture
def run(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The command, from its arguments to its exit code, in this process: a new one takes a second to start."""
    monkeypatch.chdir(tmp_path)
    terminate = signal.getsignal(signal.SIGTERM)

    def run(*arguments: str, stdin: TextIO | None = None, **overrides: str) -> Finished:
        capfd.readouterr()
        with monkeypatch.context() as patch, open(os.devnull) as nobody:
            for name in set(os.environ) - set(wanted := environment(settings | overrides)):
                patch.delenv(name)
            for name, value in wanted.items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["callhistory", *arguments])
            patch.setattr("sys.stdin", stdin or nobody)
            with pytest.raises(SystemExit) as ended:
                main()
        signal.signal(signal.SIGTERM, terminate)
        shown = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return Finished(ended.value.code, shown.out, shown.err)

    return run


@pytest.fixture
def connect(server: SimulatedPortal) -> Callable[..., Any]:
    @contextmanager
    def connect(**overrides: str) -> Iterator[StringeeX]:
        settings = load_settings(None, overrides=account(server.base_url, **overrides))
        with StringeeXClient(settings, budget=RequestBudget([])) as client:
            yield StringeeX(client)

    return connect
