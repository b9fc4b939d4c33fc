"""A bare script: every page into memory, one Arrow table, one bulk upsert; none of the promises of this project.

``python -m tests.benchmarks.bare_script BASE_URL DATABASE_URL FOLDER START_MS END_MS``
"""

from __future__ import annotations

import sys

import orjson
import pyarrow as pa

from tests.benchmarks.history_pages import pages


def read(base_url: str, start_ms: int, end_ms: int) -> pa.Table:
    """Return all rows as one table; participants are JSON text, and a column of nulls only is text."""
    rows = [row for page in pages(base_url, start_ms, end_ms) for row in page]
    for row in rows:
        row["participants"] = orjson.dumps(row["participants"]).decode()
    table = pa.Table.from_pylist(rows)
    types = [pa.string() if pa.types.is_null(field.type) else field.type for field in table.schema]
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


def upsert_duckdb(table: pa.Table, path: str) -> None:
    import duckdb

    with duckdb.connect(path) as connection:
        connection.register("staged", table)
        connection.execute("CREATE TABLE IF NOT EXISTS calls AS SELECT * FROM staged LIMIT 0")
        connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS calls_id ON calls (id)")
        updates = ", ".join(f'"{name}" = excluded."{name}"' for name in table.column_names if name != "id")
        connection.execute(f"INSERT INTO calls SELECT * FROM staged ON CONFLICT (id) DO UPDATE SET {updates}")


def upsert_postgresql(table: pa.Table, url: str) -> None:
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("staged", table, mode="create", temporary=True)
        cursor.execute("CREATE TABLE IF NOT EXISTS calls (LIKE staged, PRIMARY KEY (id))")
        updates = ", ".join(f'"{name}" = excluded."{name}"' for name in table.column_names if name != "id")
        cursor.execute(f"INSERT INTO calls SELECT * FROM staged ON CONFLICT (id) DO UPDATE SET {updates}")
        connection.commit()


def main() -> None:
    base_url, database_url, _, start_ms, end_ms = sys.argv[1:]
    table = read(base_url, int(start_ms), int(end_ms))
    if database_url.startswith("duckdb:///"):
        upsert_duckdb(table, database_url.removeprefix("duckdb:///"))
    else:
        upsert_postgresql(table, database_url)


if __name__ == "__main__":
    main()
