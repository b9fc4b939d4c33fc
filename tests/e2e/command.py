"""The real command in a process of its own, and an account at a simulated portal for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stamina.instrumentation import set_on_retry_hooks
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.simulator import CREDENTIALS

OURS = ("STRINGEEX_", "CALLHISTORY_", "PREFECT_")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout; anything else there fails the test."""
        data = json.loads(self.stdout)
        assert isinstance(data, dict)
        assert self.stdout.count("\n") == 1
        return data

    @property
    def output(self) -> str:
        """Everything that was shown."""
        return self.stdout + self.stderr


def account(base_url: str, **settings: str) -> dict[str, str]:
    """Return the settings of an account at the simulated portal, without limits."""
    return {
        "STRINGEEX_BASE_URL": base_url,
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
        "STRINGEEX_HISTORY_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_HOUR": "0",
        **settings,
    }


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that sees these settings and no others."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return inherited | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "100"} | settings


def command_line(*arguments: str) -> list[str]:
    """Return the command line of ``callhistory`` with these arguments."""
    return [sys.executable, "-m", "pipelines.cli.main", *arguments]


def callhistory(*arguments: str, cwd: Path, settings: Mapping[str, str], **options: Any) -> Finished:
    """Run ``callhistory`` to its end."""
    done = subprocess.run(
        command_line(*arguments),
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def callhistory_here(*arguments: str, cwd: Path, settings: Mapping[str, str]) -> Finished:
    """Run ``callhistory`` in this process, which spares the second that its imports take."""
    ours = [name for name in os.environ if name.startswith(OURS)]
    try:
        with chdir(cwd):
            done = CliRunner(env=dict.fromkeys(ours) | {"COLUMNS": "100"} | settings).invoke(app, arguments)
    finally:
        # The command says how retries are told, for the whole process.
        set_on_retry_hooks(None)
    return Finished(done.exit_code, done.stdout, done.stderr)
