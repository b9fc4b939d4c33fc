"""``init``: asks, tries, and writes a `.env` that only its owner reads; and the day a range may be given as."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import chdir
from datetime import date, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.settings import load_settings
from pipelines.settings.env_file import values_in
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.command import OURS, Finished
from tests.today import TODAY, ZONE

SECRET = CREDENTIALS.api_key_secret


@pytest.fixture
def server() -> Iterator[SimulatedPortal]:
    first = TODAY - timedelta(days=3)
    calls = generate(7, first, 3, 60, timezone=ZONE, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server


def run(
    folder: Path, server: SimulatedPortal, *arguments: str, answers: str | None = None, **settings: str
) -> Finished:
    unset = dict.fromkeys(name for name in os.environ if name.startswith(OURS))
    given = {"STRINGEEX_BASE_URL": server.base_url, "COLUMNS": "100", **settings}
    with chdir(folder):
        done = CliRunner(env=unset | given).invoke(app, arguments, input=answers)
    return Finished(done.exit_code, done.stdout, done.stderr)


def answered(*answers: str) -> str:
    return "".join(f"{answer}\n" for answer in answers)


def test_what_was_answered_is_tried_written_and_enough_for_an_export(server: SimulatedPortal, tmp_path: Path) -> None:
    first = (TODAY - timedelta(days=3)).isoformat()
    answers = answered(CREDENTIALS.api_key_sid, SECRET, "sqlite:///it's \\here.db", "", ZONE, first)
    done = run(tmp_path, server, "init", answers=answers)
    assert done.exit_code == 0, done.output
    assert SECRET not in done.output
    assert "credentials" in done.stderr
    file = tmp_path / ".env"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert values_in(file) == {
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": SECRET,
        "CALLHISTORY_WAREHOUSE_URL": "sqlite:///it's \\here.db",
        **({} if ZONE == "Asia/Ho_Chi_Minh" else {"CALLHISTORY_TIMEZONE": ZONE}),
        "CALLHISTORY_START_DATE": first,
    }
    assert load_settings(file).start_date == date.fromisoformat(first)
    made = {path.name for path in tmp_path.iterdir() if not path.name.endswith(".requests.sqlite")}
    assert made == {".env"}, "but for the count of its one request, it only tries"
    exported = run(tmp_path, server, "export", "--json")
    assert exported.exit_code == 0, exported.output
    assert exported.json["calls"] == 60


def test_a_file_that_is_there_is_not_touched(server: SimulatedPortal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CALLHISTORY_REGION=SG\n")
    done = run(tmp_path, server, "init", answers="")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is there already" in done.stderr
    assert (tmp_path / ".env").read_text() == "CALLHISTORY_REGION=SG\n"


@pytest.mark.parametrize("reply", ["n", "y"])
def test_what_does_not_work_is_written_only_when_that_is_wanted(
    server: SimulatedPortal, tmp_path: Path, reply: str
) -> None:
    done = run(tmp_path, server, "init", answers=answered(CREDENTIALS.api_key_sid, "wrong", "", "", "", "", reply))
    assert "FAILED credentials" in done.stderr
    assert done.exit_code == (0 if reply == "y" else 1)
    assert (tmp_path / ".env").exists() == (reply == "y")


def test_an_answer_that_is_no_setting_is_told_and_nothing_is_written(server: SimulatedPortal, tmp_path: Path) -> None:
    done = run(tmp_path, server, "init", answers=answered("", "a@example.com", "hush-hush", "", "", "Mars/Base", ""))
    assert done.exit_code == 2
    assert "CALLHISTORY_TIMEZONE" in done.stderr
    assert "hush-hush" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_days_are_given_as_people_say_them(server: SimulatedPortal, tmp_path: Path) -> None:
    settings = {
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": SECRET,
        "CALLHISTORY_TIMEZONE": ZONE,
        "CALLHISTORY_WAREHOUSE_URL": "sqlite:///warehouse.db",
    }

    def command(*arguments: str) -> Finished:
        return run(tmp_path, server, *arguments, **settings)

    refused = command("backfill")
    assert (refused.exit_code, "which days? Give --from and --to, or --last 7d" in refused.stderr) == (2, True)
    yesterday = command("backfill", "--from", "yesterday", "--to", "yesterday", "--json").json
    assert [day["call_date"] for day in yesterday["days"]] == [str(TODAY - timedelta(days=1))]
    others = command("backfill", "--last", "3d", "--json").json
    assert [day["call_date"] for day in others["days"]] == [str(TODAY - timedelta(days=n)) for n in (3, 2)]
    span = f"from {TODAY - timedelta(days=3)} to {TODAY - timedelta(days=1)}"
    replayed = command("replay")
    assert replayed.exit_code == 0, replayed.output
    assert f"replaying the local days {span}" in replayed.stderr
    verified = command("verify", "--offline")
    assert verified.exit_code == 0, verified.output
    assert "verifying 3 local days" in verified.stderr

    (tmp_path / "warehouse.db").unlink()
    again = command("replay", "--json").json
    assert (again["complete"], again["windows"]["anew"]) == (True, 3), "all that the raw copy has"
