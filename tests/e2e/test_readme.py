"""What the README says: its derived parts are current, its queries run, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest

from tests.e2e.command import REPOSITORY, callhistory
from tests.readme import README, expected

TEXT = README.read_text()


def sql_blocks(kind: str) -> list[str]:
    [block] = re.findall(rf"<!-- tested: {kind} -->\n```sql\n(.*?)```", TEXT, re.DOTALL)
    return [statement for statement in block.split(";") if statement.strip()]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    done = callhistory("demo", "--calls", "700", "--days", "2", cwd=folder, settings={})
    assert done.exit_code == 0, done.output
    return folder


def test_settings_and_commands_are_those_of_the_code() -> None:
    assert expected(TEXT) == TEXT, "the README is out of date: python -m tests.readme"


def test_its_warehouse_queries_run_and_find_the_calls(demo: Path) -> None:
    with duckdb.connect(str(demo / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        days, hours, versions = (connection.execute(query).fetchall() for query in sql_blocks("sql"))
    assert {status for _, status, *_ in days} == {"complete"}
    assert sum(calls for _, _, calls in hours) > 100
    assert versions == []


def test_its_lake_query_counts_every_call(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)
    with duckdb.connect() as connection:
        [query] = sql_blocks("duckdb")
        rows = connection.execute(query).fetchall()
    assert len(rows) == 2
    assert sum(calls for _, calls, _ in rows) > 600


def test_its_files_and_make_targets_exist() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    assert links
    assert all((REPOSITORY / link).exists() for link in links)
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"make (\w+)", TEXT))
    assert targets == {"demo", "quick", "test", "bench"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_its_table_names_are_those_of_the_warehouse(demo: Path) -> None:
    with duckdb.connect(str(demo / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        present = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT.split("## Query it")[1].split("## Settings")[0], re.MULTILINE))
    assert named
    assert named <= present
