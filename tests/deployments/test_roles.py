"""The roles of the database's users: each can do its work, sees what it may see, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.dictionary import dictionary
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.views import MASKED_NAMES
from sinks.views.masked import MASKED, MASKS, SUFFIX
from sinks.warehouse import Warehouse
from tests import roles
from tests.databases import Server
from tests.e2e.command import Finished, account, callhistory_here
from tests.exports import FIRST
from tests.readme import ROLES, ROOT
from transforms.columns import Pii
from transforms.schema import COLUMNS, TABLES

DEPLOYMENTS = ROOT / "deployments"
PASSWORD = "may-do-little-7"
SERVERS = pytest.mark.parametrize("warehouse_url", ["postgresql", "mariadb"], indirect=True)
SECOND_PART = "-- The second part"


@dataclass(frozen=True)
class Administrator:
    """The superuser of a server, in the database ``url``."""

    server: Server
    url: str

    @property
    def name(self) -> str:
        return "postgresql" if self.is_postgresql else "mariadb"

    @property
    def is_postgresql(self) -> bool:
        return sa.make_url(self.url).get_backend_name() == "postgresql"

    @property
    def database(self) -> str:
        return str(sa.make_url(self.url).database)

    def run_script(self, text: str, url: str | None = None) -> None:
        """Run a file's statements, but for its comments; ``callhistory`` is the database there."""
        text = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).replace("callhistory.*", f"{self.database}.*")
        for statement in re.split(r";\n", text):
            if statement.strip():
                execute(url or self.url, statement)

    @contextmanager
    def user(self, role: str | None, user: str) -> Iterator[str]:
        """Make a user who has the role, if any, and nothing else; yield their URL."""
        execute(self.url, f"CREATE USER {user} {'PASSWORD' if self.is_postgresql else 'IDENTIFIED BY'} '{PASSWORD}'")
        if role is not None:
            execute(self.url, f"GRANT {role} TO {user}")
            if not self.is_postgresql:
                execute(self.url, f"SET DEFAULT ROLE {role} FOR {user}")
        try:
            yield self.server.url_of(self.database, user, PASSWORD)
        finally:
            if self.is_postgresql:
                execute(self.url, f"REASSIGN OWNED BY {user} TO CURRENT_USER")
                execute(self.url, f"DROP OWNED BY {user}")
            execute(self.url, f"DROP USER {user}")


@pytest.fixture
def administrator(warehouse_url: str, request: pytest.FixtureRequest) -> Administrator:
    is_postgresql = sa.make_url(warehouse_url).get_backend_name() == "postgresql"
    return Administrator(
        request.getfixturevalue("postgresql_server" if is_postgresql else "mariadb_server"), warehouse_url
    )


def execute(url: str, statement: str) -> None:
    with sa.create_engine(url, poolclass=sa.pool.NullPool).begin() as connection:
        connection.exec_driver_sql(statement.replace("%", "%%"))


def readable(url: str, names: list[str]) -> set[str]:
    """Return the relations that the user may read."""
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


def assert_refused(url: str, statement: str) -> None:
    with pytest.raises(sa.exc.DBAPIError, match="denied"):
        execute(url, statement)


RELATIONS = [*(relation.name for relation in dictionary() if relation.name != "request_budget"), *MASKED_NAMES]


@pytest.mark.parametrize("file", ROLES, ids=lambda file: file.stem)
def test_the_roles_follow_from_the_dictionary(file: Path) -> None:
    assert file.read_text() == ROLES[file](), "python -m tests.readme"
    assert {"daily_metrics", "hourly_metrics", "concurrency_daily", "completeness"} <= set(roles.without_people())
    assert not {"calls", "agents", "missed_calls_to_recover", "call_facts"} & set(roles.without_people())


def test_whatever_tells_of_people_has_a_masked_view() -> None:
    assert set(MASKED) == set(roles.with_people()) - {"recordings"}
    assert MASKS.keys() == set(Pii)


def test_a_masked_view_knows_of_each_column_what_its_table_says_of_it() -> None:
    """A view masks by name: no two tables may mean something else by the same one."""
    masked = [column for table in TABLES if table.name in MASKED for column in table.columns]
    assert [c.name for c in masked if c.name in COLUMNS and COLUMNS[c.name].pii is not c.pii] == []
    assert [c.name for c in masked if c.name not in COLUMNS and c.pii is not Pii.NONE] == []


@SERVERS
def test_a_role_reads_what_it_says_and_nothing_else(warehouse: Warehouse, administrator: Administrator) -> None:
    script = (DEPLOYMENTS / f"bi/roles-{administrator.name}.sql").read_text()
    administrator.run_script(script)
    execute(administrator.url, f"GRANT SELECT ON number_daily TO {roles.FIGURES}")
    administrator.run_script(script)  # as after an upgrade: an earlier version gave that too
    figures = roles.without_people()
    for role, wanted in (
        (roles.FIGURES, figures),
        (roles.MASKED, [*figures, *MASKED_NAMES]),
        (roles.PEOPLE, [*figures, *roles.with_people()]),
    ):
        with administrator.user(role, "bi") as url:
            assert readable(url, RELATIONS) == set(wanted)
            assert_refused(url, "DELETE FROM calls")


