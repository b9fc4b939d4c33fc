"""A small portal, and a place to export to on each database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.simulator import NO_LIMITS, OddRows, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests.exports import FIRST, ZONE
from tests.faults.matrix import DATABASES
from tests.faults.sites import EMBEDDED, Site, site

LAST = FIRST + timedelta(days=1)
DAY_AFTER = day_bounds(FIRST, ZONE)[1] + timedelta(hours=2)
"""When the portal's clock stands: the first day is over, and not yet due to be read again."""


@pytest.fixture(autouse=True)
def _no_waiting(retries_at_once: None) -> None:
    """Nothing here waits before a retry."""


@pytest.fixture
def portal() -> Portal:
    """About 120 calls over two days, a fifth of them odd in type or shape."""
    calls = generate(
        seed=3, start_date=FIRST, days=2, calls_total=240, ties=2, late_arrival_share=0, late_change_share=0
    )
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS), odd_rows=OddRows(0.2, seed=3))
    portal.clock.set(DAY_AFTER + timedelta(days=1))
    return portal


@pytest.fixture
def portal_server(portal: Portal) -> Iterator[SimulatedPortal]:
    with SimulatedPortal(portal) as server:
        yield server
        assert server.errors == []


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest) -> str:
    """The name of each database in turn, or of those that a test is parametrized with."""
    name: str = request.param
    return name


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is room: what dies here is a process, never the machine."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 1 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="callhistory-faults-") as folder:
        yield Path(folder)


@pytest.fixture
def place(
    request: pytest.FixtureRequest, database: str, portal_server: SimulatedPortal, fast_folder: Path
) -> Iterator[Site]:
    """A place to export to, with nothing there, on each database."""
    server = None if database in EMBEDDED else request.getfixturevalue(f"{database}_server")
    with site(database, portal_server.base_url, fast_folder / "site", server) as made:
        yield made
