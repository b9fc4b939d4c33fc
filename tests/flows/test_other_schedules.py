"""The flows between the nights: the hourly look at the newest days, the weekly recount, the snapshot of live calls."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from pipelines import flows
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.flows.conftest import settings_for
from tests.today import TODAY, ZONE

DAYS = 4
FIRST = TODAY - timedelta(days=DAYS)


@pytest.fixture
def newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal]:
    """A portal with calls on the four days before today, in an environment that exports from it."""
    portal = Portal(
        generate(7, FIRST, DAYS, 200, timezone=ZONE, late_arrival_share=0), PortalOptions(rate_limits=NO_LIMITS)
    )
    monkeypatch.chdir(tmp_path)
    with SimulatedPortal(portal) as server:
        of_today = {"CALLHISTORY_TIMEZONE": ZONE, "CALLHISTORY_START_DATE": str(FIRST)}
        for name, value in settings_for(server.base_url, tmp_path, **of_today).items():
            monkeypatch.setenv(name, value)
        yield portal


def latest(client: SyncPrefectClient, flow_name: str) -> FlowRun:
    named = FlowFilter(name=FlowFilterName(any_=[flow_name]))
    return client.read_flow_runs(flow_filter=named, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(statement).fetchall()


def test_the_hourly_export_looks_at_yesterday_and_today_only(
    newest: Portal, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    summary = flows.export_recent_calls()
    yesterday = TODAY - timedelta(days=1)
    assert isinstance(summary, dict)
    assert [day["call_date"] for day in summary["days"]] == [str(yesterday), str(TODAY)]
    assert summary["complete"]
    assert latest(prefect_client, "export_recent_calls").name.startswith("export recent 2")
    assert query(tmp_path, "SELECT DISTINCT call_date FROM export_windows ORDER BY 1") == [(yesterday,), (TODAY,)]

    again = flows.export_recent_calls()
    assert [day["call_date"] for day in again["days"]] == [str(TODAY)], "a closed day is not asked for a second time"


def test_the_weekly_recount_ends_incomplete_when_something_differs(
    newest: Portal, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    flows.export_calls()
    right = flows.verify_calls(days=2)
    assert isinstance(right, dict)
    assert right["ok"]
    assert [day["call_date"] for day in right["days"]] == [
        str(TODAY - timedelta(days=2)),
        str(TODAY - timedelta(days=1)),
    ]

    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as connection:
        [(call_id,)] = connection.sql("SELECT min(call_id) FROM calls WHERE deleted_at IS NULL").fetchall()
        [(day,)] = connection.execute("SELECT call_date FROM calls WHERE call_id = ?", [call_id]).fetchall()
        connection.execute("UPDATE calls SET talk_seconds = 86399 WHERE call_id = ?", [call_id])
    state = flows.verify_calls(return_state=True)
    assert (state.name, state.message) == ("Incomplete", f"1 of {DAYS} local days differ")
    key = ArtifactFilter(key=ArtifactFilterKey(any_=["callhistory-verify"]))
    of_this_run = prefect_client.read_artifacts(artifact_filter=key)
    [report] = [str(a.data) for a in of_this_run if a.flow_run_id == state.state_details.flow_run_id]
    assert "**differences**" in report
    assert f"- {day} warehouse calls: 1 " in report
    assert call_id not in report, "the server is told nobody's data"


def test_the_weekly_recount_asks_the_api_of_settled_days_only(
    newest: Portal, prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLHISTORY_REREAD", "1d")
    flows.export_calls()
    rows = newest.rows(0, round(datetime.now(UTC).timestamp() * 1000))
    yesterday, settled = rows[-1], rows[0]
    newest.remove_call(yesterday["id"])
    assert isinstance(flows.verify_calls(), dict), "yesterday is read again anyway"
    newest.remove_call(settled["id"])
    state = flows.verify_calls(return_state=True)
    assert (state.name, state.message) == ("Incomplete", f"1 of {DAYS} local days differ")


def test_a_snapshot_keeps_the_calls_in_progress(
    newest: Portal, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    newest.realtime_calls.append(
        {"callId": "call-vn-1-LIVE000001-1", "direction": "callin", "startTime": 1767578400000}
    )
    summary = flows.snapshot_live_calls()
    assert isinstance(summary, dict)
    assert (summary["calls"], summary["unreadable"]) == (1, 0)
    assert query(tmp_path, "SELECT call_id FROM live_calls") == [("call-vn-1-LIVE000001-1",)]
    assert latest(prefect_client, "snapshot_live_calls").name.startswith("live 2")
