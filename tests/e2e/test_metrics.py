"""``callhistory metrics``: printed, written and served; read back with Prometheus's own parser."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator import faults as fault
from pipelines.watch.metrics import GAUGES, UP
from pipelines.windows import day_bounds
from tests.e2e.command import account, callhistory_here, command_line, environment
from tests.readme import REFERENCE
from tests.today import TODAY, ZONE

FIRST = TODAY - timedelta(days=3)
WAREHOUSE = "data/warehouse.duckdb"


def parsed(text: str) -> dict[str, float]:
    """Return every sample of an exposition, as ``name`` or ``name{label}``; all must be gauges with a help text."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert (family.type, bool(family.documentation)) == ("gauge", True)
        for sample in family.samples:
            label = ",".join(sample.labels.values())
            found[f"{sample.name}{{{label}}}" if label else sample.name] = sample.value
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """An export of which the first day failed."""
    folder = tmp_path_factory.mktemp("metrics")
    portal = Portal(
        generate(7, FIRST, 3, 150, timezone=ZONE, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    start_ms = int(day_bounds(FIRST, ZONE)[0].timestamp() * 1000)
    portal.faults.append(fault.Envelope(r=7, message="no", when=lambda request: str(start_ms) in str(request.query)))
    with SimulatedPortal(portal) as server:
        settings = account(server.base_url, CALLHISTORY_TIMEZONE=ZONE, CALLHISTORY_START_DATE=str(FIRST))
        assert callhistory_here("export", cwd=folder, settings=settings).exit_code == 3
    return folder, settings


def test_what_is_printed_is_how_the_export_stands(exported: tuple[Path, dict[str, str]]) -> None:
    folder, settings = exported
    printed = callhistory_here("metrics", cwd=folder, settings=settings)
    assert printed.exit_code == 0, printed.stderr
    found = parsed(printed.stdout)
    status = callhistory_here("status", "--json", cwd=folder, settings=settings).json

    assert found[UP] == 1
    assert {name: found[name] for name in found if name.startswith("callhistory_days")} == {
        f"callhistory_days{{{state}}}": days for state, days in status["states"].items()
    }
    assert found["callhistory_days{failed}"] == found["callhistory_gap_days"] == 1
    assert found["callhistory_failed_windows"] == len(status["failed_windows"]) == 1
    assert found["callhistory_calls"] == status["calls"] > 50
    newest = datetime.fromtimestamp(found["callhistory_newest_instant_timestamp_seconds"], UTC)
    assert newest == datetime.fromisoformat(status["newest_instant"])
    # Asked for later, and in whole seconds.
    assert -1 < status["freshness_seconds"] - found["callhistory_freshness_seconds"] < 300
    assert found["callhistory_due_windows"] == status["due_windows"] == 2
    assert found["callhistory_due_requests"] == status["due_requests"] == 2
    assert found["callhistory_due_seconds"] == status["due_hours"] * 3600
    assert found["callhistory_recordings{pending}"] == status["recordings"]["pending"] > 0
    assert found["callhistory_alerts{incomplete}"] == len(status["alerts"]) == 1
    assert found["callhistory_alerts{stale}"] == 0
    assert found["callhistory_last_run_success{export}"] == 0
    ended = datetime.fromtimestamp(found["callhistory_last_run_end_timestamp_seconds{export}"], UTC)
    assert timedelta() <= datetime.now(UTC) - ended < timedelta(minutes=10)

    as_json = callhistory_here("metrics", "--json", cwd=folder, settings=settings).json["metrics"]
    assert {sample["name"] for sample in as_json} == {name.partition("{")[0] for name in found}
    days = {sample["labels"]["state"]: sample["value"] for sample in as_json if sample["name"] == "callhistory_days"}
    assert days == status["states"]


def test_names_are_as_prometheus_wants_them() -> None:
    names = [gauge.name for gauge in GAUGES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"callhistory(_[a-z]+)+", name) for name in names)
    assert not [name for name in names if name.endswith(("_total", "_count", "_sum", "_hours", "_days_seconds"))]


def test_the_reference_names_the_keys_of_the_status(exported: tuple[Path, dict[str, str]]) -> None:
    folder, settings = exported
    [listed] = re.findall(r"<!-- status keys -->(.*?)<!-- /status keys -->", REFERENCE.read_text(), re.DOTALL)
    status = callhistory_here("status", "--json", cwd=folder, settings=settings).json
    assert re.findall(r"`(\w+)`", listed) == list(status)


def test_a_file_is_written_as_a_whole_or_left_as_it_was(exported: tuple[Path, dict[str, str]]) -> None:
    folder, settings = exported
    (folder / "metrics").mkdir()
    file = folder / "metrics/callhistory.prom"
    file.write_text("before")
    arguments = ("metrics", "--output", "metrics/callhistory.prom")
    elsewhere = settings | {"CALLHISTORY_WAREHOUSE_URL": "duckdb:///none.duckdb"}
    assert callhistory_here(*arguments, cwd=folder, settings=elsewhere).exit_code == 1
    assert file.read_text() == "before"
    inode = file.stat().st_ino
    done = callhistory_here(*arguments, "--json", cwd=folder, settings=settings)
    assert (done.exit_code, done.json["file"]) == (0, "metrics/callhistory.prom")
    assert len(parsed(file.read_text())) == done.json["samples"] > len(GAUGES)
    assert file.stat().st_ino != inode, "another file has taken its place"
    assert list((folder / "metrics").iterdir()) == [file]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--output", "metrics.txt"),
        ("--listen", "nowhere"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", "9108", "--output", "a.prom"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = callhistory_here("metrics", *arguments, cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert arguments[0] in done.stderr


def test_served_until_stopped_and_read_at_each_scrape(exported: tuple[Path, dict[str, str]]) -> None:
    folder, settings = exported
    running = subprocess.Popen(
        command_line("metrics", "--listen", "0"),
        cwd=folder,
        env=environment(settings | {"CALLHISTORY_LOG_FORMAT": "json"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    try:
        url = json.loads(running.stderr.readline())["message"].split()[-1]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)

        def scrape() -> dict[str, Any]:
            with urllib.request.urlopen(url, timeout=30) as response:
                return parsed(response.read().decode())

        assert scrape()["callhistory_rejected_rows"] == 0
        # Between two scrapes the file is free.
        with duckdb.connect(str(folder / WAREHOUSE)) as connection:
            connection.execute("UPDATE export_windows SET late_changes = 5 WHERE call_date = ?", [FIRST])
        assert scrape()["callhistory_late_changed_calls"] == 5
        (folder / WAREHOUSE).rename(folder / "away.duckdb")
        assert scrape() == {UP: 0}
        (folder / "away.duckdb").rename(folder / WAREHOUSE)
        assert scrape()[UP] == 1
    finally:
        running.send_signal(signal.SIGTERM)
        _, stderr = running.communicate(timeout=30)
    assert running.returncode == 0
    assert [json.loads(line)["level"] for line in stderr.splitlines()] == ["WARNING", "INFO"]
