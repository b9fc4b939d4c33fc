"""A portal without calls and limits, a bucket, and no waits between two tries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import s3fs
import stamina

from pipelines.simulator import Portal, PortalOptions, SimulatedPortal
from pipelines.simulator.limits import NO_LIMITS
from tests.archives import s3_server
from tests.e2e.recordings.portals import BUCKET


@pytest.fixture(autouse=True)
def retries_without_waiting() -> Iterator[None]:
    """The waits between two tries are none of the behaviour under test."""
    with stamina.set_testing(True, attempts=1_000):
        yield


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    with s3_server(monkeypatch, BUCKET) as files:
        yield files


@pytest.fixture
def portal() -> Portal:
    """A portal without calls and limits."""
    return Portal(options=PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server
        assert server.errors == []
