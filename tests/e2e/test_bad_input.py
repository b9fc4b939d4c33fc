"""What wrong input gets: one clear line, the right exit code, nothing half-written, and no request too many."""

import resource
import socket
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.databases import SECRET
from tests.e2e.command import account, callhistory, callhistory_here
from tests.today import TODAY, ZONE

HEAVY = ("pandas", "pyarrow", "sqlalchemy", "duckdb", "prefect", "httpx")
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture(scope="module")
def server():
    calls = generate(3, YESTERDAY, 1, 50, timezone=ZONE, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server


@pytest.fixture
def portal(server):
    server.portal.log.clear()
    return server.portal


@pytest.fixture
def run(server, portal, tmp_path):
    def run(*arguments, **settings):
        return callhistory_here(
            *arguments, cwd=tmp_path, settings=account(server.base_url, **({"CALLHISTORY_TIMEZONE": ZONE} | settings))
        )

    return run


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def assert_one_line(finished, exit_code, *parts):
    assert finished.exit_code == exit_code, finished.output
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert len(lines) == 1, finished.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["export", "check"])
def test_all_wrong_settings_are_named_before_anything_heavy_is_imported(tmp_path, monkeypatch, command):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    wrong = {"CALLHISTORY_WINDOW": "7x", "CALLHISTORY_CONCURRENCY": "0", "STRINGEEX_BASE_URL": "http://example.com"}
    done = callhistory(command, cwd=tmp_path, settings=wrong)
    assert done.exit_code == 2
    named = [*wrong, "STRINGEEX_API_KEY_SID", "STRINGEEX_API_KEY_SECRET"]
    shown = "\n".join(line for line in done.output.splitlines() if not line.startswith("import time:"))
    assert all(name in shown for name in named)
    assert "Traceback" not in shown
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "pipelines.settings" in imported
    if command == "export":
        assert imported & set(HEAVY) == set()
    assert files(tmp_path) == set()


def test_with_json_an_error_is_one_object_too(tmp_path):
    done = callhistory_here("export", "--json", cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert done.json["error_type"] == "SettingsError"
    assert "STRINGEEX_API_KEY_SECRET" in done.json["error"]
    assert done.json["error"] in done.stderr


# ---- credentials and network -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"STRINGEEX_API_KEY_SECRET": "wrong-secret-0001"}, "STRINGEEX_API_KEY_SECRET"),
        (
            {
                "STRINGEEX_API_KEY_SID": "",
                "STRINGEEX_API_KEY_SECRET": "",
                "STRINGEEX_EMAIL": "someone@example.com",
                "STRINGEEX_PASSWORD": "wrong-secret-0002",
            },
            "STRINGEEX_PASSWORD",
        ),
    ],
)
def test_wrong_credentials_are_one_line_and_no_storm(run, portal, settings, named):
    start_date = (TODAY - timedelta(days=5)).isoformat()
    assert_one_line(run("export", CALLHISTORY_START_DATE=start_date, **settings), 1, named)
    assert 1 <= len(portal.log) <= 3
    portal.log.clear()
    checked = run("check", "--json", **settings)
    assert checked.exit_code == 1
    assert named in checked.json["checks"][1]["message"]
    assert 1 <= len(portal.log) <= 3
    for output in (checked.output, run("export", "--debug", **settings).output):
        assert "wrong-secret" not in output
        assert "someone@example.com" not in output


