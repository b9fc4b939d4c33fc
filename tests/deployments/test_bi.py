"""The page for analysts: its recipes give the figures of the warehouse."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.e2e.command import callhistory
from tests.readme import ROOT

BI = ROOT / "deployments/bi"
PAGE = (BI / "README.md").read_text()
RECIPES = dict(re.findall(r"<!-- tested: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bi")
    done = callhistory("demo", "--calls", "600", "--days", "3", cwd=folder, settings={})
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def expected(demo: Path) -> list[tuple[date, int, int]]:
    with duckdb.connect(str(demo / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        query = "SELECT call_date, calls, missed FROM daily_metrics WHERE calls > 0 ORDER BY call_date"
        return connection.execute(query).fetchall()


def result_of(recipe: str, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(RECIPES[recipe], found)
    return found[name]


@pytest.mark.parametrize("recipe", ["duckdb", "pandas", "polars"])
def test_each_recipe_gives_the_days_of_the_warehouse(
    recipe: str, demo: Path, expected: list[tuple[date, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = result_of(recipe, "by_day", demo, monkeypatch)
    rows = frame.rows() if recipe == "polars" else list(frame.itertuples(index=False, name=None))
    days = [getattr(day, "date", lambda day=day: day)() for day, *_ in rows]
    assert [(day, int(calls), int(missed)) for day, (_, calls, missed) in zip(days, rows, strict=True)] == expected
    assert len(expected) == 3


def test_participants_join_their_calls(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = result_of("participants", "by_participant", demo, monkeypatch)
    with duckdb.connect(str(demo / "data/demo/warehouse.duckdb"), read_only=True) as connection:
        [(participants,)] = connection.execute("SELECT count(*) FROM call_participants").fetchall()
    assert len(frame) == participants > 0


def test_every_recipe_and_picture_is_there() -> None:
    assert RECIPES.keys() == {"duckdb", "pandas", "polars", "participants"}
    for picture in re.findall(r"\]\(([\w-]+\.(?:png|sql))\)", PAGE):
        assert (BI / picture).is_file()
