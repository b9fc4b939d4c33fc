"""PostgreSQL and MariaDB: what is refused, cut or held is named, and worth another try or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from pipelines.settings.values import read_warehouse_url
from sinks.dialects import backend_for
from sinks.warehouse import Warehouse
from tests import databases
from tests.contract.windows import AWKWARD, LATER, call, participant, publish, read
from transforms.databases import SCHEMES
from transforms.errors import BusyError, StorageError
from transforms.schema import CALLS


@pytest.fixture(params=["postgresql", "mariadb"])
def server(request: pytest.FixtureRequest) -> databases.Server:
    found: databases.Server = request.getfixturevalue(f"{request.param}_server")
    return found


def _refusal(url: str) -> str:
    with Warehouse(url, busy_timeout_seconds=1) as warehouse, pytest.raises(StorageError) as caught:
        warehouse.prepare()
    assert databases.SECRET not in str(caught.value)
    assert "wrong-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_password_an_unknown_database_and_user_are_named(server: databases.Server) -> None:
    existing = server.url.database or "mysql"
    assert "callhistory" in _refusal(server.url_of(existing, server.user, "wrong-word"))
    assert "no_such_database" in _refusal(server.url_of("no_such_database"))


def test_an_unreachable_host_is_named() -> None:
    # Port 9 of the loopback: nobody listens there.
    assert "127.0.0.1" in _refusal(f"postgresql+psycopg://u:{databases.SECRET}@127.0.0.1:9/d".replace("%", "%25"))
    assert "127.0.0.1" in _refusal(f"mysql+pymysql://u:{databases.SECRET}@127.0.0.1:9/d".replace("%", "%25"))


def test_a_missing_right_is_named_without_the_password(server: databases.Server) -> None:
    url = server.new_database()
    try:
        if server.url.get_backend_name() == "postgresql":
            server.execute(f"REVOKE ALL ON DATABASE {sa.make_url(url).database} FROM PUBLIC")
        mine = server.url_of(sa.make_url(url).database or "", server.user, databases.SECRET)
        assert "callhistory" in _refusal(mine)
    finally:
        server.drop_database(url)


def test_a_connection_that_was_cut_is_worth_another_try(server: databases.Server) -> None:
    url = server.new_database()
    kill = {
        "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        "mysql": "SELECT id FROM information_schema.processlist WHERE db = '{}'",
    }[server.url.get_backend_name()].format(sa.make_url(url).database)

    def cut_while_open(warehouse: Warehouse) -> None:
        with warehouse.transaction() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
            engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
            with engine.connect() as other:
                for number in other.exec_driver_sql(kill).scalars().all():
                    if server.url.get_backend_name() == "mysql":
                        other.exec_driver_sql(f"KILL {number}")
            connection.execute(sa.select(warehouse.tables["calls"]))

    try:
        with Warehouse(url) as warehouse:
            warehouse.prepare()
            with pytest.raises(BusyError):
                cut_while_open(warehouse)
            assert publish(warehouse, [call("one")])[0].inserted == 1
    finally:
        server.drop_database(url)


def test_a_lock_that_lasts_is_busy(server: databases.Server) -> None:
    url = server.new_database()
    try:
        with Warehouse(url, busy_timeout_seconds=1) as warehouse:
            warehouse.prepare()
            publish(warehouse, [call("one")])
            with warehouse.transaction() as connection:
                connection.execute(sa.update(warehouse.tables["calls"]).values(agent_name="held"))
                with pytest.raises(BusyError):
                    publish(warehouse, [call("one", agent_name="An")], now=LATER)
    finally:
        server.drop_database(url)


def test_without_local_infile_rows_are_inserted(mariadb_server: databases.Server) -> None:
    url = mariadb_server.new_database()
    rows = [call(f"text-{number}", contact_name=text) for number, text in enumerate(AWKWARD)]
    mariadb_server.execute("SET GLOBAL local_infile = 0")
    try:
        with Warehouse(url) as warehouse:
            warehouse.prepare()
            assert publish(warehouse, rows, [participant("text-1", 0)])[0].inserted == len(rows)
            found = {row["call_id"]: row["contact_name"] for row in read(warehouse, CALLS)}
            assert found == {row["call_id"]: row["contact_name"] for row in rows}
            assert publish(warehouse, rows, [participant("text-1", 0)], now=LATER)[0].unchanged == len(rows)
    finally:
        mariadb_server.execute("SET GLOBAL local_infile = 1")
        mariadb_server.drop_database(url)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_whatever_a_url_may_begin_with_has_a_backend(scheme: str, tmp_path: Path) -> None:
    database = SCHEMES[scheme]
    place = f"/{tmp_path}/w" if database.is_file else "user@127.0.0.1:1/nothing"
    backend = backend_for(read_warehouse_url(SecretStr(f"{scheme}://{place}")).get_secret_value(), 1)
    assert (backend.url.get_backend_name(), backend.is_embedded) == (database.name, database.is_file)
    backend.close()
