"""`deployments/README.md`: its commands are run from the first to the last, as an operator would, on real servers."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import duckdb
import httpx
import pytest
import sqlalchemy as sa

from pipelines.flows.artifacts import COVERAGE_ARTIFACT
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests import databases
from tests.deployments import browser
from tests.deployments.containers import healthchecks
from tests.deployments.sandbox import Sandbox
from tests.e2e.command import REPOSITORY
from tests.flows.conftest import free_port
from tests.receiver import receiving

README = (REPOSITORY / "deployments" / "README.md").read_text()
NOT_RUN = "<!-- not run: docker -->\n"
ZONE = "Asia/Ho_Chi_Minh"
TODAY = datetime.now(UTC).date()
FIRST, DAYS = TODAY - timedelta(days=4), 3
OLD_DAY, OLD_CALLS = date(2026, 1, 2), 30
PASSWORD = "pass-word-%-of-postgresql"


@dataclass(frozen=True)
class Block:
    """The commands of one fenced block; ``heading`` is the chapter's."""

    heading: str
    commands: str
    is_run: bool


def blocks() -> list[Block]:
    found = []
    for chapter in re.split(r"^## ", README, flags=re.MULTILINE)[1:]:
        heading = chapter.splitlines()[0]
        for mark, commands in re.findall(rf"({re.escape(NOT_RUN)})?```sh\n(.*?)```", chapter, re.DOTALL):
            found.append(Block(heading, commands, not mark))
    assert len(found) == README.count("```sh")
    return found


@pytest.fixture(scope="module")
def portal() -> Iterator[SimulatedPortal]:
    """Three past days of calls, and some more at the beginning of a year that lies back."""
    portal = Portal(
        generate(seed=9, start_date=FIRST, days=DAYS, calls_total=240), PortalOptions(rate_limits=NO_LIMITS)
    )
    start, _ = (round(instant.timestamp() * 1000) for instant in day_bounds(OLD_DAY, ZONE))
    now = round(datetime.now(UTC).timestamp() * 1000)
    for number, row in enumerate(portal.rows(0, now)[:OLD_CALLS]):
        moved = row | {"id": f"old-{number}", "recorded": 0, "start_time": start + number, "end_time": start + number}
        portal.add_call(moved, call_id=f"old-{number}", start_ms=start + number)
    with SimulatedPortal(portal) as server:
        yield server


@pytest.fixture(scope="module")
def postgresql() -> Iterator[databases.Server]:
    """A server as a distribution installs it: nobody but the superuser is there."""
    with databases.postgresql() as server:
        server.execute(f"DROP USER {server.user}")
        yield server


def _require_programs() -> None:
    packages = {"rsync": "rsync", "pgrep": "procps", "systemd-analyze": "systemd", browser.PROGRAM: "chromium"}
    if missing := [package for program, package in packages.items() if shutil.which(program) is None]:
        message = f"not installed: Debian's packages {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, postgresql: databases.Server) -> Iterator[Sandbox]:
    _require_programs()
    sandbox = Sandbox(tmp_path_factory.mktemp("machine"), free_port(), free_port())
    sandbox.environment["PATH"] = f"{postgresql.programs}:{sandbox.environment['PATH']}"
    sandbox.environment |= {"PGHOST": str(postgresql.data), "PGUSER": "postgres"}
    try:
        yield sandbox
    finally:
        sandbox.shut_down()


@dataclass
class Operator:
    """Whoever goes through the README: runs a chapter's next block, and looks."""

    sandbox: Sandbox
    left: list[Block]

    def follow(self, heading: str, stdin: str = "") -> str:
        """Run the next block, which is one of this chapter, and return what it printed."""
        block = self.left.pop(0)
        assert block.heading == heading
        assert block.is_run
        return self.sandbox.run(block.commands, stdin)

    def counts(self) -> dict[str, int]:
        """Count the calls of the DuckDB file by local day."""
        file = self.sandbox.path("/var/lib/callhistory/data/warehouse.duckdb")
        with closing(duckdb.connect(str(file), read_only=True)) as connection:
            rows = connection.execute("SELECT call_date, count(*) FROM calls GROUP BY ALL").fetchall()
        return {str(day): count for day, count in rows}


