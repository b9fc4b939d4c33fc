"""The flows against a real Prefect server: same result as in-process, retries, honest states, nothing leaked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import duckdb
import pyarrow.parquet as pq
import pytest
import stamina
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, StateType, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines import flows
from pipelines.context import open_pipeline, utc_now
from pipelines.export.run import plan_days, run_plans
from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import Envelope, FewerRows, Hook, Status
from pipelines.simulator.wire import Request
from pipelines.windows import day_windows
from tests.flows.conftest import FIRST, LAST, PrefectServer, free_port, poll, settings_for
from transforms.errors import AuthenticationError, SettingsError

MIDDLE = date(2026, 1, 6)
WRONG_SECRET = "not-the-secret-of-this-portal"
TIMEZONE = "Asia/Ho_Chi_Minh"
BOOKKEEPING = {
    "calls": {"first_seen_at", "updated_at"},
    "call_participants": set[str](),
    "rejected_rows": {"first_seen_at", "last_seen_at"},
    "export_windows": {"started_at", "completed_at", "run_id"},
}


@pytest.fixture
def environment(portal: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in settings_for(portal.base_url, tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every read is tried once, so that what is seen to try again is Prefect; and it does so at once."""
    monkeypatch.setattr(flows.export_local_days, "retry_delay_seconds", [0.0, 0.0])
    with stamina.set_testing(True, attempts=1):
        yield


def latest_run(client: SyncPrefectClient) -> FlowRun:
    backfills = FlowFilter(name=FlowFilterName(any_=["backfill_calls"]))
    return client.read_flow_runs(flow_filter=backfills, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def task_runs(client: SyncPrefectClient, flow_run: FlowRun, count: int) -> dict[str, TaskRun]:
    """Return a run's tasks by name; the server learns of them from events, a little later."""

    def read() -> list[TaskRun] | None:
        found = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.id])))
        return found if len(found) == count and all(t.state and t.state.is_final() for t in found) else None

    return {task_run.name: task_run for task_run in poll(read, "the task runs' final states")}


