"""DuckDB as a tool: sorting and joining files in memory that is bounded for the process."""

from __future__ import annotations

import atexit
from functools import cache

import duckdb

from sinks.scratch import scratch_folder

_SORT_MEMORY = "128MB"


def sorting_connection() -> duckdb.DuckDBPyConnection:
    """Return a connection, to be closed, to the process's one in-memory DuckDB; what does not fit lies on disk."""
    return _sorter().cursor()


@cache
def _sorter() -> duckdb.DuckDBPyConnection:
    overflow = str(scratch_folder() / "overflow")
    connection = duckdb.connect(config={"memory_limit": _SORT_MEMORY, "threads": "1", "temp_directory": overflow})
    atexit.register(connection.close)
    return connection


def quoted(path: str) -> str:
    """Return ``path`` as a literal of DuckDB's SQL."""
    return "'" + path.replace("'", "''") + "'"
