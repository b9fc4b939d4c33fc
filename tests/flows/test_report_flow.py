"""The report as a flow: written where the settings say, linked, and sent only when that is asked for."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey, FlowFilter, FlowFilterName
from prefect.client.schemas.sorting import FlowRunSort

from pipelines import flows
from pipelines.flows.report import REPORT_ARTIFACT
from pipelines.report.figures import MOST_DAYS
from pipelines.simulator import SimulatedPortal
from tests.flows.conftest import FIRST, LAST, settings_for
from tests.receiver import receiving


@pytest.fixture
def exported(
    portal: SimulatedPortal, prefect_client: SyncPrefectClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in settings_for(portal.base_url, tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CALLHISTORY_REPORT_URL", str(tmp_path / "reports"))
    flows.run_backfill_flow(FIRST, LAST)


@pytest.mark.usefixtures("exported")
def test_the_flow_writes_the_report_and_sends_it_when_asked(
    prefect_client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv("CALLHISTORY_NOTIFY_URLS", receiver.url)
        kept = flows.write_report(days=MOST_DAYS)
        assert isinstance(kept, dict)
        assert not any(message.get("attachments") for message in receiver.messages), "it names people"
        receiver.take()
        sent = flows.write_report(days=MOST_DAYS, language="vi", send=True)
        assert isinstance(sent, dict)
        [message] = [message for message in receiver.messages if message.get("attachments")]
    assert (kept["sent"], sent["sent"]) == (None, True)

    english, vietnamese = (Path(summary["report"]).read_bytes() for summary in (kept, sent))
    assert b'<html lang="en">' in english
    assert b'<html lang="vi">' in vietnamese
    assert b'data-figure="calls" data-value="300"' in english
    assert base64.b64decode(message["attachments"][0]["base64"]) == vietnamese

    found = prefect_client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[REPORT_ARTIFACT])))
    monkeypatch.setenv("CALLHISTORY_NOTIFY_URLS", "")
    unsent = flows.write_report(days=MOST_DAYS, send=True, return_state=True)
    assert (unsent.name, unsent.message) == ("Incomplete", "the report is written, but could be sent to nobody")

    links = " ".join(str(artifact.data) for artifact in found)
    for summary in (kept, sent):
        assert f"({summary['report']})" in links


@pytest.mark.usefixtures("exported")
def test_days_that_nobody_exported_are_a_failed_run_and_no_empty_report(
    prefect_client: SyncPrefectClient, tmp_path: Path
) -> None:
    state = flows.write_report(days=1, return_state=True)
    assert state.is_failed()
    assert state.message
    assert "the warehouse has nothing of" in state.message
    assert not (tmp_path / "reports").exists()
    name = FlowFilter(name=FlowFilterName(any_=["write_report"]))
    [run] = prefect_client.read_flow_runs(flow_filter=name, sort=FlowRunSort.START_TIME_DESC, limit=1)
    assert run.state_name == "Failed"