def tables(folder: Path) -> dict[str, list[tuple[Any, ...]]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        found = {}
        for table, bookkeeping in BOOKKEEPING.items():
            relation = connection.sql(f"SELECT * FROM {table}")
            columns = ", ".join(column for column in relation.columns if column not in bookkeeping)
            found[table] = connection.sql(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()
        return found


def lake(folder: Path) -> dict[str, list[dict[str, Any]]]:
    files = sorted((folder / "lake").rglob("*.parquet"))
    return {
        str(file.relative_to(folder)): [
            {name: value for name, value in row.items() if name not in BOOKKEEPING["calls"]}
            for row in pq.ParquetFile(file).read().to_pylist()
        ]
        for file in files
    }


def history_windows(portal: SimulatedPortal) -> Counter[str]:
    return Counter(parse_qs(e.query)["time"][0] for e in portal.portal.log if e.operation == "history")


def wire_time(day: date, index: int, hours: int) -> str:
    window = day_windows(day, TIMEZONE, timedelta(hours=hours))[index]
    start, end = (int(instant.timestamp() * 1000) for instant in (window.start, window.end))
    return f"{start}-{end - 1}"


def in_window(time_range: str) -> Any:
    def when(request: Request) -> bool:
        return request.parameter("time") == time_range

    return when


@pytest.mark.usefixtures("prefect_client")
def test_the_flow_does_what_the_same_steps_do_in_process(
    portal: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summaries = {}
    for name in ("in_process", "flow"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        for setting, value in settings_for(portal.base_url, folder).items():
            monkeypatch.setenv(setting, value)
        if name == "flow":
            summaries[name] = flows.run_backfill_flow(FIRST, LAST)
        else:
            with open_pipeline(load_settings()) as pipeline:
                summaries[name] = run_plans(pipeline, plan_days(pipeline, FIRST, LAST, utc_now())).to_dict()
    run_ids = {summary.pop("run_id") for summary in summaries.values()}
    assert len(run_ids) == 2
    assert summaries["flow"] == summaries["in_process"]
    assert summaries["flow"]["calls"] == 300
    assert tables(tmp_path / "flow") == tables(tmp_path / "in_process")
    assert len(tables(tmp_path / "flow")["calls"]) == 300
    assert lake(tmp_path / "flow") == lake(tmp_path / "in_process")
    assert len(lake(tmp_path / "flow")) == 6


@pytest.mark.usefixtures("environment", "no_waiting")
def test_prefect_tries_a_failed_window_again_and_no_other(
    portal: SimulatedPortal, prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLHISTORY_WINDOW", "6h")
    unlucky = wire_time(MIDDLE, 2, hours=6)
    portal.portal.faults.append(Status(status=503, count=1, when=in_window(unlucky)))
    summary = flows.run_backfill_flow(FIRST, LAST)
    assert summary["complete"]
    assert summary["windows"] == {
        "complete": 12, "disputed": 0, "held": 0, "failed": 0, "claimed_elsewhere": 0, "done_elsewhere": 0,
    }  # fmt: skip
    requested = history_windows(portal)
    assert requested.pop(unlucky) == 2
    assert len(requested) == 11
    assert set(requested.values()) == {1}
    flow_run = latest_run(prefect_client)
    assert flow_run.name == "backfill 2026-01-05..2026-01-07"
    assert flow_run.state_type is StateType.COMPLETED
    runs = task_runs(prefect_client, flow_run, count=3)
    assert {name: task_run.run_count for name, task_run in runs.items()} == {
        "2026-01-05": 1,
        "2026-01-06": 2,
        "2026-01-07": 1,
    }
    assert all("callhistory" in task_run.tags for task_run in runs.values())


@pytest.mark.usefixtures("environment", "no_waiting")
def test_small_days_share_a_task_and_only_the_one_that_failed_is_tried_again(
    prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, last = FIRST, FIRST + timedelta(days=19)
    calls = generate(seed=8, start_date=first, days=20, calls_total=60, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as portal:
        monkeypatch.setenv("STRINGEEX_BASE_URL", portal.base_url)
        assert flows.run_backfill_flow(first, last, concurrency=1)["complete"]
        portal.portal.log.clear()
        unlucky = wire_time(first + timedelta(days=17), 0, hours=24)
        portal.portal.faults.append(Status(status=503, count=1, when=in_window(unlucky)))
        summary = flows.run_backfill_flow(first, last, force=True, concurrency=1)
        requested = history_windows(portal)
    assert summary["complete"]
    assert [day["complete"] for day in summary["days"]] == [True] * 20
    assert requested.pop(unlucky) == 2
    assert list(requested.values()) == [1] * 19
    runs = task_runs(prefect_client, latest_run(prefect_client), count=5)
    assert {name: task_run.run_count for name, task_run in runs.items()} == {
        "2026-01-15..2026-01-24 (10 days)": 2,
        "2026-01-10..2026-01-14 (5 days)": 1,
        "2026-01-07..2026-01-09 (3 days)": 1,
        "2026-01-06": 1,
        "2026-01-05": 1,
    }


@pytest.mark.parametrize(
    ("fault", "tries"),
    [(Status(status=503), 3), (Envelope(r=7, message="no such thing"), 1)],
    ids=["may pass", "will not pass"],
)
@pytest.mark.usefixtures("environment", "no_waiting")
def test_a_run_with_a_failed_window_is_incomplete_never_green(
    portal: SimulatedPortal, prefect_client: SyncPrefectClient, tmp_path: Path, fault: Any, tries: int
) -> None:
    fault.when = in_window(wire_time(MIDDLE, 0, hours=24))
    portal.portal.faults.append(fault)
    summary = flows.run_backfill_flow(FIRST, LAST)
    assert not summary["complete"]
    assert summary["windows"]["failed"] == 1
    assert summary["windows"]["complete"] == 2
    assert len(summary["errors"]) == 1
    flow_run = latest_run(prefect_client)
    assert (flow_run.state_type, flow_run.state_name) == (StateType.FAILED, "Incomplete")
    assert flow_run.state
    assert flow_run.state.message == "1 of 3 windows failed; they are due again"
    runs = task_runs(prefect_client, flow_run, count=3)
    assert {name: (task.state_type, task.run_count) for name, task in runs.items()} == {
        "2026-01-05": (StateType.COMPLETED, 1),
        "2026-01-06": (StateType.FAILED, tries),
        "2026-01-07": (StateType.COMPLETED, 1),
    }
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        ledger = dict(connection.sql("SELECT CAST(call_date AS VARCHAR), status FROM export_windows").fetchall())
    assert ledger == {"2026-01-05": "complete", "2026-01-06": "failed", "2026-01-07": "complete"}


@pytest.mark.usefixtures("environment")
def test_a_held_day_is_incomplete_until_the_form_says_that_its_calls_are_gone(
    portal: SimulatedPortal, prefect_client: SyncPrefectClient
) -> None:
    assert flows.run_backfill_flow(MIDDLE, MIDDLE)["complete"]
    portal.portal.faults.append(FewerRows(keep=1))
    with stamina.set_testing(True, attempts=8, cap=True):
        held = flows.run_backfill_flow(MIDDLE, MIDDLE, force=True)
    assert (held["complete"], held["windows"]["held"], held["calls_vanished"]) == (False, 1, 0)
    flow_run = latest_run(prefect_client)
    assert (flow_run.state_type, flow_run.state_name) == (StateType.FAILED, "Incomplete")

    believed = flows.run_backfill_flow(MIDDLE, MIDDLE, accept_vanished=True)
    assert (believed["complete"], believed["windows"]["complete"]) == (True, 1)
    assert believed["calls_vanished"] >= 10
    assert latest_run(prefect_client).parameters["accept_vanished"] is True


@pytest.mark.usefixtures("environment")
def test_what_no_day_could_survive_ends_the_run_with_its_own_error(
    prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STRINGEEX_API_KEY_SECRET", WRONG_SECRET)
    with pytest.raises(AuthenticationError, match="STRINGEEX_API_KEY_SECRET"):
        flows.run_backfill_flow(FIRST, LAST)
    flow_run = latest_run(prefect_client)
    assert (flow_run.state_type, flow_run.state_name) == (StateType.FAILED, "Failed")
    assert all(task_run.run_count <= 1 for task_run in task_runs(prefect_client, flow_run, count=3).values())
    assert "Traceback" not in caplog.text
    with pytest.raises(SettingsError, match=r"first .* comes after last"):
        flows.run_backfill_flow(LAST, FIRST)


@pytest.mark.usefixtures("environment")
def test_no_prefect_server_is_a_matter_of_settings(portal: SimulatedPortal) -> None:
    with (
        temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}),
        pytest.raises(SettingsError, match="PREFECT_API_URL"),
    ):
        flows.run_export_flow()
    assert portal.portal.log == []


@pytest.mark.usefixtures("environment")
def test_the_summary_is_an_artifact_of_the_run(
    prefect_client: SyncPrefectClient, portal: SimulatedPortal, tmp_path: Path
) -> None:
    summary = flows.run_backfill_flow(FIRST, LAST, concurrency=2)
    flow_run = latest_run(prefect_client)

    def artifact(key: str) -> Any:
        (found,) = prefect_client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id])
            )
        )
        return found

    report = artifact("callhistory-run-summary")
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        counts = connection.sql(
            "SELECT CAST(call_date AS VARCHAR), count(*) FROM calls GROUP BY ALL ORDER BY ALL"
        ).fetchall()
    assert len(counts) == 3
    rows = [line for line in report.data.splitlines() if line.startswith(("| 2026", "| **all**"))]
    assert rows == [
        *(f"| {call_date} | {count} | {count} | 0 | {count} | yes |" for call_date, count in counts),
        "| **all** | 300 | 300 | 0 | 300 | yes |",
    ]
    assert summary["run_id"] in report.description
    assert artifact("callhistory-progress").data == 100.0


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)
    elif isinstance(value, str):
        yield value


@pytest.mark.usefixtures("environment", "no_waiting", "prefect_client")
def test_prefect_is_told_no_secret_and_nobodys_data(portal: SimulatedPortal, prefect_server: PrefectServer) -> None:
    start_ms, end_ms = (int(datetime(2026, 1, day, tzinfo=UTC).timestamp() * 1000) for day in (4, 9))
    rows = portal.portal.rows(start_ms, end_ms)
    assert len(rows) == 300
    portal.portal.faults.append(
        Envelope(r=7, message=f"refused {rows[0]['id']}", when=in_window(wire_time(FIRST, 0, 24)))
    )
    summary = flows.run_backfill_flow(FIRST, LAST)
    assert not summary["complete"]
    # Unmistakable: a number, a name, an e-mail address, the id of a call; not a word such as "external".
    personal = {text for text in _strings(rows) if len(text) >= 8 and not text.isalpha()}
    secrets = {CREDENTIALS.api_key_secret, CREDENTIALS.password, CREDENTIALS.email, CREDENTIALS.api_key_sid}
    secrets |= {WRONG_SECRET, "eyJ"}
    numbers = {text for text in personal if text.startswith("84")}
    assert len(numbers) > 20

    told = poll(
        lambda: dump if f"run {summary['run_id']}" in (dump := prefect_server.dump()) else None, "the run's log"
    )
    assert "backfill 2026-01-05..2026-01-07" in told
    assert {text for text in personal | secrets if text in told} == set()
    assert prefect_server.stored_results() == []


def test_a_terminated_run_gives_its_claims_back(
    portal: SimulatedPortal, prefect_server: PrefectServer, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    reached, released = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        reached.set()
        released.wait(30)
        time.sleep(0.05)

    portal.portal.options.max_limit = 10
    portal.portal.faults.append(Hook(action=hold))
    environment = prefect_server.environment | settings_for(portal.base_url, tmp_path, CALLHISTORY_CONCURRENCY="1")
    code = "from datetime import date; from pipelines.flows import run_backfill_flow as run; "
    command = [sys.executable, "-c", f"{code} run(date.fromisoformat('{FIRST}'), date.fromisoformat('{LAST}'))"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert reached.wait(60)
            os.kill(process.pid, signal.SIGTERM)
        finally:
            released.set()
        output, _ = process.communicate(timeout=60)
    assert process.returncode != 0, output
    assert latest_run(prefect_client).state_type is StateType.CRASHED, output
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        (claims,) = connection.sql("SELECT count(*) FILTER (claimed_by IS NOT NULL) FROM export_windows").fetchall()
        statuses = connection.sql("SELECT status FROM export_windows").fetchall()
    assert claims == (0,)
    assert statuses == [("running",)]


def test_parameters_are_what_a_form_can_hold() -> None:
    schema = json.loads(json.dumps(flows.backfill_calls.parameters.model_dump()))
    properties = schema["properties"]
    assert set(properties) == {"first", "last", "force", "concurrency", "dask", "accept_vanished"}
    assert schema["required"] == ["first", "last"]
    assert properties["first"]["format"] == "date"
    assert all(properties[name]["description"] for name in properties)
    assert flows.export_calls.parameters.model_dump()["properties"] == {}