def test_nobody_at_the_address_is_one_line(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        start_date = (TODAY - timedelta(days=20)).isoformat()
        done = run("export", STRINGEEX_BASE_URL=nobody, CALLHISTORY_START_DATE=start_date)
        assert_one_line(done, 1, "no connection")
    # Nothing is left claimed, and all of it is due as before.
    status = run("status", "--json", CALLHISTORY_START_DATE=start_date)
    assert {day["state"] for day in status.json["days"]} <= {"failed", "missing"}
    assert status.json["due_windows"] == 21


# ---- database and storage --------------------------------------------------------------------------------------------


def test_an_unknown_database_and_a_refused_password_are_named_first(run, portal, postgresql_server):
    unknown = postgresql_server.url_of("nowhere")
    assert_one_line(run("export", CALLHISTORY_WAREHOUSE_URL=unknown), 1, "nowhere", "CALLHISTORY_WAREHOUSE_URL")
    refused = postgresql_server.url_of("postgres", postgresql_server.user, SECRET + "-wrong")
    done = run("export", CALLHISTORY_WAREHOUSE_URL=refused.replace("s3cret-%-word", "s3cret-%25-word"))
    assert_one_line(done, 1, "password authentication failed")
    assert "s3cret" not in done.output
    assert portal.log == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CALLHISTORY_LAKE_URL", "file/lake"),
        ("CALLHISTORY_LAKE_URL", "/proc/callhistory"),
        ("CALLHISTORY_WAREHOUSE_URL", "duckdb:///file/warehouse.duckdb"),
        ("CALLHISTORY_WAREHOUSE_URL", "duckdb:////proc/callhistory/warehouse.duckdb"),
        ("CALLHISTORY_WAREHOUSE_URL", "sqlite:////proc/callhistory/warehouse.sqlite"),
        ("CALLHISTORY_WAREHOUSE_URL", "sqlite:///file"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_first(run, portal, tmp_path, name, value):
    (tmp_path / "file").write_text("no folder, and no database" * 100)
    assert_one_line(run("export", **{name: value}), 1, value.partition(":///")[2] or value)
    assert portal.log == []


def test_a_file_that_is_no_duckdb_database_is_named_first(run, portal, tmp_path):
    (tmp_path / "file").write_text("no database" * 100)
    assert_one_line(run("export", CALLHISTORY_WAREHOUSE_URL="duckdb:///file"), 1, "file")
    assert portal.log == []


def test_a_disk_that_is_full_from_the_start_is_named_first(server, portal, tmp_path):
    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    settings = account(server.base_url, PYTHONDONTWRITEBYTECODE="1")
    done = callhistory("export", cwd=tmp_path, settings=settings, preexec_fn=no_room)
    assert_one_line(done, 1, "warehouse.duckdb")
    assert portal.log == []


def test_a_warehouse_that_is_not_there_yet_is_no_riddle(run, tmp_path):
    assert_one_line(run("status"), 1, "warehouse.duckdb", "callhistory export")
    assert files(tmp_path) == set(), "to look is not to create"


# ---- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "parts"),
    [
        (YESTERDAY, YESTERDAY - timedelta(days=1), ["--from", "after --to"]),
        (YESTERDAY, TODAY + timedelta(days=1), ["--to", "future", str(TODAY)]),
        ("2026-02-30", TODAY, ["--from", "'2026-02-30'", "YYYY-MM-DD"]),
        ("2026-1-5", TODAY, ["--from", "YYYY-MM-DD"]),
        ("20260105", TODAY, ["--from", "YYYY-MM-DD"]),
        (YESTERDAY, "tomorrow", ["--to", "'tomorrow'"]),
        (YESTERDAY, "", ["--to", "YYYY-MM-DD"]),
    ],
)
def test_dates_that_make_no_sense(run, portal, tmp_path, first, last, parts):
    arguments = ("backfill", "--from", str(first), "--to", str(last))
    assert_one_line(run(*arguments), 2, *parts)
    as_json = run(*arguments, "--json", "--dry-run")
    assert (as_json.exit_code, as_json.json["error_type"]) == (2, "UsageError")
    assert portal.log == []
    assert files(tmp_path) == set()


def test_the_future_begins_where_the_account_is(run):
    kiritimati, niue = (datetime.now(ZoneInfo(name)).date() for name in ("Pacific/Kiritimati", "Pacific/Niue"))
    assert kiritimati > niue
    day = kiritimati.isoformat()
    arguments = ("backfill", "--from", day, "--to", day, "--dry-run")
    assert_one_line(run(*arguments, CALLHISTORY_TIMEZONE="Pacific/Niue"), 2, "Pacific/Niue", str(niue))
    assert run(*arguments, CALLHISTORY_TIMEZONE="Pacific/Kiritimati").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [["backfill", "--fro", "2026-01-05", "--json"], ["export", "--jsn", "--json"], ["nonsense", "--json"]],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_with_json_one_object(tmp_path, arguments):
    done = callhistory(*arguments, cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert done.json["error_type"] == "UsageError"
    assert done.stderr == f"error: {done.json['error']}\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["backfill", "--fro", "2026-01-05"], "(callhistory backfill --help shows what there is)"),
        (["calls", "stop"], "(callhistory calls stop --help shows what there is)"),
        (["nonsense"], "(callhistory --help shows what there is)"),
        (["rejects", "--json"], "(callhistory rejects --help shows what there is)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_hint_names_the_help_of_the_command_that_was_meant(tmp_path, arguments, hint):
    done = callhistory(*arguments, cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.rstrip().endswith(hint)


@pytest.mark.parametrize("group", ["calls", "greetings", "recordings", "rejects", "stores"])
def test_a_group_without_a_command_shows_its_help(tmp_path, group):
    done = callhistory(group, cwd=tmp_path, settings={})
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Usage: callhistory {group} ")
    assert done.stderr.rstrip() == callhistory(group, "-h", cwd=tmp_path, settings={}).stdout.rstrip()


def test_a_demo_of_nothing_is_refused(tmp_path):
    assert callhistory_here("demo", "--calls", "0", cwd=tmp_path, settings={}).exit_code == 2
    assert callhistory_here("demo", "--days", "0", cwd=tmp_path, settings={}).exit_code == 2
    assert files(tmp_path) == set()


# ---- bugs ------------------------------------------------------------------------------------------------------------


def test_a_bug_is_said_to_be_one_and_shows_data_to_nobody_who_did_not_ask(run, monkeypatch):
    def broken():
        raise KeyError("+84 90 000 0001")

    monkeypatch.setattr("pipelines.settings.load_settings", broken)
    assert_one_line(run("export"), 1, "KeyError", "bug", "--debug", "test_bad_input.py")
    assert "90 000 0001" not in run("export", "--json").output
    shown = run("export", "--debug")
    assert shown.exit_code == 1
    assert "Traceback" in shown.stderr
    assert "in broken" in shown.stderr


def test_an_apostrophe_in_a_path_was_a_parser_error(server, tmp_path):
    """In those of temporary files, of the database and of the lake, all of which DuckDB is told."""
    folder = tmp_path / "it's here"
    (folder / "temporary").mkdir(parents=True)
    settings = account(server.base_url, TMPDIR=str(folder / "temporary"))
    days = ("--from", str(YESTERDAY), "--to", str(YESTERDAY))
    for command in (("backfill", *days), ("verify", "--offline", *days), ("replay", *days), ("status",)):
        done = callhistory(*command, cwd=folder, settings=settings)
        assert done.exit_code == 0, done.output
