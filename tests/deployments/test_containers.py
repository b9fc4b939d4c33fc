"""Dockerfile and `compose.yaml` without a container engine: what they name exists, what they start is run elsewhere.

Their commands are those of the systemd units and of the operator's README, which `test_operators_readme` runs, together
with their health checks.
"""

from __future__ import annotations

import asyncio
import fnmatch
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from dotenv import dotenv_values
from prefect.context import get_settings_context
from prefect.server.concurrency.lease_storage import get_concurrency_lease_storage
from prefect.settings import Settings

from pipelines.flows.command import CLIENT_RETRIES
from pipelines.settings import settings_reference
from tests.deployments.containers import (
    COMPOSE,
    DEPLOYMENTS,
    OUR_IMAGE,
    SERVICES,
    healthchecks,
    image,
    instructions,
    unit_environment,
)
from tests.e2e.command import REPOSITORY

README = (DEPLOYMENTS / "README.md").read_text()
EXAMPLE = dotenv_values(DEPLOYMENTS / "env.example")


def unit_command(name: str) -> list[str]:
    [command] = re.findall(r"^ExecStart=(.*)$", (DEPLOYMENTS / "systemd" / name).read_text(), re.MULTILINE)
    program, *arguments = shlex.split(command)
    return [Path(program).name, *arguments]


def copied() -> list[str]:
    """The files and folders that come from the repository."""
    copies = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [source for *sources, _ in copies if not sources[0].startswith("--from=") for source in sources]


def test_the_image_is_pinned_small_and_not_roots() -> None:
    bases = {rest.split()[0] for name, rest in instructions() if name == "FROM"}
    assert bases == {"python:3.11-slim"}
    assert sum(name == "FROM" for name, _ in instructions()) == 2, "what only building needs stays behind"
    assert int(image("USER")) > 0
    [uid] = re.findall(r"--uid (\d+)", image("RUN"))
    assert uid == image("USER")
    pool = json.loads((DEPLOYMENTS / "pools" / "kubernetes.json").read_text())
    assert pool["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == int(
        uid
    )
    # Prefect's workers give a container the whole command.
    assert "ENTRYPOINT" not in dict(instructions())
    [install] = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    assert "--constraint constraints.txt" in install
    pins = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)


def test_what_is_copied_exists_and_is_enough_to_build_the_package(tmp_path: Path) -> None:
    allowed = [
        line.removeprefix("!").rstrip("/")
        for line in (DEPLOYMENTS / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert sorted(allowed) == sorted(copied())
    source = tmp_path / "source"
    for name in copied():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(REPOSITORY / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, source], check=True
    )
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {
        str(path.relative_to(REPOSITORY))
        for package in ("transforms", "sinks", "pipelines")
        for path in (REPOSITORY / package).rglob("*.py")
    }
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    moved: dict[str, str] = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert {moved.get(module, module) for module in modules} <= names


def test_its_commands_are_those_that_the_readmes_test_runs() -> None:
    worker = unit_command("callhistory-worker.service")
    assert json.loads(image("CMD")) == worker
    assert "command" not in SERVICES["worker"]
    local = unit_command("callhistory-server.service")
    assert [word.replace("127.0.0.1", "0.0.0.0") for word in local] == SERVICES["server"]["command"]
    deploy = SERVICES["deploy"]["command"]
    [of_readme, _] = re.findall(r"^sudo -iu callhistory (prefect deploy .*)$", README, re.MULTILINE)
    *words, file = shlex.split(of_readme)
    assert [word for word in deploy if word != "--no-prompt"][:-1] == words
    copies = dict(rest.split() for name, rest in instructions() if name == "COPY" and len(rest.split()) == 2)
    assert copies["deployments/prefect.yaml"] == deploy[-1]
    assert Path(file).name == Path(deploy[-1]).name
    assert {**healthchecks()}.keys() == {"worker", "server", "postgresql"}


def test_a_worker_is_as_patient_with_the_server_as_a_command() -> None:
    for deployment in yaml.safe_load((DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]:
        variables = deployment["work_pool"]["job_variables"]["env"]
        assert variables == {"PREFECT_CLIENT_MAX_RETRIES": str(CLIENT_RETRIES)}, deployment["name"]


@pytest.mark.parametrize("where", ["systemd", "compose"])
def test_a_server_that_is_started_again_knows_who_is_at_work(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit = unit_environment("callhistory-server.service")
    variables = unit if where == "systemd" else SERVICES["server"]["environment"]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with get_settings_context().model_copy(update={"settings": Settings()}):
        lease = asyncio.run(get_concurrency_lease_storage().create_lease([uuid4()], timedelta(minutes=5)))
    assert [path for path in tmp_path.rglob("*") if path.stem == str(lease.id)]
    assert unit["PREFECT_HOME"].startswith("/var/lib/callhistory/")
    assert " PREFECT_HOME=/data/" in image("ENV")
    assert SERVICES["server"]["volumes"] == ["prefect:/data"]


def test_compose_starts_each_service_when_what_it_needs_is_healthy() -> None:
    for name, service in SERVICES.items():
        assert service["image"] == OUR_IMAGE or re.fullmatch(r"[a-z]+:\d+", service["image"]), name
        assert service["restart"] in ("unless-stopped", "on-failure:5"), name
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert needed in healthchecks()
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    [build] = [service["build"] for service in SERVICES.values() if "build" in service]
    assert (DEPLOYMENTS / build["context"]).resolve() == REPOSITORY
    assert (REPOSITORY / build["dockerfile"]).is_file()
    pool = json.loads((DEPLOYMENTS / "pools" / "docker.json").read_text())["variables"]["properties"]
    assert pool["image"]["default"] == OUR_IMAGE
    assert pool["networks"]["default"] == [f"{COMPOSE['name']}_default"]
    assert [volume.partition(":")[0] for volume in pool["volumes"]["default"]] == [f"{COMPOSE['name']}_data"]


def test_secrets_come_from_the_env_file_alone() -> None:
    known = {name for name, _, _ in settings_reference()} | {"POSTGRES_PASSWORD", "PREFECT_API_URL"}
    assert EXAMPLE.keys() <= known
    assert not any(value for name, value in EXAMPLE.items() if re.search("KEY|SECRET|PASSWORD|WAREHOUSE", name))
    text = (DEPLOYMENTS / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == {"POSTGRES_PASSWORD"}
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search("KEY|SECRET|PASSWORD|WAREHOUSE", variable):
                assert "${POSTGRES_PASSWORD:?" in value, name
    assert SERVICES["worker"]["env_file"] == [".env"]
    ignored = (REPOSITORY / ".gitignore").read_text().splitlines()
    assert any(fnmatch.fnmatch(".env", pattern) for pattern in ignored)
