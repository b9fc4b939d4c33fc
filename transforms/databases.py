"""The databases a warehouse can be: how a URL names each, and what each cannot do. ``sinks.dialects`` talks to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Database:
    """One database. ``name`` is SQLAlchemy's own; ``driver`` is the one that we use and nobody has to name.

    ``module`` is what Python imports of it, ``extra`` what brings it with pip where it is not built in.
    """

    name: str
    driver: str = ""
    module: str = ""
    extra: str | None = None
    also_called: tuple[str, ...] = ()
    is_file: bool = False
    keeps_zone: bool = False
    is_mysql: bool = False

    @property
    def scheme(self) -> str:
        """How a URL that is complete begins."""
        return f"{self.name}+{self.driver}" if self.driver else self.name


DATABASES = {
    database.name: database
    for database in (
        Database("duckdb", module="duckdb_engine", is_file=True, keeps_zone=True),
        Database("postgresql", "psycopg", "psycopg", "postgresql", also_called=("postgres",), keeps_zone=True),
        Database("mysql", "pymysql", "pymysql", "mysql", is_mysql=True),
        Database("mariadb", "pymysql", "pymysql", "mysql", is_mysql=True),
        Database("sqlite", module="sqlite3", is_file=True),
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
