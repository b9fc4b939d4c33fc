"""The command as users run it: its own process, a real portal on loopback, a warehouse file and a lake folder."""

import json
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.export.run import run_plans
from pipelines.settings import load_settings
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator import faults as fault
from pipelines.windows import day_bounds
from sinks.ledger import Ledger
from sinks.warehouse import Warehouse
from tests.e2e.command import Finished, account, callhistory, callhistory_here, command_line, environment
from tests.today import TODAY, ZONE

DAYS = 4
FIRST = TODAY - timedelta(days=DAYS - 1)
CALLS = 600


@pytest.fixture
def portal():
    """Calls on the three days before today, none of them late."""
    calls = generate(7, FIRST, DAYS - 1, CALLS, timezone=ZONE, late_arrival_share=0, late_change_share=0)
    return Portal(calls, PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def run(portal, tmp_path):
    """Return a function that runs a command of this account in a folder of its own."""
    with SimulatedPortal(portal) as server:
        settings = account(server.base_url, CALLHISTORY_TIMEZONE=ZONE, CALLHISTORY_START_DATE=FIRST.isoformat())

        def run(*arguments, own_process=False, **more):
            start = callhistory if own_process else callhistory_here
            return start(*arguments, cwd=tmp_path, settings=settings | more)

        run.settings = settings
        yield run


def bounds_ms(day):
    return tuple(int(instant.timestamp() * 1000) for instant in day_bounds(day, ZONE))


def truth(portal, day):
    """How many calls the portal has on a local day."""
    start_ms, end_ms = bounds_ms(day)
    return len(portal.keys(start_ms, end_ms - 1))


def query(tmp_path, sql):
    with duckdb.connect(str(tmp_path / "data/warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(sql).fetchall()


# ---- export, status, backfill ----------------------------------------------------------------------------------------


def test_an_export_from_nothing_to_a_second_run(run, portal, tmp_path):
    days = [FIRST + timedelta(days=offset) for offset in range(DAYS)]
    expected = {day.isoformat(): truth(portal, day) for day in days}

    first = run("export", "--json", own_process=True)
    assert first.exit_code == 0, first.stderr
    assert first.json["complete"] is True
    assert first.json["calls"] == first.json["calls_inserted"] == sum(expected.values()) > 0.9 * CALLS
    for count in ("api_total", "lake_rows", "warehouse_rows"):
        assert {day["call_date"]: day[count] for day in first.json["days"]} == expected
    assert query(tmp_path, "SELECT count(*), count(DISTINCT call_id) FROM calls") == [(sum(expected.values()),) * 2]

    status = run("status", "--json", own_process=True)
    assert status.exit_code == 0, status.stderr
    states = {day["call_date"]: (day["state"], day["calls"]) for day in status.json["days"]}
    assert states == {day: ("complete", expected[day]) for day in expected} | {
        TODAY.isoformat(): ("provisional", expected[TODAY.isoformat()])
    }
    assert (status.json["gaps"], status.json["failed_windows"], status.json["due_windows"]) == ([], [], 1)
    newest = datetime.fromisoformat(status.json["newest_instant"])
    assert timedelta() <= datetime.now(UTC) - newest < timedelta(minutes=5)

    portal.counts.clear()
    second = run("export", own_process=True)
    assert second.exit_code == 0, second.stderr
    assert "0 inserted, 0 updated, 0 restored, 0 vanished" in second.stdout
    assert portal.counts["history"] == 1, "only the day that is not over is due"

    shown = run("status")
    assert shown.exit_code == 0
    assert re.search(r"^\d{4}-\d\d +.*c", shown.stdout, re.MULTILINE)
    assert f"{sum(expected.values()):,} calls" in shown.stdout
    assert re.search(r"^gaps +none$", shown.stdout, re.MULTILINE)

    with duckdb.connect(str(tmp_path / "data/warehouse.duckdb")) as connection:
        connection.execute("UPDATE export_windows SET settled = true WHERE call_date < ?", [TODAY])
    settled = {day["call_date"] for day in run("status", "--json").json["days"] if day["state"] == "settled"}
    assert settled == set(expected) - {TODAY.isoformat()}


def test_a_backfill_does_its_range_and_no_more(run, portal, tmp_path):
    day = FIRST.isoformat()
    done = run("backfill", "--from", day, "--to", day, "--json")
    assert done.exit_code == 0, done.stderr
    assert [(d["call_date"], d["api_total"]) for d in done.json["days"]] == [(day, truth(portal, FIRST))]

    again = run("backfill", "--from", day, "--to", day)
    assert (again.exit_code, again.stdout) == (0, "Nothing is due.\n")

    requests = portal.counts["history"]
    forced = run("backfill", "--from", day, "--to", day, "--force", "--json")
    assert forced.exit_code == 0, forced.stderr
    assert portal.counts["history"] > requests
    assert forced.json["calls"] == truth(portal, FIRST)
    assert all(forced.json[f"calls_{kind}"] == 0 for kind in ("inserted", "updated", "restored", "vanished"))

    status = run("status", "--json")
    assert status.exit_code == 3
    yesterday = TODAY - timedelta(days=1)
    assert status.json["gaps"] == [{"from": (FIRST + timedelta(days=1)).isoformat(), "to": yesterday.isoformat()}]
    assert run("status").exit_code == 3


def test_a_dry_run_asks_the_api_for_nothing_and_needs_no_credentials(run, portal, tmp_path):
    arguments = ("backfill", "--from", FIRST.isoformat(), "--to", TODAY.isoformat(), "--dry-run")
    limits = {"STRINGEEX_HISTORY_REQUESTS_PER_10S": "1", "STRINGEEX_API_KEY_SID": "", "STRINGEEX_API_KEY_SECRET": ""}
    planned = run(*arguments, "--json", **limits)
    assert planned.exit_code == 0, planned.stderr
    assert (planned.json["windows"], planned.json["windows_of_unknown_size"]) == (DAYS, DAYS)
    assert {window["due"] for day in planned.json["days"] for window in day["windows"]} == {"new"}
    assert planned.json["disk_bytes"] is None
    assert not portal.counts
    assert not (tmp_path / "data").exists()

    assert run("export").exit_code == 0
    portal.counts.clear()
    known = run(*arguments, "--force", "--json", **limits)
    pages = sum(max(1, -(-truth(portal, FIRST + timedelta(days=offset)) // 100)) for offset in range(DAYS))
    assert (known.json["windows_of_unknown_size"], known.json["requests"]) == (0, pages)
    assert known.json["hours"] == round(pages / 360, 2)
    shown = run(*arguments, "--force", **limits)
    assert f"{DAYS} windows, {pages} requests, " in shown.stdout
    assert "hardly more on disk. Nothing was exported." in shown.stdout

    years = ("--from", (FIRST - timedelta(days=1000)).isoformat(), "--to", (FIRST - timedelta(days=1)).isoformat())
    long = run("backfill", *years, "--dry-run", "--json")
    calls = sum(truth(portal, FIRST + timedelta(days=offset)) for offset in range(DAYS))
    files = [path for path in (tmp_path / "data/lake").rglob("*") if path.suffix in {".parquet", ".zst"}]
    lake_bytes = sum(path.stat().st_size for path in files)
    assert long.json["disk_bytes"] == pytest.approx(1000 / DAYS * (lake_bytes + 660 * calls), abs=1)
    assert not portal.counts


# ---- what goes wrong on the way --------------------------------------------------------------------------------------


def test_a_failed_window_is_told_and_the_others_are_exported(run, portal):
    start_ms, _ = bounds_ms(FIRST)
    refused = fault.Envelope(r=7, message="no", when=lambda request: str(start_ms) in str(request.query))
    portal.faults.append(refused)
    failed = run("export")
    assert refused.fired
    assert failed.exit_code == 3
    assert re.search(rf"^{FIRST} .*FAILED$", failed.stdout, re.MULTILINE)
    assert "r=7" in failed.stdout
    assert "1 window failed" in failed.stdout
    assert len(re.findall(r" yes$", failed.stdout, re.MULTILINE)) == DAYS - 1
    assert "Traceback" not in failed.output

    status = run("status", "--json")
    assert status.exit_code == 3
    assert status.json["days"][0]["state"] == "failed"
    assert status.json["gaps"] == [{"from": FIRST.isoformat(), "to": FIRST.isoformat()}]
    assert "r=7" in status.json["failed_windows"][0]["error"]

    portal.faults.clear()
    mended = run("export", "--json")
    assert (mended.exit_code, mended.json["complete"]) == (0, True)
    assert FIRST.isoformat() in {day["call_date"] for day in mended.json["days"]}
    assert run("status").exit_code == 0


def test_a_day_that_another_run_has_claimed_is_left_to_it_and_said_so(run, portal, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.export.run.run_plans", partial(run_plans, patience=timedelta(0)))
    day = TODAY - timedelta(days=1)
    assert run("backfill", "--from", day.isoformat(), "--to", day.isoformat()).exit_code == 0
    with duckdb.connect(str(tmp_path / "data/warehouse.duckdb")) as connection:
        connection.execute(
            "UPDATE export_windows SET claimed_by = 'another', claim_expires_at = now() + INTERVAL 9 MINUTE"
        )
    portal.counts.clear()
    left = run("backfill", "--from", day.isoformat(), "--to", day.isoformat(), "--force")
    assert left.exit_code == 3, left.output
    assert re.search(rf"^{day} .*another run is at it$", left.stdout, re.MULTILINE)
    assert "1 window left to another run that is still at work: not proven yet." in left.stdout
    assert not portal.counts
    states = {d["call_date"]: d["state"] for d in run("status", "--json").json["days"]}
    assert states[day.isoformat()] == "running"


@pytest.mark.parametrize(
    ("number", "latency_seconds", "requests_per_hour"),
    [(signal.SIGTERM, 0.2, "0"), (signal.SIGINT, 0.0, "4")],
    ids=["SIGTERM while reading", "SIGINT while waiting for the budget, up to an hour"],
)
def test_a_signal_stops_a_run_cleanly(run, portal, tmp_path, number, latency_seconds, requests_per_hour):
    portal.options.latency_seconds = latency_seconds
    slow = {"STRINGEEX_PAGE_SIZE": "10", "STRINGEEX_REQUESTS_PER_HOUR": requests_per_hour}
    running = subprocess.Popen(
        command_line("export", "--json"),
        cwd=tmp_path,
        env=environment(run.settings | slow),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while portal.counts["history"] < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(number)
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 130
    assert json.loads(stdout) == {"error": stderr.strip().splitlines()[-1], "error_type": "KeyboardInterrupt"}
    assert stderr.strip().splitlines()[-1].startswith("stopped")
    warehouse = Warehouse(f"duckdb:///{tmp_path / 'data/warehouse.duckdb'}")
    rows = Ledger(warehouse).rows()
    assert rows
    assert all(row.claimed_by is None for row in rows)

    portal.options.latency_seconds = 0
    after = run("export", "--json")
    assert (after.exit_code, after.json["complete"]) == (0, True)
    assert after.json["calls"] == sum(truth(portal, FIRST + timedelta(days=offset)) for offset in range(DAYS))


def test_what_a_library_prints_does_not_get_into_the_json(run, monkeypatch):
    def chatty(**options):
        sys.stdout.write("a library says hello\n")
        return load_settings(**options)

    monkeypatch.setattr("pipelines.settings.load_settings", chatty)
    assert run("export").stdout.startswith("a library says hello\n")
    done = run("status", "--json")
    assert done.json["complete"] is True
    assert "a library says hello" in done.stderr


# ---- check, progress, Prefect ----------------------------------------------------------------------------------------


def test_check_tries_everything_with_one_request(run, portal):
    checked = run("check", "--json", own_process=True)
    assert checked.exit_code == 0, checked.output
    assert [check["name"] for check in checked.json["checks"]] == [
        "settings", "credentials", "database", "lake", "recordings archive"
    ]  # fmt: skip
    assert all(check["ok"] for check in checked.json["checks"])
    assert len(portal.log) == 1
    shown = run("check")
    assert [line[:7] for line in shown.stdout.splitlines()] == ["ok     "] * 5


def test_check_goes_on_after_a_failure(run, portal, tmp_path):
    (tmp_path / "file").write_text("")
    wrong = {"CALLHISTORY_LAKE_URL": "file/lake", "STRINGEEX_API_KEY_SECRET": "not-the-secret"}
    checked = run("check", "--json", **wrong)
    assert checked.exit_code == 1
    outcome = {check["name"]: check["ok"] for check in checked.json["checks"]}
    assert outcome == {
        "settings": True, "credentials": False, "database": True, "lake": False, "recordings archive": True
    }  # fmt: skip


def test_progress_is_lines_elsewhere_and_bars_on_a_terminal(run):
    lines = run("export", "--verbose", "--json", own_process=True)
    assert lines.json["complete"] is True
    assert len(re.findall(r"--\S+Z committed \(", lines.stderr)) == DAYS
    again = ("backfill", "--from", FIRST.isoformat(), "--to", TODAY.isoformat(), "--force")
    bars = run(*again, own_process=True, FORCE_COLOR="1")
    assert bars.exit_code == 0
    assert "━" in bars.stderr
    assert "all days" in bars.stderr
    assert "━" not in bars.stdout


def test_quiet_prints_nothing_while_all_is_well(run, portal):
    assert run("export", "--quiet", own_process=True) == Finished(0, "", "")
    assert run("status", "--quiet").output == ""
    assert run("export", "--quiet", "--json").json["complete"] is True
    portal.faults.append(fault.Status(status=403))
    failed = run("backfill", "--quiet", "--force", "--last", "1d", own_process=True)
    assert failed.exit_code != 0
    assert failed.output.count("\n") >= 1
    both = run("status", "--quiet", "--verbose")
    assert (both.exit_code, both.output) == (2, "error: --quiet and --verbose: leave one of them out\n")


def test_a_quiet_run_that_leaves_something_undone_shows_what(run, portal):
    unlucky = bounds_ms(FIRST)[0]
    portal.faults.append(fault.Envelope(r=7, message="no", when=lambda request: str(unlucky) in request.query_string))
    done = run("export", "--quiet", own_process=True)
    assert done.exit_code == 3
    assert f"{FIRST}" in done.stdout
    assert "FAILED" in done.stdout
    assert done.stderr == ""


def test_it_is_a_module_too(run):
    shown = subprocess.run(
        [sys.executable, "-m", "callhistory", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert shown.stdout.startswith("callhistory ")


def test_check_says_of_a_database_that_does_not_answer_only_that(run):
    url = "postgresql://u@127.0.0.1:1/calls"  # nobody listens there
    checked = run("check", own_process=True, CALLHISTORY_WAREHOUSE_URL=url, STRINGEEX_REQUESTS_PER_HOUR="9000")
    assert checked.exit_code == 1
    assert "ok     credentials" in checked.stdout
    assert "FAILED database: cannot open the postgresql database calls" in checked.stdout
    assert checked.stderr == ""


def test_with_a_prefect_api_the_flow_does_the_work(monkeypatch, tmp_path):
    done = {
        "complete": False,
        "calls": 1, "calls_inserted": 1, "calls_updated": 0, "calls_restored": 0, "calls_vanished": 0,
        "rows_rejected": 0, "files_written": 2, "requests": 3, "days": [], "errors": [],
    }  # fmt: skip
    calls = []
    flows = SimpleNamespace(
        run_export_flow=lambda: calls.append("export") or done,
        run_backfill_flow=lambda *range_, **options: calls.append((*range_, options)) or done,
    )
    monkeypatch.setitem(sys.modules, "pipelines.flows", flows)
    monkeypatch.chdir(tmp_path)
    settings = account("http://127.0.0.1:9", PREFECT_API_URL="http://127.0.0.1:9/api")
    runner = CliRunner(env=settings)
    exported = runner.invoke(app, ["export", "--json"])
    assert (exported.exit_code, json.loads(exported.stdout)) == (3, done)
    day = FIRST.isoformat()
    backfilled = runner.invoke(app, ["backfill", "--from", day, "--to", day, "--force", "--json"])
    assert (backfilled.exit_code, json.loads(backfilled.stdout)) == (3, done)
    assert calls == ["export", (FIRST, FIRST, True, {"dask": None, "accept_vanished": False})]


# ---- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_ends_with_queries_that_work_as_printed(tmp_path):
    bystanders = [tmp_path / "data/lake/mine.txt", tmp_path / "data/demo/mine.txt"]
    for bystander in bystanders:
        bystander.parent.mkdir(parents=True)
        bystander.write_text("mine")
    # The settings of a real account must not get into the demo.
    others = {"STRINGEEX_EMAIL": "someone@example.com", "STRINGEEX_PASSWORD": "x", "CALLHISTORY_WINDOW": "nonsense"}
    demo = callhistory("demo", "--calls", "700", "--days", "3", cwd=tmp_path, settings=others)
    assert demo.exit_code == 0, demo.output
    assert demo.stdout.count("\n") < 30, "one screen"
    exported = int(re.search(r"^([\d,]+) calls exported", demo.stdout, re.MULTILINE)[1].replace(",", ""))
    assert 0.9 * 700 < exported <= 700
    assert len(re.findall(r"^\d{4}-\d\d-\d\d .* yes$", demo.stdout, re.MULTILINE)) == 3
    assert (tmp_path / "data/demo/lake/calls").is_dir()

    report = Path(re.search(r"^Report: +(.+)$", demo.stdout, re.MULTILINE)[1])
    assert f'data-figure="calls" data-value="{exported}"' in report.read_text()

    commands = re.findall(r"^.*import duckdb.*$", demo.stdout, re.MULTILINE)
    assert len(commands) == 2
    for line in commands:
        shown = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert column_sum(shown.stdout, "calls") == exported

    again = callhistory("demo", "--calls", "700", "--days", "3", "--json", cwd=tmp_path, settings={})
    assert again.exit_code == 0, again.stderr
    assert again.json["calls"] == again.json["calls_inserted"] == exported, "the demo starts anew"
    assert {again.json["queries"]["parquet"], again.json["queries"]["database"]} == set(commands)
    assert all(bystander.read_text() == "mine" for bystander in bystanders)


def column_sum(box, name):
    """Sum a column of the table that DuckDB draws."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in box.splitlines() if line.startswith("│")]
    position = rows[0].index(name)
    return sum(int(row[position]) for row in rows[1:] if row[position].isdigit())
