"""The simulated portal in a process of its own ends when it is told to, whatever it is doing at that instant."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.simulator import process, spawn
from tests.e2e.command import REPOSITORY

PORTAL = ("--calls=5", "--days=1", "--until-stdin-closes")
SIGNAL_WHILE_A_LOCK_IS_HELD = """
import signal, threading

class Event(threading.Event):
    def wait(self, timeout=None):
        with self._cond:
            signal.raise_signal(signal.SIGTERM)
        return super().wait(timeout)

threading.Event = Event
from pipelines.simulator.__main__ import main
main()
"""


def start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def end(running: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Wait until it ends; its stdin stays open."""
    try:
        code = running.wait(timeout=60)
        assert running.stderr is not None
        return code, running.stderr.read()
    finally:
        running.kill()
        running.communicate()


def test_it_hung_for_ever_when_the_signal_came_while_its_main_thread_held_the_events_lock() -> None:
    assert end(start("-c", SIGNAL_WHILE_A_LOCK_IS_HELD, *PORTAL)) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: int) -> None:
    running = start("-m", "pipelines.simulator", *PORTAL)
    assert running.stdout is not None
    assert json.loads(running.stdout.readline())["base_url"]
    running.send_signal(number)
    assert end(running) == (0, b"")


def test_it_ends_when_stdin_closes_and_not_when_something_is_written_there() -> None:
    running = start("-m", "pipelines.simulator", *PORTAL)
    assert running.stdout is not None
    assert running.stdin is not None
    running.stdout.readline()
    running.stdin.write(b"still here\n")
    running.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(timeout=0.1)
    running.stdin.close()
    running.stdin = None
    assert end(running) == (0, b"")


def test_one_that_does_not_hear_the_signal_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_END_SECONDS", 0.1)
    with spawn(5, 1) as portal:
        os.kill(portal.process_id, signal.SIGSTOP)
    assert not Path(f"/proc/{portal.process_id}").exists()


@pytest.mark.parametrize("fault", ["{", "[]", '{"fault": "Nonsense"}', '{"fault": "Cut", "rate": 1}'])
def test_a_fault_that_is_none_is_refused(fault: str) -> None:
    code, stderr = end(start("-m", "pipelines.simulator", "--fault", fault))
    assert code == 2
    assert f"argument --fault: {fault}: ".encode() in stderr
