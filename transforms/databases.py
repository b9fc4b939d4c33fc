"""The databases a warehouse can be: how a URL names each, and what each can do. ``sinks.dialects`` talks to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Database:
    """One database. ``name`` is SQLAlchemy's own, ``driver`` the Python module by which it is reached.

    ``extra`` is what brings the driver with pip, where it is not built in; ``also_called`` how else a URL may name the
    database. ``is_file``: this process opens a file, and no server. ``keeps_zone``: a column can say that it holds an
    instant; elsewhere it is a wall clock in UTC. ``is_mysql``: MariaDB and MySQL share their types.
    """

    name: str
    driver: str
    extra: str | None = None
    also_called: tuple[str, ...] = ()
    is_file: bool = False
    keeps_zone: bool = False
    is_mysql: bool = False

    @property
    def scheme(self) -> str:
        """How a URL that is complete begins: that of a server names the driver."""
        return self.name if self.is_file else f"{self.name}+{self.driver}"


DATABASES = {
    database.name: database
    for database in (
        Database("duckdb", "duckdb_engine", is_file=True, keeps_zone=True),
        Database("postgresql", "psycopg", "postgresql", also_called=("postgres",), keeps_zone=True),
        Database("mysql", "pymysql", "mysql", is_mysql=True),
        Database("mariadb", "pymysql", "mysql", is_mysql=True),
        Database("sqlite", "sqlite3", is_file=True),
    )
}

SCHEMES = {
    name: database
    for database in DATABASES.values()
    for name in (database.name, database.scheme, *database.also_called)
}
"""Each way in which a URL may begin, and the database it means."""


def database_names() -> str:
    """Return the names of all databases, as a sentence lists them."""
    *names, last = DATABASES
    return f"{', '.join(names)} or {last}"
