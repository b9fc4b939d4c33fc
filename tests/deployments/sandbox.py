"""A machine of its own for the operator's commands: folders below a temporary one, stand-ins for sudo and systemd.

The commands are the README's, the units are ours and are really started; only where a system's folder is, who the
superuser is, and where dependencies come from (this environment, not the network) is stood in for.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.command import OURS, REPOSITORY

SYSTEM_FOLDERS = (
    "/opt/callhistory",
    "/var/lib/callhistory",
    "/var/backups/callhistory",
    "/etc/systemd/system",
    "/usr/local/bin",
)
CHECKOUT = (
    "pipelines",
    "sinks",
    "transforms",
    "deployments",
    "pyproject.toml",
    "constraints.txt",
    "README.md",
    "LICENSE",
)

SUDO = """#!/bin/bash
# Everybody is everybody here; -i begins in the home folder, as a login does.
while [[ $1 == -* ]]; do
    [[ $1 == *i* && $2 == callhistory ]] && cd "$HOME_OF_CALLHISTORY"
    shift 2
done
exec "$@"
"""
PYTHON3 = """#!/bin/bash
# `python3 -m venv FOLDER`, and in it what pip would have brought: the dependencies of this environment.
set -e
[[ $1 == -m && $2 == venv ]]
{python} -m venv --without-pip "$3"
echo {packages} > "$("$3/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
printf '#!/bin/bash\\nexec %s/bin/python -m pip "$@" --quiet --no-index --no-build-isolation\\n' "$3" > "$3/bin/pip"
printf '#!%s/bin/python\\nfrom prefect.cli import app\\napp()\\n' "$3" > "$3/bin/prefect"
chmod +x "$3/bin/pip" "$3/bin/prefect"
"""
SUDOEDIT = """#!/bin/bash
# The operator's hands: the edit that the test has prepared.
set -e
edit=$(ls "$EDITS" | head -1)
cat "$EDITS/$edit" >> "$1"
rm "$EDITS/$edit"
"""


@dataclass
class Sandbox:
    """The machine: ``root`` is its ``/``, ``port`` stands for 4200 of Prefect's server, ``worker_port`` for 8080."""

    root: Path
    port: int
    worker_port: int
    environment: dict[str, str] = field(default_factory=dict)
    edits_made: int = 0

    def __post_init__(self) -> None:
        for folder in ("stand-ins", "edits", "units", "home", *(f.lstrip("/") for f in SYSTEM_FOLDERS[2:])):
            (self.root / folder).mkdir(parents=True)
        (self.root / "opt").mkdir()
        (self.root / "var/lib").mkdir()
        stand_ins = {
            "sudo": SUDO,
            "sudoedit": SUDOEDIT,
            "python3": PYTHON3.format(python=sys.executable, packages=sysconfig.get_path("purelib")),
            "useradd": f"#!/bin/bash\nmkdir {self.path('/var/lib/callhistory')}\n",
            "chown": "#!/bin/bash\n",
            "systemctl": f'#!/bin/bash\nexec {sys.executable} {Path(__file__).with_name("systemctl.py")} "$@"\n',
        }
        for name, text in stand_ins.items():
            script = self.root / "stand-ins" / name
            script.write_text(text)
            script.chmod(0o755)
        checkout = self.root / "home" / "callhistory"
        for name in CHECKOUT:
            source, target = REPOSITORY / name, checkout / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source, target)
        for path in (checkout / "deployments").rglob("*"):
            if path.is_file() and path.suffix != ".png":
                path.write_text(self.adapted(path.read_text()))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith((*OURS, "PYTHON"))}
        path = f"{self.root}/stand-ins:{self.path('/usr/local/bin')}:{os.environ['PATH']}"
        self.environment = inherited | {
            "PATH": path,
            "HOME": str(self.root / "home"),
            "HOME_OF_CALLHISTORY": str(self.path("/var/lib/callhistory")),
            "EDITS": str(self.root / "edits"),
            "UNITS": str(self.path("/etc/systemd/system")),
            "UNIT_STATE": str(self.root / "units"),
            "COLUMNS": "200",
            "DO_NOT_TRACK": "1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_HOME": str(self.root / "home" / ".prefect"),
        }

    def path(self, system_path: str) -> Path:
        """Return where a path of the machine is."""
        return self.root / system_path.lstrip("/")

    def adapted(self, text: str) -> str:
        """Return a text of ours with the machine's paths and port."""
        for folder in SYSTEM_FOLDERS:
            text = re.sub(rf"(?<![\w.]){folder}(?![\w-])", str(self.path(folder)), text)
        return text.replace("4200", str(self.port)).replace("8080", str(self.worker_port))

    def prepare_edit(self, **settings: str) -> None:
        """Have the next ``sudoedit`` change these settings."""
        self.edits_made += 1
        lines = "".join(f"{name}={value}\n" for name, value in settings.items())
        (self.root / "edits" / f"{self.edits_made:03}").write_text(lines)

    def run(self, commands: str, stdin: str = "") -> str:
        """Run commands as the operator does, in the checkout, and return what they print; fail when one fails."""
        with subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self.adapted(commands)],
            cwd=self.root / "home" / "callhistory",
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, errors = process.communicate(stdin, timeout=180)
            finally:
                # Also what a command that hangs has started; services are in sessions of their own.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        logs = "".join(log.read_text()[-3000:] for log in (self.root / "units").glob("*.log"))
        assert process.returncode == 0, f"{commands}\nexit code {process.returncode}\n{output}{errors}\n{logs}"
        return output

    def shut_down(self) -> None:
        """End whatever was started."""
        for file in (self.root / "units").glob("*.pid"):
            with suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(int(file.read_text()), signal.SIGKILL)
