"""SIGTERM and Ctrl-C to the real command: a clean stop, no claim left, and the next run completes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pipelines.simulator import Portal
from pipelines.simulator.faults import Hook
from tests.e2e.command import command_line, environment
from tests.exports import FIRST, assert_holds, range_ms
from tests.faults.conftest import DAY_AFTER, LAST
from tests.faults.matrix import THEN_COMPLETE, Cell
from tests.faults.sites import Site

SIGNALS = {"duckdb": signal.SIGINT, "sqlite": signal.SIGTERM, "postgresql": signal.SIGTERM, "mariadb": signal.SIGINT}


INTERRUPTED_WHILE_IT_HOLDS_EVERY_FUTURE = """
import concurrent.futures._base as futures, signal

class Acquired(futures._AcquireFutures):
    def __enter__(self):
        super().__enter__()
        signal.raise_signal(signal.SIGINT)

futures._AcquireFutures = Acquired
from pipelines.cli.main import main
main()
"""


@pytest.mark.parametrize("database", ["sqlite"])
@pytest.mark.parametrize(
    ("operation", "command"),
    [("history", ("backfill", f"--from={FIRST}", f"--to={LAST}")), ("download_recording", ("recordings", "archive"))],
)
def test_it_hung_for_ever_when_ctrl_c_came_while_its_main_thread_held_the_locks_of_its_work(
    portal: Portal, place: Site, operation: str, command: tuple[str, ...]
) -> None:
    if operation == "download_recording":
        place.export.run(FIRST, LAST, now=DAY_AFTER + (LAST - FIRST))
    portal.faults.append(
        Hook(operation=operation, after=1, count=1, action=lambda *_: running.send_signal(signal.SIGINT))
    )
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED_WHILE_IT_HOLDS_EVERY_FUTURE, *command],
        cwd=place.folder,
        env=environment(place.overrides),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, stderr = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    assert running.returncode == 130, stderr


def test_a_signal_between_two_pages_stops_the_command(portal: Portal, place: Site, cell: Cell) -> None:
    portal.faults.append(Hook(after=1, count=1, action=lambda *_: running.send_signal(SIGNALS[place.database])))
    place.temporary.mkdir()
    running = subprocess.Popen(
        command_line("backfill", f"--from={FIRST}", f"--to={LAST}"),
        cwd=place.folder,
        env=environment(place.overrides | {"TMPDIR": str(place.temporary)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == 130, stderr
    assert stderr.splitlines()[-1].startswith("stopped")
    assert list(place.temporary.iterdir()) == []
    with place.export.open() as pipeline:
        rows = pipeline.ledger.rows()
    assert rows
    assert all(row.claimed_by is None for row in rows)

    assert place.export.run(FIRST, LAST, now=DAY_AFTER + (LAST - FIRST)).is_complete
    assert_holds(place.export, portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)
    cell("sigterm", place.database, THEN_COMPLETE)
