"""What the four databases do differently; no other module asks which one it is talking to.

How each is reached, how a batch of Arrow rows is loaded in bulk, and what its error codes mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import sqlalchemy as sa

from sinks.backend import Backend
from sinks.dialects.embedded import DuckDB, SQLite
from sinks.dialects.servers import MySQL, PostgreSQL
from transforms.databases import DATABASES, database_names
from transforms.errors import StorageError

_BACKENDS: Mapping[str, type[Backend]] = {
    "duckdb": DuckDB,
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "mysql": MySQL,
    "mariadb": MySQL,
}


def backend_for(url: str, busy_timeout_seconds: float) -> Backend:
    """Return the backend of a SQLAlchemy URL; raises ``StorageError`` if it or its driver is not there."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise StorageError("CALLHISTORY_WAREHOUSE_URL is not a SQLAlchemy URL") from None
    backend = _BACKENDS.get(parsed.get_backend_name())
    if backend is None:
        raise StorageError(f"CALLHISTORY_WAREHOUSE_URL should be of {database_names()}")
    database = DATABASES[parsed.get_backend_name()]
    if find_spec(database.driver) is None:
        raise StorageError(f"the warehouse needs a driver: pip install 'callhistory[{database.extra}]'")
    return backend(parsed, busy_timeout_seconds)