@pytest.fixture
def portal() -> Iterator[SimulatedPortal]:
    history = generate(seed=5, start_date=FIRST, days=1, calls_total=120, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(history, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server
        assert server.errors == []


@SERVERS
def test_a_writer_exports_an_archiver_archives_and_whoever_reads_masks_sees_nobody(
    administrator: Administrator, portal: SimulatedPortal, tmp_path: Path
) -> None:
    def run(url: str, *arguments: str) -> Finished:
        # With a limit, so that requests are counted in the database as usual.
        settings = account(
            portal.base_url,
            CALLHISTORY_WAREHOUSE_URL=url,
            STRINGEEX_REQUESTS_PER_HOUR="100000",
            STRINGEEX_RECORDINGS_PER_MINUTE="0",
        )
        return callhistory_here(*arguments, cwd=tmp_path, settings=settings)

    day = ("backfill", "--from", str(FIRST), "--to", str(FIRST))
    first, second = (DEPLOYMENTS / f"writers-{administrator.name}.sql").read_text().split(SECOND_PART)
    with ExitStack() as users:
        if administrator.is_postgresql:
            administrator.run_script(first)
            writer = users.enter_context(administrator.user(roles.WRITER, "exporter"))
            archiver = users.enter_context(administrator.user(roles.ARCHIVER, "archiver"))
        else:
            writer = users.enter_context(administrator.user(None, roles.WRITER))
            archiver = users.enter_context(administrator.user(None, roles.ARCHIVER))
            administrator.run_script(first)
        done = run(writer, *day, "--json")
        assert done.exit_code == 0, done.output
        done = run(writer, *day, "--force", "--json")
        assert (done.exit_code, done.json["calls_inserted"], done.json["calls_updated"]) == (0, 0, 0), done.output
        assert run(writer, "verify").exit_code == 0
        assert_refused(writer, "CREATE ROLE another")

        administrator.run_script(f"--{second}", writer if administrator.is_postgresql else None)
        done = run(archiver, "recordings", "archive", "--json")
        assert done.exit_code == 0, done.output
        assert done.json["archived"] > 0
        assert run(archiver, "recordings", "verify").exit_code == 0
        assert run(archiver, *day, "--force").exit_code == 1
        assert not {"call_participants", "rejected_rows", "call_versions"} & readable(archiver, RELATIONS)
        assert_refused(archiver, "DELETE FROM calls")
        assert_refused(archiver, "CREATE TABLE mine (id INTEGER)")

        script = (DEPLOYMENTS / f"bi/roles-{administrator.name}.sql").read_text()
        administrator.run_script(script)
        with administrator.user(roles.MASKED, "bi") as reader:
            assert_nobody_is_seen(administrator.url, reader)


def assert_nobody_is_seen(everything: str, masked: str) -> None:
    """No value that tells of somebody is part of any that the masked views show."""
    people: set[str] = set()
    with sa.create_engine(everything, poolclass=sa.pool.NullPool).connect() as connection:
        for table in TABLES:
            for column in table.columns:
                if table.name in MASKED and column.pii not in (Pii.NONE, Pii.PAYLOAD):
                    values = connection.exec_driver_sql(f"SELECT DISTINCT {column.name} FROM {table.name}").scalars()
                    people |= {value for value in values if value}
        # The company's own lines take part in calls too, and are shown.
        lines = connection.exec_driver_sql("SELECT DISTINCT stringee_number_e164 FROM calls").scalars().all()
        people -= {form for line in lines if line for form in (line, line.removeprefix("+"))}
        counts = {n: connection.exec_driver_sql(f"SELECT count(*) FROM {n}").scalar_one() for n in MASKED}
        called = set(connection.exec_driver_sql("SELECT DISTINCT customer_number FROM calls").scalars())
    assert len(people) > 50
    assert counts["calls"] > 50 < counts["call_participants"]
    with sa.create_engine(masked, poolclass=sa.pool.NullPool).connect() as connection:
        for name in MASKED:
            rows = connection.exec_driver_sql(f"SELECT * FROM {name}{SUFFIX}").fetchall()
            assert len(rows) == counts[name]
            shown = "\n".join(str(value) for row in rows for value in row)
            assert [person for person in people if person in shown] == [], name
        query = "SELECT DISTINCT customer_number, agent_name, agent_email, extra, stringee_number FROM calls_masked"
        numbers, names, addresses, extras, ours = zip(*connection.exec_driver_sql(query).fetchall(), strict=True)
    # What is left is of use: country and network, initials, domain, and which line it was.
    assert {n for n in numbers if n.startswith("8")} == {f"{n[:-6]}***{n[-3:]}" for n in called if n.startswith("8")}
    assert {n for n in names if n is not None and not re.fullmatch(r"\w\.( \w\.)*", n)} == set()
    assert {a for a in addresses if a is not None} == {"***@example.com"}
    assert set(extras) == {None}
    assert {line.removeprefix("+") for line in lines if line} <= set(ours)
