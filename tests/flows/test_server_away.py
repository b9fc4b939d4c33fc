"""The Prefect server goes away in mid-run: nothing is lost, and the end is told when it is back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import duckdb
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.simulator import SimulatedPortal
from pipelines.simulator.faults import Hook
from tests.flows.conftest import FIRST, LAST, free_port, server_at, serving, settings_for

AWAY_SECONDS = float(os.environ.get("CALLHISTORY_TEST_AWAY_SECONDS", "5"))


def test_a_server_that_was_away_learns_how_the_run_ended(
    portal: SimulatedPortal, prefect_database: Path, tmp_path: Path
) -> None:
    """``CALLHISTORY_TEST_AWAY_SECONDS=60`` keeps it away for a minute."""
    half_way, went_away = threading.Event(), threading.Event()

    def wait_for_the_outage(*_: Any) -> None:
        half_way.set()
        assert went_away.wait(60)

    portal.portal.options.max_limit = 10
    portal.portal.faults.append(Hook(after=15, count=1, action=wait_for_the_outage))
    server = server_at(tmp_path, free_port())
    shutil.copy(prefect_database, server.home)
    environment = server.environment | settings_for(portal.base_url, tmp_path, CALLHISTORY_CONCURRENCY="1")
    command = [
        sys.executable,
        "-m",
        "pipelines.cli.main",
        "backfill",
        "--from",
        str(FIRST),
        "--to",
        str(LAST),
        "--json",
    ]
    log = tmp_path / "backfill.log"
    with serving(server), log.open("wb") as stderr:
        run = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert half_way.wait(60), log.read_text()
    went_away.set()
    time.sleep(AWAY_SECONDS)
    assert run.poll() is None, log.read_text()
    with serving(server):
        output, _ = run.communicate(timeout=240)
        assert run.returncode == 0, log.read_text()
        with temporary_settings({PREFECT_API_URL: server.api_url}), get_client(sync_client=True) as client:
            [flow_run] = client.read_flow_runs()
            artifacts = {artifact.key for artifact in client.read_artifacts()}

    assert flow_run.state_type is StateType.COMPLETED
    assert {"callhistory-run-summary", "callhistory-coverage"} <= artifacts
    summary = json.loads(output)
    assert (summary["complete"], summary["calls"]) == (True, 300)
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.sql("SELECT epoch_ms(started_at), call_id FROM calls").fetchall()
        [attempts] = connection.sql("SELECT list(attempts) FROM export_windows").fetchall()
    assert sorted(found) == sorted(portal.portal.keys(0, 2**60))
    assert attempts == ([1, 1, 1],), "nothing had to be done twice"