@pytest.mark.timeout(900)
def test_the_whole_of_it(
    sandbox: Sandbox, portal: SimulatedPortal, postgresql: databases.Server, tmp_path: Path
) -> None:
    operator = Operator(sandbox, [block for block in blocks() if block.is_run])
    by_day = {
        str(FIRST + timedelta(days=n)): len(
            portal.portal.keys(
                *(round(i.timestamp() * 1000) - k for k, i in enumerate(day_bounds(FIRST + timedelta(days=n), ZONE)))
            )
        )
        for n in range(DAYS)
    }
    assert sum(by_day.values()) == 240

    sandbox.prepare_edit(
        STRINGEEX_BASE_URL=portal.base_url,
        STRINGEEX_API_KEY_SID=CREDENTIALS.api_key_sid,
        STRINGEEX_API_KEY_SECRET=CREDENTIALS.api_key_secret,
        CALLHISTORY_START_DATE=str(FIRST),
    )
    operator.follow("Install")
    assert sandbox.path("/opt/callhistory/bin/callhistory").is_file()
    assert "FAILED" not in operator.follow("Install")
    assert operator.counts() == by_day

    assert "Completed" in operator.follow("Schedule")
    _pause_schedules(sandbox)
    _look_at_the_run(sandbox, by_day, tmp_path)
    for check in healthchecks().values():
        sandbox.run(f"PATH=/opt/callhistory/bin:$PATH {shlex.join(check)}")
    operator.follow("Schedule")  # the timer
    operator.follow("Schedule", stdin="one\ntwo\nthree\n")
    with _prefect(sandbox) as http:
        blocks_saved = {block["name"] for block in http.post("/block_documents/filter", json={}).json()}
    pool = (REPOSITORY / "deployments" / "pools" / "docker.json").read_text()
    assert blocks_saved == set(re.findall(r"prefect\.blocks\.secret\.([\w-]+)", pool))

    with receiving() as receiver:
        never_read = FIRST - timedelta(days=1)
        sandbox.prepare_edit(CALLHISTORY_NOTIFY_URLS=receiver.url, CALLHISTORY_START_DATE=str(never_read))
        operator.follow("Look after it")  # the timer
        [told] = receiver.take()
        assert f"{never_read} is not complete" in told
        sandbox.prepare_edit(CALLHISTORY_NOTIFY_URLS="", CALLHISTORY_START_DATE=str(FIRST))
        sandbox.run("sudoedit /var/lib/callhistory/.env")
    seen = operator.follow("Look after it")
    assert "Nothing to look at." in seen
    assert "callhistory_" in seen
    assert str(FIRST) in seen

    with closing(duckdb.connect(str(sandbox.path("/var/lib/callhistory/data/warehouse.duckdb")))) as connection:
        connection.execute("ALTER TABLE export_windows DROP COLUMN error")
    operator.follow("Upgrade")
    _pause_schedules(sandbox)

    sandbox.prepare_edit(STRINGEEX_API_KEY_SECRET="of-an-old-key")
    sandbox.run("sudoedit /var/lib/callhistory/.env")
    with pytest.raises(AssertionError, match="STRINGEEX_API_KEY_SECRET"):
        sandbox.run("sudo -iu callhistory callhistory check")
    sandbox.prepare_edit(STRINGEEX_API_KEY_SECRET=CREDENTIALS.api_key_secret)
    assert "FAILED" not in operator.follow("Rotate credentials")

    assert "Both hold the same" in operator.follow("Back up and restore")
    with closing(duckdb.connect(str(sandbox.path("/var/lib/callhistory/data/warehouse.duckdb")))) as connection:
        connection.execute("DELETE FROM calls")
    operator.follow("Back up and restore")
    assert operator.counts() == by_day
    operator.follow("Back up and restore")
    assert operator.counts() == by_day

    assert "The calls name others, too." in operator.follow("People who ask")
    sandbox.prepare_edit(CALLHISTORY_PII_KEY="a key of the tests, long enough")
    sandbox.run("sudoedit /var/lib/callhistory/.env")
    assert "The receipt holds" in operator.follow("People who ask")

    sandbox.prepare_edit(CALLHISTORY_EVIDENCE_KEY_FILE="evidence.pem")
    assert "is the public key" in operator.follow("Evidence for an auditor")
    assert " 0 touched since" in operator.follow("Evidence for an auditor")

    url = f"postgresql://callhistory:{quote(PASSWORD)}@/callhistory?host={postgresql.data}"
    operator.follow("PostgreSQL", stdin=f"{PASSWORD}\n{PASSWORD}\n")
    sandbox.prepare_edit(CALLHISTORY_NEW_WAREHOUSE_URL=url)
    sandbox.prepare_edit(CALLHISTORY_WAREHOUSE_URL=url)
    assert "Both hold the same" in operator.follow("PostgreSQL")
    sandbox.run("sudo systemctl stop callhistory-worker.service")
    with pytest.raises(AssertionError, match="Connection refused"):
        sandbox.run(f"PATH=/opt/callhistory/bin:$PATH {shlex.join(healthchecks()['worker'])}")
    sandbox.run("sudo systemctl start callhistory-worker.service")
    operator.follow("PostgreSQL", stdin="of-the-analyst\nof-the-analyst\n")
    operator.follow("PostgreSQL")

    operator.follow("Backfill years")
    operator.follow("Backfill years")
    assert operator.left == []
    engine = sa.create_engine(f"postgresql+psycopg://analyst:of-the-analyst@/callhistory?host={postgresql.data}")
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT call_date, count(*) FROM calls GROUP BY call_date")).tuples().all()
    engine.dispose()
    assert {str(day): count for day, count in found} == by_day | {str(OLD_DAY): OLD_CALLS}


