"""What a server, a database, a role, the URL or the environment sets otherwise: the rows are the same all the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.databases import SECRET, Server
from tests.e2e.command import account, callhistory_here
from tests.exports import FIRST, assert_holds, export_of, range_ms

NAMES = ["Nguyễn Thị Ánh", "Zoë", "back\\slash 'quoted' \"double\" `back`", "e\u0301 \U0001f4de", "trailing  "]


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedPortal]:
    calls = generate(seed=5, start_date=FIRST, days=1, calls_total=30, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    for row, name in zip(portal.rows(*range_ms(FIRST, FIRST)), NAMES, strict=False):
        portal.update_call(row["id"], contactname=name, agent_name=name)
    with SimulatedPortal(portal) as server:
        yield server


def assert_exports(server: SimulatedPortal, url: str, folder: Path) -> None:
    """Export a day twice, the second time with a change: certified, and every value what the portal serves."""
    export = export_of(server.base_url, url, folder)
    portal = server.portal
    [changed, *_] = portal.rows(*range_ms(FIRST, FIRST))
    for name in ("Ánh \\ 'Zoë'", NAMES[0]):
        assert export.run(FIRST, FIRST, force=True).is_complete
        assert_holds(export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
        portal.update_call(changed["id"], contactname=name)
    verified = callhistory_here(
        "verify",
        *("--offline", "--from", str(FIRST), "--to", str(FIRST)),
        cwd=folder,
        settings=account(
            server.base_url, CALLHISTORY_WAREHOUSE_URL=url, CALLHISTORY_LAKE_URL=str(export.settings.lake_url)
        ),
    )
    assert verified.exit_code == 0, verified.output


def assert_refused(server: SimulatedPortal, url: str, folder: Path, *parts: str) -> None:
    """``check`` and every command that opens the warehouse say what to do, before any request."""
    settings = account(server.base_url, CALLHISTORY_WAREHOUSE_URL=url)
    for command in ("check", "export", "status", "verify"):
        server.portal.log.clear()
        done = callhistory_here(command, cwd=folder, settings=settings)
        assert done.exit_code != 0, (command, done.output)
        assert all(part in " ".join(done.output.split()) for part in parts), (command, done.output)
        if command != "check":
            assert server.portal.log == []


def with_option(url: str, **options: str) -> str:
    return sa.make_url(url).update_query_dict(options).render_as_string(hide_password=False)


# --- PostgreSQL --------------------------------------------------------------------------------------------------

OF_A_ROLE = {
    "client_encoding": "LATIN1",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "500ms",
    "TimeZone": "Pacific/Auckland",
    "transform_null_equals": "on",
}
SLOWER_THAN_THE_TIMEOUT = (
    "SET default_transaction_read_only = off",
    "CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$",
    "CREATE TRIGGER slow AFTER INSERT OR UPDATE ON calls FOR EACH STATEMENT EXECUTE FUNCTION be_slow()",
)


@pytest.fixture
def postgresql_database(postgresql_server: Server) -> Iterator[str]:
    url = postgresql_server.new_database()
    yield url
    postgresql_server.drop_database(url)


@pytest.mark.parametrize("date_style", ["German", "SQL, DMY"])
def test_what_a_postgresql_role_and_database_set_changes_no_value(
    server: SimulatedPortal, postgresql_server: Server, postgresql_database: str, tmp_path: Path, date_style: str
) -> None:
    database = sa.make_url(postgresql_database).database
    settings = OF_A_ROLE | {"DateStyle": date_style}
    postgresql_server.execute(
        f"ALTER DATABASE {database} OWNER TO {postgresql_server.user}",
        *(f"ALTER DATABASE {database} SET {name} = '{value}'" for name, value in settings.items()),
    )
    url = postgresql_server.url_of(database or "", postgresql_server.user, SECRET)
    assert_exports(server, url, tmp_path)
    mine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with mine.connect() as connection:
        for statement in SLOWER_THAN_THE_TIMEOUT:
            connection.exec_driver_sql(statement)
    assert_exports(server, url, tmp_path)


@pytest.mark.parametrize("encoding", ["LATIN1", "no-such-encoding"])
def test_an_encoding_of_the_url_and_of_the_environment_changes_no_text(
    server: SimulatedPortal,
    postgresql_database: str,
    tmp_path: Path,
    encoding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", encoding)
    assert_exports(server, with_option(postgresql_database, client_encoding=encoding), tmp_path)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_postgresql_database_that_cannot_hold_every_name_is_refused(
    server: SimulatedPortal, postgresql_server: Server, tmp_path: Path, encoding: str
) -> None:
    name = f"warehouse_{encoding.lower()}"
    postgresql_server.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    url = postgresql_server.url_of(name)
    try:
        assert_refused(server, url, tmp_path, encoding, "ENCODING 'UTF8'")
    finally:
        postgresql_server.drop_database(url)


@pytest.mark.parametrize("search_path", ["", "pg_temp, public", "pg_catalog, public"])
def test_a_postgresql_search_path_without_a_place_for_tables_is_refused(
    server: SimulatedPortal, postgresql_server: Server, postgresql_database: str, tmp_path: Path, search_path: str
) -> None:
    database = sa.make_url(postgresql_database).database
    value = search_path or "''"
    postgresql_server.execute(f"ALTER DATABASE {database} SET search_path = {value}")
    done = callhistory_here(
        "export", cwd=tmp_path, settings=account(server.base_url, CALLHISTORY_WAREHOUSE_URL=postgresql_database)
    )
    assert done.exit_code == 1, done.output
    assert "CALLHISTORY_WAREHOUSE_SCHEMA" in done.output


def test_rows_that_a_policy_hides_are_an_error_and_no_smaller_count(
    server: SimulatedPortal, postgresql_server: Server, postgresql_database: str, tmp_path: Path
) -> None:
    database = sa.make_url(postgresql_database).database or ""
    assert_exports(server, postgresql_database, tmp_path)
    mine = sa.create_engine(postgresql_database, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with mine.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE calls ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql("CREATE POLICY mornings ON calls USING (call_hour < 12)")
        connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {postgresql_server.user}")
    url = postgresql_server.url_of(database, postgresql_server.user, SECRET)
    settings = account(server.base_url, CALLHISTORY_WAREHOUSE_URL=url, CALLHISTORY_LAKE_URL=str(tmp_path / "lake"))
    days = ("--from", str(FIRST), "--to", str(FIRST))
    done = callhistory_here("backfill", "--force", *days, cwd=tmp_path, settings=settings)
    assert done.exit_code in (1, 3), done.output
    assert "grant" in done.output


# --- MariaDB -----------------------------------------------------------------------------------------------------


@contextmanager
def _global(server: Server, **variables: str) -> Iterator[None]:
    server.execute(*(f"SET GLOBAL {name} = {value}" for name, value in variables.items()))
    try:
        yield
    finally:
        server.execute(*(f"SET GLOBAL {name} = DEFAULT" for name in variables))


@pytest.mark.parametrize(
    "variables",
    [
        {"sql_mode": "'ANSI'", "sql_safe_updates": "1", "sql_select_limit": "7", "max_join_size": "10"},
        {"sql_mode": "'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH'", "time_zone": "'+09:30'"},
        {"sql_mode": "'ORACLE'", "autocommit": "0", "tx_isolation": "'SERIALIZABLE'", "completion_type": "'CHAIN'"},
        {
            "character_set_server": "latin1",
            "character_set_client": "latin1",
            "max_statement_time": "0.001",
            "tx_read_only": "1",
        },
    ],
    ids=lambda variables: "-".join(variables.values()).replace("'", ""),
)
def test_what_a_mariadb_server_sets_changes_no_value(
    server: SimulatedPortal, mariadb_server: Server, tmp_path: Path, variables: dict[str, str]
) -> None:
    url = mariadb_server.new_database()
    try:
        with _global(mariadb_server, **variables):
            assert_exports(server, url, tmp_path)
    finally:
        mariadb_server.drop_database(url)


@pytest.mark.parametrize(
    "options", [{"charset": "latin1"}, {"sql_mode": "ANSI_QUOTES"}, {"init_command": "SET NAMES latin1"}]
)
def test_what_a_mariadb_url_says_changes_no_value(
    server: SimulatedPortal, mariadb_server: Server, tmp_path: Path, options: dict[str, str]
) -> None:
    url = mariadb_server.new_database()
    try:
        mariadb_server.execute(f"ALTER DATABASE {sa.make_url(url).database} CHARACTER SET latin1")
        assert_exports(server, with_option(url, **options), tmp_path)
    finally:
        mariadb_server.drop_database(url)


# --- files -------------------------------------------------------------------------------------------------------


def test_a_sqlite_file_of_utf_16_holds_the_same(server: SimulatedPortal, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA encoding = 'UTF-16le'")
        connection.exec_driver_sql("CREATE TABLE somebodys (text TEXT)")
    assert_exports(server, f"sqlite:///{path}", tmp_path)


def test_options_of_a_duckdb_url_decide_no_value(server: SimulatedPortal, tmp_path: Path) -> None:
    options = "TimeZone=Pacific/Auckland&default_collation=NOCASE&integer_division=true&default_null_order=nulls_first"
    assert_exports(server, f"duckdb:///{tmp_path}/warehouse.duckdb?{options}&memory_limit=200MB", tmp_path)
