"""An account exported to a lake and a warehouse, and everything that both then hold, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import sqlalchemy as sa

from pipelines.context import Pipeline, open_pipeline, utc_now
from pipelines.export.claims import LEASE
from pipelines.export.progress import Event
from pipelines.export.run import RunSummary, plan_days, run_plans
from pipelines.settings import Settings, load_settings
from pipelines.windows import day_bounds
from sinks.warehouse import Warehouse
from tests.e2e.command import account
from transforms.calls import normalise
from transforms.schema import CALL_PARTICIPANTS, CALLS, Table

ZONE = "Asia/Ho_Chi_Minh"
FIRST, LAST = date(2026, 1, 5), date(2026, 1, 14)
PAGE_ROWS = 100


@dataclass(frozen=True)
class Export:
    """An account, and the lake and warehouse it is exported to."""

    settings: Settings

    def run(
        self,
        first: date = FIRST,
        last: date = LAST,
        *,
        force: bool = False,
        on_event: Callable[[Event], None] | None = None,
        now: datetime | None = None,
        clock: Callable[[], datetime] | None = None,
        lease: timedelta = LEASE,
        patience: timedelta = timedelta(0),
    ) -> RunSummary:
        """Run it; by default a day that another keeps claimed is given up at once."""
        with self.open() as pipeline:
            plans = plan_days(pipeline, first, last, now or utc_now(), force=force)
            return run_plans(
                pipeline,
                plans,
                on_event=on_event,
                clock=clock or (lambda: now or utc_now()),
                lease=lease,
                patience=patience,
            )

    @contextmanager
    def open(self) -> Iterator[Pipeline]:
        with open_pipeline(self.settings) as pipeline:
            yield pipeline

    def warehouse(self, table: Table) -> pa.Table:
        """Everything in the warehouse's table, in the declared types, sorted by key."""
        return self.warehouse_tables([table])[table.name]

    def warehouse_tables(self, tables: Iterable[Table]) -> dict[str, pa.Table]:
        """The same of several tables, by name."""
        found = {}
        with Warehouse(self.settings.warehouse_url.get_secret_value()) as warehouse, warehouse.reading() as connection:
            for table in tables:
                rows = connection.execute(sa.select(warehouse.tables[table.name])).tuples().all()
                columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
                arrays = [pa.array(c, f.type) for c, f in zip(columns, table.arrow_schema, strict=True)]
                key = [(name, "ascending") for name in table.key]
                found[table.name] = pa.table(arrays, schema=table.arrow_schema).sort_by(key)
        return found

    def lake(self, table: Table) -> pa.Table:
        """Everything in the lake's files of the table, as DuckDB reads it."""
        with duckdb.connect() as connection:
            found = connection.sql(f"FROM read_parquet('{self.settings.lake_url}/{table.name}/*/*.parquet')")
            rows = found.to_arrow_table()
        return (
            rows.select(list(table.column_names))
            .cast(table.arrow_schema)
            .sort_by([(name, "ascending") for name in table.key])
        )

    def files(self) -> dict[str, tuple[int, int, bytes]]:
        """Every file of the lake: its inode, its time and its bytes."""
        root = Path(self.settings.lake_url)
        return {
            str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }


def export_of(
    base_url: str, warehouse_url: str, folder: Path, *, page_rows: int = PAGE_ROWS, **settings: str
) -> Export:
    overrides = account(
        base_url,
        CALLHISTORY_WAREHOUSE_URL=warehouse_url,
        CALLHISTORY_LAKE_URL=str(folder / "lake"),
        STRINGEEX_PAGE_SIZE=str(page_rows),
        **settings,
    )
    return Export(load_settings(None, overrides=overrides))


def expected(rows: list[Any], first: date = FIRST, last: date = LAST) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """What the rows that the portal serves should become: calls and participants by key, and how many rejects."""
    normalised = normalise(
        rows,
        window_start=day_bounds(first, ZONE)[0],
        window_end=day_bounds(last, ZONE)[1],
        timezone=ZONE,
        region="VN",
    )
    calls = normalised.calls.sort_values("call_id", ignore_index=True)
    participants = normalised.participants.sort_values(["call_id", "position"], ignore_index=True)
    return calls, participants, len(normalised.rejects)


def range_ms(first: date = FIRST, last: date = LAST) -> tuple[int, int]:
    """The days' milliseconds, both ends included, as the API takes them."""
    start, end = day_bounds(first, ZONE)[0], day_bounds(last, ZONE)[1]
    return int(start.timestamp() * 1000), int(end.timestamp() * 1000) - 1


def assert_equal_tables(found: pa.Table, wanted: pd.DataFrame, schema: pa.Schema) -> None:
    """Every value of every column that was wanted; the rows are in the same order."""
    wanted_table = pa.Table.from_pandas(wanted, preserve_index=False)
    assert found.num_rows == wanted_table.num_rows
    for name in wanted_table.column_names:
        assert found[name].equals(wanted_table[name].cast(schema.field(name).type)), name


def assert_holds(export: Export, rows: list[Any], first: date = FIRST, last: date = LAST) -> None:
    """Lake and warehouse hold these rows of the portal and nothing else, and agree in every value."""
    calls, participants, rejects = expected(rows, first, last)
    in_warehouse, in_lake = export.warehouse(CALLS), export.lake(CALLS)
    assert_equal_tables(in_warehouse, calls, CALLS.arrow_schema)
    assert in_lake.equals(in_warehouse)
    assert_equal_tables(export.warehouse(CALL_PARTICIPANTS), participants, CALL_PARTICIPANTS.arrow_schema)
    assert export.lake(CALL_PARTICIPANTS).equals(export.warehouse(CALL_PARTICIPANTS))
    with export.open() as pipeline:
        ledger = pipeline.ledger.rows(first, last)
    assert sum(row.rejected or 0 for row in ledger) == rejects
    assert sum(row.api_total or 0 for row in ledger) == len(rows)
    assert sum(row.lake_rows or 0 for row in ledger) == sum(row.warehouse_rows or 0 for row in ledger) == len(calls)
    assert all(row.content_hash == row.warehouse_content_hash for row in ledger)
