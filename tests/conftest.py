"""Databases for all tests: servers once per session (and worker), an empty database for each test that asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import stamina

from pipelines import redaction
from sinks.warehouse import Warehouse
from tests import databases

pytest_plugins = ("tests.faults.matrix",)

BACKENDS = ("duckdb", "sqlite", "postgresql", "mariadb")


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    # Without monkeypatch: whoever asks for it first has its changes undone last.
    redaction._secrets.clear()


@pytest.fixture
def retries_at_once() -> Iterator[None]:
    """Retries are as many as in earnest, but do not wait."""
    with stamina.set_testing(True, attempts=8, cap=True):
        yield


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[databases.Server]:
    with databases.postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[databases.Server]:
    if not databases.mariadb_is_installed():
        message = "MariaDB is not installed (mariadbd, mariadb-install-db: Debian's package mariadb-server)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with databases.mariadb() as server:
        yield server


@contextmanager
def _server_database(server: databases.Server) -> Iterator[str]:
    url = server.new_database()
    try:
        yield url
    finally:
        server.drop_database(url)


@pytest.fixture
def postgresql_url(postgresql_server: databases.Server) -> Iterator[Callable[[], str]]:
    """Return a function that creates one more empty PostgreSQL database and returns its URL."""
    urls: list[str] = []

    def create() -> str:
        urls.append(postgresql_server.new_database())
        return urls[-1]

    yield create
    for url in urls:
        postgresql_server.drop_database(url)


@pytest.fixture(params=BACKENDS)
def warehouse_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, once for each kind."""
    match request.param:
        case "duckdb" | "sqlite" as name:
            yield f"{name}:///{tmp_path / 'warehouse'}.{name}"
        case name:
            with _server_database(request.getfixturevalue(f"{name}_server")) as url:
                yield url


@pytest.fixture
def warehouse(warehouse_url: str) -> Iterator[Warehouse]:
    """A prepared, empty warehouse on each kind of database."""
    with Warehouse(warehouse_url, busy_timeout_seconds=20) as warehouse:
        warehouse.prepare()
        yield warehouse
