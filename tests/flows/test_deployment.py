"""`deployments/prefect.yaml` as a user deploys it: a worker's scheduled run exports every call."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import duckdb
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule

from pipelines.stringeex.simulator import spawn
from tests.flows.conftest import PrefectServer, poll, process_group, settings_for

PREFECT_FILE = Path(__file__).parents[2] / "deployments" / "prefect.yaml"
EVERY_FIVE_SECONDS = "* * * * * */5"


def _runs(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])), limit=200
    )


def test_a_scheduled_deployment_exports_every_call(
    prefect_server: PrefectServer, prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    first = datetime.now(UTC).date() - timedelta(days=4)
    with spawn(calls=300, days=3, start_date=first, limits=False) as portal:
        # As a user has it: a folder with a `.env`, from which the flows are deployed, and relative paths in it.
        settings = settings_for(
            portal.base_url,
            tmp_path,
            CALLHISTORY_WAREHOUSE_URL="duckdb:///data/warehouse.duckdb",
            CALLHISTORY_LAKE_URL="data/lake",
            CALLHISTORY_START_DATE=first.isoformat(),
        )
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        prefect_server.prefect("work-pool", "create", "callhistory", "--type", "process", folder=tmp_path)
        prefect_server.prefect("deploy", "--all", "--prefect-file", str(PREFECT_FILE), folder=tmp_path)

        nightly = prefect_client.read_deployment_by_name("export_calls/nightly")
        on_demand = prefect_client.read_deployment_by_name("backfill_calls/on-demand")
        assert [s.schedule for s in nightly.schedules] == [CronSchedule(cron="30 1 * * *", timezone="Asia/Ho_Chi_Minh")]
        assert on_demand.schedules == []
        assert nightly.global_concurrency_limit
        assert nightly.global_concurrency_limit.limit == 1
        assert nightly.concurrency_options
        assert nightly.concurrency_options.collision_strategy == "CANCEL_NEW"
        nights = poll(lambda: _runs(prefect_client, nightly.id), "the scheduler to plan the nights")
        assert {f"{run.expected_start_time:%H:%M}" for run in nights} == {"18:30"}

        prefect_client.create_deployment_schedules(
            nightly.id, [DeploymentScheduleCreate(schedule=CronSchedule(cron=EVERY_FIVE_SECONDS))]
        )
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "callhistory"]
        log = tmp_path / "worker.log"
        with process_group(worker, prefect_server.environment, tmp_path.parent, log):

            def completed() -> list[FlowRun]:
                runs = _runs(prefect_client, nightly.id)
                failed = [run for run in runs if run.state and (run.state.is_failed() or run.state.is_crashed())]
                assert not failed, f"{failed[0].state}: {log.read_text()[-4000:]}"
                return [run for run in runs if run.auto_scheduled and run.state and run.state.is_completed()]

            run = poll(completed, f"a scheduled run to complete: see {log}", timeout_seconds=90)[0]
        prefect_client.delete_deployment(nightly.id)
        assert run.name.startswith("export 2")
        assert run.parameters == {}

        expected = portal.keys(0, int(datetime.now(UTC).timestamp() * 1000))
    assert len(expected) == 300
    with duckdb.connect(str(tmp_path / "data" / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.sql("SELECT epoch_ms(started_at), call_id FROM calls").fetchall()
        complete = connection.sql("SELECT call_date FROM export_windows WHERE status = 'complete'").fetchall()
    assert sorted(found) == sorted(expected)
    assert {(first + timedelta(days=day),) for day in range(3)} <= set(complete)
