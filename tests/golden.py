"""The golden files of the transforms: ``python -m tests.golden`` writes what is expected anew; read the difference."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from tests.unit.rows import normalised, records
from transforms.calls import Normalised

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


if __name__ == "__main__":
    for golden in WINDOW_STARTS:
        expected_file(golden).write_text(json.dumps(found(golden), indent=2, ensure_ascii=False) + "\n")