def _prefect(sandbox: Sandbox) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{sandbox.port}/api", trust_env=False, timeout=30)


def _look_at_the_run(sandbox: Sandbox, by_day: dict[str, int], profile: Path) -> None:
    """In the browser: the run, how the days stand after it, and the form that asks for a backfill."""
    with _prefect(sandbox) as http:
        [run] = http.post("/flow_runs/filter", json={"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}).json()
        artifacts = http.post("/artifacts/filter", json={}).json()
        backfill = http.get("/deployments/name/backfill_calls/on-demand").json()
    [coverage] = [artifact["id"] for artifact in artifacts if artifact["key"] == COVERAGE_ARTIFACT]
    ui = f"http://127.0.0.1:{sandbox.port}"
    shown = browser.open_page(f"{ui}/runs/flow-run/{run['id']}", profile).text
    assert f" Runs {run['name']} " in shown
    assert " Completed " in shown
    shown = browser.open_page(f"{ui}/artifacts/artifact/{coverage}", profile).text
    assert run["name"] in shown
    for day, calls in by_day.items():
        assert f"{day} complete {calls}" in shown
    shown = browser.open_page(f"{ui}/deployments/deployment/{backfill['id']}/run", profile).text
    for parameter in ("first", "last", "force (Optional)", "concurrency (Optional)"):
        assert f" {parameter} " in shown


def _pause_schedules(sandbox: Sandbox) -> None:
    """So that the time of day does not matter."""
    with _prefect(sandbox) as http:
        deployments = http.post("/deployments/filter", json={}).raise_for_status().json()
        assert len(deployments) == 7
        for deployment in deployments:
            http.post(f"/deployments/{deployment['id']}/pause_deployment").raise_for_status()


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert links
    assert all((REPOSITORY / "deployments" / link).exists() for link in links)


def test_it_names_every_deployment() -> None:
    import yaml

    deployments = yaml.safe_load((REPOSITORY / "deployments" / "prefect.yaml").read_text())["deployments"]
    named = set(re.findall(r"^\| `(\w+/[\w-]+)` \|", README, re.MULTILINE))
    assert named == {f"{d['entrypoint'].rpartition('.')[2]}/{d['name']}" for d in deployments}


def test_what_it_says_once_and_is_not_run_is_right() -> None:
    text = json.dumps([block.commands for block in blocks() if not block.is_run])
    for path in re.findall(r"deployments/[\w./]+", text):
        assert path == "deployments/.env" or (REPOSITORY / path).is_file(), path
