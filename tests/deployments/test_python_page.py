"""The page about the Python API: its examples do what they say, and what they name is all that is promised."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from pipelines import api
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.command import account
from tests.readme import ROOT
from transforms.schema import CALL_PARTICIPANTS, CALLS

FIRST, SECOND, NEVER = date(2026, 1, 5), date(2026, 1, 6), date(2026, 1, 7)
PAGE = (ROOT / "deployments/PYTHON.md").read_text()
EXAMPLES = dict(re.findall(r"<!-- tested: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedPortal]:
    calls = generate(seed=4, start_date=FIRST, days=2, calls_total=90, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server


@pytest.fixture(autouse=True)
def folder(server: SimulatedPortal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in account(server.base_url).items()))
    return tmp_path


def run(example: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(EXAMPLES[example], found)
    return found


def test_a_range_is_exported_and_a_day_of_it_read(server: SimulatedPortal, folder: Path) -> None:
    assert run("export")["calls"] == 90
    found = run("day")
    day = found["day"]
    assert (day.state, day.is_complete) == (api.DayState.SETTLED, True)
    with duckdb.connect(str(folder / "data/warehouse.duckdb"), read_only=True) as warehouse:
        for table, frame in ((CALLS, day.calls), (CALL_PARTICIPANTS, day.participants)):
            assert {name: frame.dtypes[name] for name in frame} == table.pandas_dtypes
            query = f"SELECT {', '.join(table.column_names)} FROM {table.name} WHERE call_date = ? ORDER BY ALL"
            held = warehouse.sql(query, params=[FIRST]).to_arrow_table().cast(table.arrow_schema)
            order = [(name, "ascending") for name in table.key]
            given = pa.Table.from_pandas(frame, table.arrow_schema, preserve_index=False)
            assert given.sort_by(order).equals(held.sort_by(order))
        [(minutes,)] = warehouse.execute(
            "SELECT sum(talk_seconds) / 60 FROM calls WHERE call_date = ? AND direction = 'inbound'", [FIRST]
        ).fetchall()
    assert found["talk_minutes"]["inbound"] == pytest.approx(minutes)
    assert len(found["per_call"]) == len(day.participants) > 0


def test_a_day_that_was_never_exported_is_an_error_and_an_empty_one_an_empty_frame(server: SimulatedPortal) -> None:
    settings = api.load_settings()
    with pytest.raises(api.CallHistoryError, match="callhistory export"):
        api.read_day(settings, FIRST)
    assert api.export_range(settings, NEVER, NEVER).is_complete
    with pytest.raises(api.DataError, match=f"{FIRST} is missing: export it first"):
        api.read_day(settings, FIRST)
    day = api.read_day(settings, NEVER)
    assert (day.is_complete, len(day.calls), len(day.participants)) == (True, 0, 0)
    assert list(day.calls) == list(CALLS.column_names)
    with pytest.raises(ValueError, match="comes after"):
        api.export_range(settings, SECOND, FIRST)


def test_what_is_due_is_exported(server: SimulatedPortal, monkeypatch: pytest.MonkeyPatch) -> None:
    today = datetime.now(UTC).astimezone(api.load_settings().timezone).date()
    settings = api.load_settings(overrides={"CALLHISTORY_START_DATE": today.isoformat()})
    summary = api.export_due(settings)
    assert [day.call_date for day in summary.days()] in ([today], [today, today + pd.Timedelta(days=1)])
    assert api.read_day(settings, today).state is api.DayState.PROVISIONAL


def test_rows_become_tables() -> None:
    tables = run("rows")["tables"]
    [call] = tables.calls.to_dict("records")
    assert (call["call_id"], call["direction"], call["talk_seconds"]) == ("call-vn-1", "inbound", 61)
    assert str(call["started_at_local"]).startswith("2026-01-05 09:00:00")
    [reject] = tables.rejects.to_dict("records")
    assert (reject["call_id"], reject["field"]) == ("call-vn-2", "start_time")


def test_the_account_is_asked(server: SimulatedPortal) -> None:
    found = run("account")
    start, end = (round(instant.timestamp() * 1000) for instant in (
        datetime(2026, 1, 4, 17, tzinfo=UTC), datetime(2026, 1, 5, 17, tzinfo=UTC)
    ))  # fmt: skip
    assert sorted(row["id"] for row in found["served"]) == sorted(key[1] for key in server.portal.keys(start, end - 1))
    assert found["in_progress"] == ()


def test_every_name_is_explained_and_every_import_of_the_page_is_promised() -> None:
    assert EXAMPLES.keys() == {"export", "day", "rows", "account"}
    imported = {
        alias.name
        for example in EXAMPLES.values()
        for node in ast.walk(ast.parse(example))
        if isinstance(node, ast.ImportFrom) and node.module == "pipelines.api"
        for alias in node.names
    }
    assert imported <= set(api.__all__)
    assert all(inspect.getdoc(getattr(api, name)) for name in api.__all__)
    assert sorted(api.__all__) == api.__all__
