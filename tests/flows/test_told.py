"""People are told of flow runs that failed, ended incomplete, or lost their process; not of those they stopped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import stamina
from prefect.client.schemas.objects import FlowRun
from prefect.states import Crashed

from pipelines import flows
from pipelines.simulator import SimulatedPortal
from pipelines.simulator.faults import Envelope
from tests.flows.conftest import FIRST, LAST, settings_for
from tests.receiver import Receiver, receiving


@pytest.fixture
def receiver(portal: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Somebody to be told of the runs of this environment."""
    monkeypatch.chdir(tmp_path)
    with receiving() as receiver, stamina.set_testing(True, attempts=1):
        settings = settings_for(portal.base_url, tmp_path, CALLHISTORY_NOTIFY_URLS=receiver.url)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield receiver


@pytest.mark.usefixtures("prefect_client")
def test_an_incomplete_run_and_a_failed_one_are_told(portal: SimulatedPortal, receiver: Receiver) -> None:
    portal.portal.faults.append(Envelope(r=7, message="no"))
    assert not flows.run_backfill_flow(FIRST, LAST)["complete"]
    told, *_ = receiver.take()
    assert told == "callhistory: backfill failed: 3 of 3 windows failed; they are due again."

    portal.portal.faults.clear()
    assert flows.run_backfill_flow(FIRST, LAST)["complete"]
    assert not any("backfill" in told for told in receiver.take())


def test_a_lost_process_is_told_of_scheduled_runs_only(receiver: Receiver) -> None:
    [hook] = flows.export_calls.on_crashed_hooks
    state = Crashed()
    hook(flows.export_calls, FlowRun(flow_id=uuid4(), deployment_id=None), state)
    assert receiver.take() == []
    hook(flows.export_calls, FlowRun(flow_id=uuid4(), deployment_id=uuid4()), state)
    assert receiver.take() == ["callhistory: export failed: the run crashed: Prefect's log of it tells more."]
