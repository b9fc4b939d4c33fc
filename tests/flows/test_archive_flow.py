"""The archive of recordings as a flow: the same result as in-process, and an honest state while one is missing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from pipelines import flows
from pipelines.simulator import SimulatedPortal
from tests.archives import archived_at, recordings_of
from tests.e2e.command import account


def latest_run(client: SyncPrefectClient) -> FlowRun:
    archives = FlowFilter(name=FlowFilterName(any_=["archive_recordings"]))
    return client.read_flow_runs(flow_filter=archives, sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def test_the_flow_archives_what_is_due_and_fails_once_when_something_is_missing(
    prefect_client: SyncPrefectClient, portal: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archived = archived_at(portal.base_url, tmp_path)
    archived.export()
    monkeypatch.chdir(tmp_path)
    for name, value in account(
        portal.base_url,
        STRINGEEX_RECORDINGS_PER_MINUTE="0",
        CALLHISTORY_WAREHOUSE_URL=archived.settings.warehouse_url.get_secret_value(),
        CALLHISTORY_LAKE_URL=archived.settings.lake_url,
        CALLHISTORY_ARCHIVE_URL=archived.settings.archive_url,
    ).items():
        monkeypatch.setenv(name, value)
    wanted = set(archived.rows())
    lost = min(wanted)
    portal.portal.deleted_recordings.add(lost)

    summary = flows.run_archive_flow()
    assert (summary["complete"], summary["archived"], summary["not_ready"]) == (True, len(wanted) - 1, 1)
    with archived.open() as stores:
        table = stores.warehouse.tables["recordings"]
        with stores.warehouse.transaction() as connection:
            connection.execute(sa.update(table).where(table.c.call_id == lost).values(status="failed"))
            connection.execute(
                sa.update(table)
                .where(table.c.call_id == lost)
                .values(not_found_count=2, first_not_found_at=datetime(2026, 1, 6, tzinfo=UTC))
            )

    summary = flows.run_archive_flow(again=True)
    assert (summary["complete"], summary["archived"], summary["missing"]) == (False, 0, 1)
    run = latest_run(prefect_client)
    assert run.state
    assert (run.state.name, run.state.message) == ("Incomplete", "1 recordings missing, 0 failed")
    assert run.parameters == {"again": True}
    assert [error["call_id"] for error in summary["errors"]] == [lost]
    key = ArtifactFilter(key=ArtifactFilterKey(any_=["callhistory-archive-summary"]))
    [shown] = [str(a.data) for a in prefect_client.read_artifacts(artifact_filter=key) if a.flow_run_id == run.id]
    assert "- 1 x GET /v1/call/recording/{call_id}: HTTP 404" in shown
    assert lost not in shown, "the server is told nobody's data"
    archived.check_every_recording(
        {call_id: audio for call_id, audio in recordings_of(portal.portal).items() if call_id in wanted - {lost}}
    )
    told_before = flows.run_archive_flow()
    assert (told_before["complete"], told_before["archived"], told_before["recordings"]["missing"]) == (True, 0, 1)
    run = latest_run(prefect_client)
    assert run.state
    assert run.state.is_completed()
