"""What the Dockerfile and `compose.yaml` say, for tests on a machine without a container engine."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml

from tests.e2e.command import REPOSITORY

DEPLOYMENTS = REPOSITORY / "deployments"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OUR_IMAGE = "callhistory"


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOYMENTS / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in lines if line)]


def image(instruction: str) -> str:
    """Return the argument of the last such instruction, which is what the image has."""
    return [rest for name, rest in instructions() if name == instruction][-1]


def unit_environment(name: str) -> dict[str, str]:
    """Return the variables that a systemd unit sets."""
    lines = re.findall(r"^Environment=(.*)$", (DEPLOYMENTS / "systemd" / name).read_text(), re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def healthchecks() -> dict[str, list[str]]:
    """Return the command that tells whether a service is healthy; a worker's is the image's."""
    found = {"worker": json.loads(image("HEALTHCHECK").partition("CMD")[2])}
    for name, service in SERVICES.items():
        if "test" in service.get("healthcheck", {}):
            kind, *command = service["healthcheck"]["test"]
            assert kind == "CMD"
            found[name] = command
    return found
