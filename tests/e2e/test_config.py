"""``config show``: what is in force, where it came from, and never a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.settings import Settings
from tests.e2e.command import callhistory_here

SECRETS = {
    "STRINGEEX_API_KEY_SECRET": "hush-1",
    "CALLHISTORY_PII_KEY": "hush-2",
    "CALLHISTORY_NOTIFY_URLS": "slack://hush-3/b/c,mailto://me:hush-4@example.com",
    "CALLHISTORY_WAREHOUSE_URL": "postgresql://u:hush-5@host/db?password=hush-6",
}


def by_name(folder: Path, **settings: str) -> dict[str, dict[str, str]]:
    done = callhistory_here("config", "show", "--json", cwd=folder, settings=settings)
    assert done.exit_code == 0, done.output
    return {setting["name"]: setting for setting in done.json["settings"]}


def test_each_setting_says_where_it_came_from_and_what_a_relative_path_means(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CALLHISTORY_REGION=US\nCALLHISTORY_CONCURRENCY=3\nCALLHISTORY_REREAD=1d,2d\n")
    found = by_name(tmp_path, CALLHISTORY_CONCURRENCY="7")
    assert list(found) == [str(field.validation_alias) for field in Settings.model_fields.values()]
    assert found["CALLHISTORY_CONCURRENCY"] == {
        "name": "CALLHISTORY_CONCURRENCY",
        "value": "7",
        "origin": "in the environment",
        "means": None,
    }
    assert (found["CALLHISTORY_REGION"]["value"], found["CALLHISTORY_REGION"]["origin"]) == (
        "US",
        "in .env",
    )
    assert found["CALLHISTORY_REREAD"]["value"] == "1d,2d"
    assert (found["CALLHISTORY_TIMEZONE"]["value"], found["CALLHISTORY_TIMEZONE"]["origin"]) == (
        "Asia/Ho_Chi_Minh",
        "default",
    )
    assert found["CALLHISTORY_WAREHOUSE_URL"]["means"] == str(tmp_path / "data/warehouse.duckdb")
    assert found["CALLHISTORY_LAKE_URL"]["means"] == str(tmp_path / "data/lake")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_no_secret_is_shown(tmp_path: Path, arguments: list[str]) -> None:
    settings = {**SECRETS, "STRINGEEX_API_KEY_SID": "SKexample"}
    done = callhistory_here("config", "show", *arguments, cwd=tmp_path, settings=settings)
    assert done.exit_code == 0, done.output
    assert "hush" not in done.output
    assert "postgresql database db at host" in done.output
    assert "STRINGEEX_API_KEY_SECRET=***" in done.output or '"value": "***"' in done.output


def test_what_was_set_stands_first(tmp_path: Path) -> None:
    lines = callhistory_here("config", "show", cwd=tmp_path, settings={"CALLHISTORY_REGION": "US"}).stdout.splitlines()
    assert lines[0] == "CALLHISTORY_REGION=US  # in the environment"
    assert all(line.endswith("# default") for line in lines[1:])


def test_wrong_settings_are_told_as_everywhere(tmp_path: Path) -> None:
    done = callhistory_here("config", "show", cwd=tmp_path, settings={"CALLHISTORY_REGION": "nowhere"})
    assert done.exit_code == 2
    assert "CALLHISTORY_REGION" in done.stderr
