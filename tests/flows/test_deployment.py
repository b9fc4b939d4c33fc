"""`deployments/prefect.yaml` as a user deploys it: scheduled runs of a worker, into PostgreSQL, one at a time."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import prefect
import pytest
import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.schedules import CronSchedule

from pipelines.flows.command import CLIENT_RETRIES
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import Hook
from tests.flows.conftest import PrefectServer, poll, process_group, settings_for
from transforms.schema import CALLS, EXPORT_WINDOWS

DEPLOYMENTS = Path(__file__).parents[2] / "deployments"
EVERY_THREE_SECONDS = "* * * * * */3"
ZONE = "Asia/Ho_Chi_Minh"
SCHEDULES = {
    "export_calls/nightly": ("30 1 * * *", True),
    "export_recent_calls/hourly": ("0 * * * *", True),
    "archive_recordings/recordings": ("15 * * * *", True),
    "verify_calls/weekly": ("0 4 * * 0", True),
    "write_report/report": ("0 6 * * 1", True),
    "snapshot_live_calls/live": ("* * * * *", False),
    "backfill_calls/on-demand": None,
}


def _runs(client: SyncPrefectClient, deployment_id: UUID) -> list[FlowRun]:
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment_id])), limit=200
    )


def _check_what_was_deployed(client: SyncPrefectClient) -> None:
    found = {f"{client.read_flow(d.flow_id).name}/{d.name}": d for d in client.read_deployments()}
    assert found.keys() == SCHEDULES.keys()
    for name, schedule in SCHEDULES.items():
        deployment = found[name]
        expected = [(CronSchedule(cron=schedule[0], timezone=ZONE), schedule[1])] if schedule else []
        assert [(s.schedule, s.active) for s in deployment.schedules] == expected, name
        assert deployment.parameters == {}
        assert deployment.enforce_parameter_schema
        assert deployment.job_variables == {"env": {"PREFECT_CLIENT_MAX_RETRIES": str(CLIENT_RETRIES)}}
        assert deployment.global_concurrency_limit
        assert deployment.global_concurrency_limit.limit == 1
        assert deployment.concurrency_options
        assert deployment.concurrency_options.collision_strategy == ("CANCEL_NEW" if schedule else "ENQUEUE")
    form = found["backfill_calls/on-demand"].parameter_openapi_schema
    assert form
    assert {"first", "last", "force", "concurrency"} <= form["properties"].keys()
    assert form["required"] == ["first", "last"]


@pytest.fixture
def deployed(
    prefect_server: PrefectServer, prefect_client: SyncPrefectClient, postgresql_url: Callable[[], str], tmp_path: Path
) -> Any:
    """As a user has it: a folder with a `.env`, from which the flows are deployed, and relative paths in it."""
    first = datetime.now(UTC).date() - timedelta(days=4)
    portal = Portal(
        generate(seed=5, start_date=first, days=3, calls_total=300, late_arrival_share=0),
        PortalOptions(max_limit=100, rate_limits=NO_LIMITS),
    )
    url = postgresql_url()
    with SimulatedPortal(portal) as server:
        settings = settings_for(
            server.base_url,
            tmp_path,
            CALLHISTORY_WAREHOUSE_URL=url,
            CALLHISTORY_LAKE_URL="data/lake",
            CALLHISTORY_START_DATE=first.isoformat(),
        )
        (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        prefect_server.prefect("work-pool", "create", "callhistory", "--type", "process", folder=tmp_path)
        prefect_server.prefect("deploy", "--all", "--prefect-file", str(DEPLOYMENTS / "prefect.yaml"), folder=tmp_path)
        _check_what_was_deployed(prefect_client)
        # Whatever the time of day is.
        for deployment in prefect_client.read_deployments():
            for schedule in deployment.schedules if deployment.name != "nightly" else ():
                prefect_client.update_deployment_schedule(deployment.id, schedule.id, active=False)
        yield portal, url, first
        for deployment in prefect_client.read_deployments():
            prefect_client.delete_deployment(deployment.id)


def test_nights_that_were_missed_are_one_run_and_no_second_runs_beside_it(
    deployed: tuple[Portal, str, date],
    prefect_server: PrefectServer,
    prefect_client: SyncPrefectClient,
    tmp_path: Path,
) -> None:
    portal, url, first = deployed
    nightly = prefect_client.read_deployment_by_name("export_calls/nightly")
    nights = poll(lambda: _runs(prefect_client, nightly.id), "the scheduler to plan the nights")
    assert {f"{run.expected_start_time:%H:%M}" for run in nights} == {"18:30"}

    # Nights pass without a worker.
    prefect_client.create_deployment_schedules(
        nightly.id, [DeploymentScheduleCreate(schedule=CronSchedule(cron=EVERY_THREE_SECONDS))]
    )

    def in_state(name: str) -> list[FlowRun]:
        return [run for run in _runs(prefect_client, nightly.id) if run.state and run.state.name == name]

    late = poll(lambda: found if len(found := in_state("Late")) >= 2 else None, "runs to be late")

    released = threading.Event()

    def hold(*_: Any) -> None:
        released.wait(180)

    portal.faults.append(Hook(action=hold, count=1))
    worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "callhistory"]
    log = tmp_path / "worker.log"
    with process_group(worker, prefect_server.environment, tmp_path.parent, log):
        [running] = poll(lambda: in_state("Running"), "a late run to start")
        began_at = datetime.now(UTC)

        def cancelled() -> list[FlowRun] | None:
            found = in_state("Cancelled")
            was_late = {run.id for run in found} >= {run.id for run in late} - {running.id}
            after = [run for run in found if run.expected_start_time and run.expected_start_time > began_at]
            return found if was_late and after else None

        for run in poll(cancelled, "the other late runs, and one that came due meanwhile, to be cancelled"):
            assert run.state
            assert run.state.message == "Deployment concurrency limit reached."
        assert [run.id for run in in_state("Running")] == [running.id]
        released.set()

        def ended() -> FlowRun | None:
            run = prefect_client.read_flow_run(running.id)
            return run if run.state and run.state.is_final() else None

        run = poll(ended, f"the run to end: see {log}")
        assert run.state_type is StateType.COMPLETED, log.read_text()[-4000:]
    assert "nanobind" not in log.read_text()  # DuckDB's binding tells at the end what it thinks has leaked
    assert run.auto_scheduled
    assert run.name.startswith("export 2")
    assert run.parameters == {}
    artifacts = prefect_client.read_artifacts(
        artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id])),
        flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
    )
    assert {"callhistory-run-summary", "callhistory-progress"} <= {artifact.key for artifact in artifacts}

    expected = portal.keys(0, int(datetime.now(UTC).timestamp() * 1000))
    assert len(expected) == 300
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        calls, windows = (table.sql_table(sa.MetaData()) for table in (CALLS, EXPORT_WINDOWS))
        found = connection.execute(sa.select(calls.c.started_at, calls.c.call_id)).tuples().all()
        complete = connection.scalars(sa.select(windows.c.call_date).where(windows.c.status == "complete")).all()
    engine.dispose()
    assert sorted((round(start.timestamp() * 1000), call_id) for start, call_id in found) == sorted(expected)
    assert {first + timedelta(days=day) for day in range(3)} <= set(complete)
    assert (tmp_path / "data" / "lake" / "calls").is_dir()


WORKER_METADATA = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"


def _constants(value: Any, path: str = "") -> dict[str, Any]:
    """Return what a template says itself, by its place; not what variables bring."""
    if isinstance(value, Mapping):
        return {k: v for name, part in value.items() for k, v in _constants(part, f"{path}/{name}").items()}
    if isinstance(value, list):
        return {k: v for i, part in enumerate(value) for k, v in _constants(part, f"{path}/{i}").items()}
    return {} if isinstance(value, str) and "{{" in value else {path: value}


@pytest.mark.parametrize(("kind", "package"), [("docker", "prefect-docker"), ("kubernetes", "prefect-kubernetes")])
def test_pools_of_containers_are_as_their_workers_want_them(
    kind: str, package: str, prefect_client: SyncPrefectClient
) -> None:
    pool = json.loads((DEPLOYMENTS / "pools" / f"{kind}.json").read_text())
    prefect_client.create_work_pool(WorkPoolCreate(name=kind, type=kind, base_job_template=pool))
    usual = json.loads(WORKER_METADATA.read_text())[package][kind]["default_base_job_configuration"]
    assert pool["job_configuration"].keys() <= usual["job_configuration"].keys()
    assert pool["variables"]["properties"].keys() <= usual["variables"]["properties"].keys()
    # What the worker insists on, such as the name of the container; it may live longer or shorter.
    assert _constants(usual["job_configuration"]).items() <= _constants(pool["job_configuration"]).items()
    text = json.dumps(pool["job_configuration"])
    for variable in pool["variables"]["properties"]:
        assert f'"{{{{ {variable} }}}}"' in text
