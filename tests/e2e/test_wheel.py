"""The built wheel, installed outside of the checkout, is all that the command needs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.e2e.command import REPOSITORY, environment

_PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment({"PYTHONPATH": ""}),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(
        *_PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, REPOSITORY, cwd=folder
    )
    [built] = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_packages_their_data_and_the_licence_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if not name.startswith("callhistory-")} == {
        "callhistory",
        "pipelines",
        "sinks",
        "transforms",
    }
    assert any(name.endswith("licenses/LICENSE") for name in names)
    source = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "sinks").rglob("*.sql")}
    assert source <= set(names)


def test_an_installed_wheel_runs_the_demo_outside_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    environment_folder = tmp_path / "venv"
    venv.create(environment_folder, with_pip=False)
    python = environment_folder / "bin" / "python"
    site_packages = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    # The dependencies are those of this environment; only the package itself is installed anew.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    run(*_PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=tmp_path)

    where = run(python, "-c", "import pipelines, sinks, transforms; print(pipelines.__file__)", cwd=tmp_path)
    assert where.startswith(str(site_packages))
    assert run(python, "-m", "callhistory", "--version", cwd=tmp_path).startswith("callhistory ")
    shown = run(
        environment_folder / "bin" / "callhistory", "demo", "--calls", "400", "--days", "2", "--json", cwd=tmp_path
    )
    assert json.loads(shown)["complete"] is True
    assert list((tmp_path / "data" / "demo" / "lake" / "calls").glob("call_date=*/calls.parquet"))
