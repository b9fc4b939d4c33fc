"""What the README says: its derived parts are current, its queries run, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import duckdb
import pytest

from tests.e2e.command import REPOSITORY, callhistory
from tests.readme import PARTS, README, REFERENCE, expected

TEXT = README.read_text()


def sql_blocks(kind: str) -> list[str]:
    [block] = re.findall(rf"<!-- tested: {kind} -->\n```sql\n(.*?)```", TEXT, re.DOTALL)
    return [statement for statement in block.split(";") if statement.strip()]


class Demo(NamedTuple):
    """Where a demo has written, and what it has printed."""

    folder: Path
    output: str


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("readme")
    done = callhistory("demo", "--calls", "700", "--days", "2", cwd=folder, settings={})
    assert done.exit_code == 0, done.output
    return Demo(folder, done.output)


@pytest.mark.parametrize("page", PARTS, ids=lambda page: page.name)
def test_what_follows_from_the_code_is_as_the_code_has_it(page: Path) -> None:
    assert expected(page) == page.read_text(), f"{page.name} is out of date: python -m tests.readme"


def test_the_demo_ends_as_the_readme_shows(demo: Demo) -> None:
    [shown] = re.findall(r"<!-- demo -->\n```\n(.*?)```", TEXT, re.DOTALL)
    assert shape(shown) <= shape(demo.output)


def shape(output: str) -> set[str]:
    """The lines of a report, each without its figures and the width of its columns."""
    return {re.sub(r"\s+", " ", re.sub(r"[\d,-]*\d", "0", line)).strip() for line in output.splitlines()}


def test_the_readme_is_short() -> None:
    assert len(TEXT.splitlines()) < 200


def test_its_warehouse_queries_run_and_find_the_calls(demo: Demo) -> None:
    with duckdb.connect(str(demo.folder / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        days, metrics = (connection.execute(query).fetchall() for query in sql_blocks("sql"))
    assert {status for _, status, *_ in days} == {"complete"}
    assert sum(calls for _, calls, *_ in metrics) > 600
    assert {is_complete for *_, is_complete in metrics} == {True}


def test_its_lake_query_counts_every_call(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo.folder)
    with duckdb.connect() as connection:
        [query] = sql_blocks("duckdb")
        rows = connection.execute(query).fetchall()
    assert len(rows) == 2
    assert sum(calls for _, calls, _ in rows) > 600


@pytest.mark.parametrize("page", PARTS, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text())
    assert links
    for file, heading in links:
        target = (page.parent / file) if file else page
        assert target.exists(), file
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"[^\w-]", "", h.lower().replace(" ", "-")) for h in headings}, heading


def test_its_make_targets_exist() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"make (\w+)", TEXT))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_tables_of_the_reference_are_those_of_the_warehouse(demo: Demo) -> None:
    with duckdb.connect(str(demo.folder / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        present = {
            name for (name,) in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()
        }
    named = set(
        re.findall(r"^\| `(\w+)`", REFERENCE.read_text().split("## Tables")[1].split("## Metrics")[0], re.MULTILINE)
    )
    assert named - {"request_budget"} == present
    assert set(re.findall(r"`(\w+)`", TEXT.split("query it\n")[1].split("Instants are")[0])) <= named
