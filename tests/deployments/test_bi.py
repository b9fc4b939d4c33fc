"""The page for analysts: its recipes give the figures of the warehouse, its roles read no more than they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.dictionary import dictionary
from sinks.warehouse import Warehouse
from tests import roles
from tests.databases import Server
from tests.e2e.command import callhistory
from tests.readme import ROLES, ROOT

BI = ROOT / "deployments/bi"
PAGE = (BI / "README.md").read_text()
RECIPES = dict(re.findall(r"<!-- tested: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))
PASSWORD = "reads-only-7"


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


@pytest.mark.parametrize("file", ROLES, ids=lambda file: file.stem)
def test_the_roles_follow_from_the_dictionary(file: Path) -> None:
    assert file.read_text() == ROLES[file](), "python -m tests.readme"
    assert {"daily_metrics", "hourly_metrics", "concurrency_daily", "completeness"} <= set(roles.without_people())
    assert not {"calls", "agents", "missed_calls_to_recover", "call_facts"} & set(roles.without_people())


def _readable(url: str, names: list[str]) -> set[str]:
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    found = set()
    for name in names:
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(f"SELECT * FROM {name}").fetchall()
        except sa.exc.DBAPIError as error:
            if "denied" not in str(error):
                raise
        else:
            found.add(name)
    return found


def _writes(url: str, statement: str) -> None:
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.exec_driver_sql(statement)


@pytest.mark.parametrize("warehouse_url", ["postgresql", "mariadb"], indirect=True)
def test_a_role_reads_what_it_says_and_nothing_else(
    warehouse: Warehouse, warehouse_url: str, request: pytest.FixtureRequest
) -> None:
    url = sa.make_url(warehouse_url)
    is_postgresql = url.get_backend_name() == "postgresql"
    server: Server = request.getfixturevalue("postgresql_server" if is_postgresql else "mariadb_server")
    script = (BI / f"roles-{'postgresql' if is_postgresql else 'mariadb'}.sql").read_text()
    statements = [s for s in re.split(r";\n", re.sub(r"^--.*\n", "", script, flags=re.MULTILINE)) if s.strip()]
    run: Callable[[str], None] = lambda statement: _writes(warehouse_url, statement)  # noqa: E731
    for _ in range(2):  # as after an upgrade
        for statement in statements:
            run(statement)

    names = [relation.name for relation in dictionary() if relation.name != "request_budget"]
    for role, readable in ((roles.FIGURES, roles.without_people()),
                           (roles.PEOPLE, [*roles.without_people(), *roles.with_people()])):  # fmt: skip
        user = f"bi_{role.rsplit('_', 1)[1]}"
        if is_postgresql:
            run(f"DROP ROLE IF EXISTS {user}")
            run(f"CREATE USER {user} PASSWORD '{PASSWORD}'")
            run(f"GRANT {role} TO {user}")
        else:
            run(f"CREATE OR REPLACE USER {user} IDENTIFIED BY '{PASSWORD}'")
            run(f"GRANT {role} TO {user}")
            run(f"SET DEFAULT ROLE {role} FOR {user}")
        assert url.database is not None
        as_user = server.url_of(url.database, user, PASSWORD)
        assert _readable(as_user, names) == set(readable)
        with pytest.raises(sa.exc.DBAPIError, match="denied"):
            _writes(as_user, "DELETE FROM calls")
        if is_postgresql:
            run(f"DROP ROLE {user}")
        else:
            run(f"DROP USER {user}")
