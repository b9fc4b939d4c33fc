"""The dbt package, by dbt itself: it builds and passes on DuckDB and PostgreSQL, and fails on data that is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.dbt_sources import VIEW_KEYS, sources
from tests.e2e.place import Place
from tests.exports import FIRST
from tests.readme import DBT_SOURCES, ROOT

PROGRAM = ROOT / ".venv/dbt/bin/dbt"


@dataclass
class Dbt:
    """The package in a folder of its own, and the warehouse that it reads."""

    folder: Path
    target: str
    url: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "--no-use-colors", *arguments, "--target", self.target],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def query(self, statement: str) -> list[Any]:
        with sa.create_engine(self.url, poolclass=sa.pool.NullPool).begin() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []


@pytest.fixture
def dbt(tmp_path: Path, warehouse_url: str) -> Dbt:
    portal = Portal(generate(5, FIRST, 3, 400, late_arrival_share=0), PortalOptions(rate_limits=NO_LIMITS))
    with SimulatedPortal(portal) as server:
        done = Place(server, tmp_path, warehouse_url).run("backfill", "--from", str(FIRST), "--to", "2026-01-07")
        assert done.exit_code == 0, done.output
    folder = tmp_path / "package"
    shutil.copytree(ROOT / "deployments/bi/dbt", folder, ignore=shutil.ignore_patterns("target", "logs"))
    url = sa.make_url(warehouse_url)
    environment = {**os.environ, "DBT_PROFILES_DIR": str(folder), "DO_NOT_TRACK": "1"}
    if url.get_backend_name() == "duckdb":
        environment |= {"CALLHISTORY_DUCKDB": str(url.database), "CALLHISTORY_ANALYTICS": str(tmp_path / "a.duckdb")}
        return Dbt(folder, "duckdb", warehouse_url, environment)
    environment |= {"PGHOST": str(url.query["host"]), "PGUSER": str(url.username), "PGPASSWORD": str(url.password)}
    return Dbt(folder, "postgresql", warehouse_url, environment | {"PGDATABASE": str(url.database)})


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_the_package_builds_and_its_tests_pass_and_can_fail(dbt: Dbt) -> None:
    done = dbt.run("build")
    assert done.returncode == 0, done.stdout
    passed = re.search(r"PASS=(\d+) WARN=0 ERROR=0 SKIP=0", done.stdout)
    assert passed
    assert int(passed[1]) > 60
    assert not re.search(r"deprecat", done.stdout, re.IGNORECASE), done.stdout
    assert dbt.run("source", "freshness").returncode == 0

    found = dbt.run("show", "--inline", "select sum(calls) as c, sum(days) as d from {{ ref('weekly_service') }}")
    [(calls, days)] = dbt.query("SELECT sum(calls), count(*) FROM daily_metrics")
    assert re.search(rf"\|\s*{calls}\s*\|\s*{days}\s*\|", found.stdout), found.stdout

    dbt.query("UPDATE calls SET direction = 'sideways' WHERE call_id = (SELECT min(call_id) FROM calls)")
    old = "SELECT max(completed_at) - INTERVAL '4 days' FROM export_windows"
    dbt.query(f"UPDATE export_windows SET completed_at = ({old})")
    broken = dbt.run("build")
    assert broken.returncode == 1
    assert re.search(r"FAIL 1 source_accepted_values_callhistory_calls_direction", broken.stdout), broken.stdout
    assert dbt.run("source", "freshness").returncode == 1


def test_the_sources_follow_from_the_dictionary() -> None:
    assert DBT_SOURCES.read_text() == sources(), "python -m tests.readme"


@pytest.mark.parametrize("view", VIEW_KEYS)
def test_each_view_is_tested_by_its_key(view: str) -> None:
    text = sources()
    block: Callable[[str], str] = lambda name: text.split(f"  - name: {name}\n")[1].split("\n  - name: ")[0]  # noqa: E731
    key = block(view).split(f"- name: {VIEW_KEYS[view]}\n")[1].split("- name:")[0]
    assert "- unique" in key
    assert "- not_null" in key
