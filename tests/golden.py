"""The golden files of the transforms, and the digest of the views: ``python -m tests.golden`` writes them anew."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from duckdb_engine import Dialect as DuckDbDialect
from sqlalchemy.dialects import mysql, postgresql, sqlite

from sinks.views import views
from tests.unit.rows import normalised, records
from transforms.calls import Normalised
from transforms.databases import DATABASES
from transforms.hashing import digest
from transforms.schema import TABLES

MYSQL = mysql.dialect()
MYSQL.server_version_info = (8, 0, 36)  # The generic dialect thinks of a MySQL that cannot cast to a double.
DIALECTS: dict[str, sa.engine.Dialect] = {
    "postgresql": postgresql.dialect(),
    "mysql": MYSQL,
    "sqlite": sqlite.dialect(),
    "duckdb": DuckDbDialect(),
}
VIEWS_VERSION = Path(__file__).parents[1] / "sinks/views/version.py"
GOLDEN = Path(__file__).parent / "unit/golden"
WINDOW_STARTS = {"version_1": {"window_start": datetime(2021, 7, 18, 17, tzinfo=UTC)}, "version_2": {}, "odd": {}}
"""Each golden file, and what differs from the usual window."""


def frames(result: Normalised) -> dict[str, pd.DataFrame]:
    """The tables of a batch, by name."""
    return {name: getattr(result, name) for name in ("calls", "participants", "rejects")}


def found(name: str) -> dict[str, Any]:
    """What the rows of a golden file become, as JSON can hold it."""
    rows = json.loads((GOLDEN / f"{name}.rows.json").read_text())
    tables = frames(normalised(rows, **WINDOW_STARTS[name]))
    return {
        table: [{column: _as_json(value) for column, value in record.items()} for record in records(frame)]
        for table, frame in tables.items()
    }


def expected_file(name: str) -> Path:
    """Return the file that holds what the rows are to become."""
    return GOLDEN / f"{name}.expected.json"


def _as_json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def views_digest() -> str:
    """Return what changes with the views: their SQL on every database, and what readers are told of them."""
    metadata = sa.MetaData()
    tables = {table.name: table.sql_table(metadata) for table in TABLES}
    texts = [
        f"{view.name} {view.query.compile(dialect=dialect, compile_kwargs={'literal_binds': True})} "
        f"{view.description} {view.columns}"
        for name, dialect in DIALECTS.items()
        for view in views(tables, masked=not DATABASES[name].is_file)
    ]
    return digest("\n".join(texts).encode())


if __name__ == "__main__":
    version = VIEWS_VERSION.read_text()
    VIEWS_VERSION.write_text(re.sub('DIGEST = ".*"', f'DIGEST = "{views_digest()}"', version))
    for golden in WINDOW_STARTS:
        expected_file(golden).write_text(json.dumps(found(golden), indent=2, ensure_ascii=False) + "\n")
