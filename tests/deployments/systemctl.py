"""The part of ``systemctl`` that our units need, for a machine whose first process is not systemd.

Units are read from ``$UNITS``, and checked by ``systemd-analyze``; a service runs in a process group of its own, whose
number is in ``$UNIT_STATE``. Standard library only.
"""

from __future__ import annotations

import configparser
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

UNITS, STATE = Path(os.environ["UNITS"]), Path(os.environ["UNIT_STATE"])


class _Unit(configparser.RawConfigParser):
    """A unit file, in which a name may come several times: all its values, one below the other."""

    class _Values(dict[str, object]):
        def __setitem__(self, name: str, value: object) -> None:
            if isinstance(value, list) and name in self:
                value = [*self[name], *value]  # type: ignore[misc]
            super().__setitem__(name, value)

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, dict_type=self._Values, interpolation=None)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.name = name
        with (UNITS / name).open() as file:
            self.read_file(file)

    def values(self, section: str, option: str) -> list[str]:  # type: ignore[override]
        return [value for value in self.get(section, option, fallback="").splitlines() if value]


def main() -> None:
    match sys.argv[1:]:
        case ["daemon-reload"]:
            _check_all()
        case ["enable", "--now", *names] | ["start", *names]:
            for name in names:
                _start(_Unit(name))
        case ["stop", *names]:
            for name in names:
                _stop(_Unit(name))
        case ["restart", *names]:
            for name in names:
                _stop(_Unit(name))
                _start(_Unit(name))
        case other:
            sys.exit(f"systemctl: {other} is not known here")


def _check_all() -> None:
    units = sorted(str(path) for path in UNITS.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    if done.returncode or done.stdout or done.stderr:
        sys.exit(f"systemd-analyze verify: {done.stdout}{done.stderr}")


def _start(unit: _Unit) -> None:
    if unit.name.endswith(".timer"):
        for moment in unit.values("Timer", "OnCalendar"):
            subprocess.run(["systemd-analyze", "calendar", moment], stdout=subprocess.DEVNULL, check=True)
        _start(_Unit(unit.name.replace(".timer", ".service")))
        return
    [command] = unit.values("Service", "ExecStart")
    [folder] = unit.values("Service", "WorkingDirectory")
    environment = dict(os.environ)
    for line in unit.values("Service", "Environment"):
        environment |= dict(word.split("=", 1) for word in shlex.split(line))
    with (STATE / f"{unit.name}.log").open("ab") as log:
        process = subprocess.Popen(
            shlex.split(command), cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        if unit.values("Service", "Type") == ["oneshot"]:
            successes = {"0", *" ".join(unit.values("Service", "SuccessExitStatus")).split()}
            if str(exit_code := process.wait()) not in successes:
                sys.exit(f"{unit.name} ended with {exit_code}")
            return
        (STATE / f"{unit.name}.pid").write_text(str(process.pid))
        for after in unit.values("Service", "ExecStartPost"):
            subprocess.run(shlex.split(after), cwd=folder, env=environment, stdout=log, stderr=log, check=True)


def _stop(unit: _Unit) -> None:
    file = STATE / f"{unit.name}.pid"
    group = int(file.read_text())
    [timeout_seconds] = unit.values("Service", "TimeoutStopSec") or ["90"]
    os.killpg(group, signal.SIGTERM)
    deadline = time.monotonic() + float(timeout_seconds)
    while _is_alive(group):
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            sys.exit(f"{unit.name} does not stop when it is told to")
        time.sleep(0.05)
    file.unlink()


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    # A process that has ended, and whose parent has not looked, is still in the group.
    alive = subprocess.run(
        ["pgrep", "--pgroup", str(group), "--runstates", "RSD"], stdout=subprocess.DEVNULL, check=False
    )
    return alive.returncode == 0


if __name__ == "__main__":
    main()
