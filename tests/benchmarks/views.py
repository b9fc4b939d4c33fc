"""``python -m tests.benchmarks.views``: how long the views take over a long history; writes ``VIEWS.md``.

The history is made up here and loaded straight into the tables: as many calls as wanted over 280 days, so that a month
or a week is asked of a table that holds far more.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from sinks.warehouse import Warehouse
from tests import databases
from transforms.local_time import local_columns
from transforms.schema import CALLS

DAYS = 280
FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
MONTH = ("2026-08-01", "2026-08-31")
WEEK = ("2026-08-01", "2026-08-07")
ZONE = ZoneInfo("Asia/Ho_Chi_Minh")
QUERIES = {
    "daily_metrics": MONTH,
    "hourly_metrics": MONTH,
    "interval_metrics": MONTH,
    "number_daily": MONTH,
    "agent_daily": MONTH,
    "first_contact_resolution": MONTH,
    "concurrency_daily": MONTH,
    "repeat_calls": WEEK,
    "missed_call_recovery": WEEK,
    "missed_calls_to_recover": None,
    "agents": None,
}
"""What is asked: a view, and of which days."""

_RESULTS = Path(__file__).with_name("VIEWS.md")
_BATCH = 50_000
_ROUNDS = 3


def batches(calls: int) -> Iterator[pa.Table]:
    """Yield made-up calls in the declared types: a number calls five times, 200 agents, a fifth missed."""
    rng = np.random.default_rng(1)
    names = [field.name for field in CALLS.arrow_schema]
    for first in range(0, calls, _BATCH):
        number = np.arange(first, min(first + _BATCH, calls))
        rows = len(number)
        start_ms = int(FIRST_DAY.timestamp() * 1000) + number * (DAYS * 86_400_000 // calls)
        started_at = pa.array(start_ms, pa.timestamp("ms", "UTC"))
        duration, queue = rng.integers(0, 300, rows), rng.integers(0, 40, rows)
        callers = [f"+849{n:08d}" for n in rng.integers(0, calls // 5, rows)]
        agents = number % 200
        values: dict[str, object] = {
            "call_id": [f"call-vn-1-{n:010d}" for n in number],
            "direction": rng.choice(["inbound", "inbound", "inbound", "outbound", "internal"], rows),
            "status": rng.choice(["answered", "answered", "missed", "stopped_at_ivr"], rows),
            "channel": ["voice"] * rows,
            "started_at": started_at,
            "ended_at": pa.array(start_ms + duration * 1000, pa.timestamp("ms", "UTC")),
            "duration_seconds": duration,
            "queue_seconds": queue,
            "talk_seconds": np.maximum(duration - queue, 0),
            "acw_seconds": rng.integers(0, 60, rows),
            "customer_number": callers,
            "customer_number_e164": callers,
            "contact_name": [f"Nguyen Van {n}" for n in agents],
            "stringee_number": [f"8424710000{n % 9:02d}" for n in number],
            "agent_id": [f"agent_{n}" for n in agents],
            "agent_name": [f"Agent {n}" for n in agents],
            "has_voicemail": number % 17 == 0,
            "participant_count": np.zeros(rows, np.int32),
            "row_hash": [f"{n:032x}" for n in number],
            **dict.fromkeys(("window_start", "first_seen_at", "updated_at"), started_at),
            **local_columns(started_at, ZONE),
        }
        arrays = [
            pa.array(values[name], CALLS.arrow_schema.field(name).type)
            if name in values
            else pa.nulls(rows, CALLS.arrow_schema.field(name).type)
            for name in names
        ]
        yield pa.table(arrays, schema=CALLS.arrow_schema)


def measured(warehouse: Warehouse, calls: int) -> dict[str, float]:
    """Fill an empty warehouse, and return for each query the fewest seconds of several tries."""
    warehouse.prepare()
    table = warehouse.tables[CALLS.name]
    with warehouse.transaction() as connection:
        for batch in batches(calls):
            warehouse.backend.load(connection, table, batch)
        warehouse.backend.loaded(connection, table)
    found = {}
    for view, days in QUERIES.items():
        condition = f" WHERE call_date BETWEEN '{days[0]}' AND '{days[1]}'" if days else ""
        query = sa.text(f"SELECT * FROM {view}{condition}")
        taken = []
        for _ in range(_ROUNDS):
            with warehouse.reading() as connection:
                begun = time.perf_counter()
                rows = connection.execute(query).fetchall()
                taken.append(time.perf_counter() - begun)
            assert rows, view
        found[view] = min(taken)
        print(f"{warehouse.name:12} {view:26} {found[view]:6.2f} s", flush=True)
    return found


@contextmanager
def _warehouse(database: str) -> Iterator[Warehouse]:
    if database == "duckdb":
        with tempfile.TemporaryDirectory() as folder, Warehouse(f"duckdb:///{folder}/w.duckdb") as warehouse:
            yield warehouse
        return
    start = databases.postgresql if database == "postgresql" else databases.mariadb
    with start() as server, Warehouse(server.new_database()) as warehouse:
        yield warehouse


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.views", description=__doc__)
    parser.add_argument("--calls", type=int, default=1_500_000)
    parser.add_argument("--databases", nargs="+", default=["duckdb", "postgresql", "mariadb"])
    arguments = parser.parse_args()
    found = {}
    for database in arguments.databases:
        with _warehouse(database) as warehouse:
            found[database] = measured(warehouse, arguments.calls)
    lines = [
        "# The views over a long history",
        "",
        f"Written by `python -m tests.benchmarks.views` on {datetime.now(UTC):%Y-%m-%d}: {arguments.calls:,} calls "
        f"over {DAYS} days, of which a month ({MONTH[0]} to {MONTH[1]}) or a week is asked; a number calls five times. "
        f"Seconds are the fewest of {_ROUNDS} tries, the whole answer fetched. "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}.",
        "",
        f"| view | of | {' | '.join(found)} |",
        f"|---|---|{'--:|' * len(found)}",
    ]
    of = {MONTH: "a month", WEEK: "a week", None: "all"}
    lines += [
        f"| `{view}` | {of[days]} | {' | '.join(f'{found[database][view]:.2f} s' for database in found)} |"
        for view, days in QUERIES.items()
    ]
    _RESULTS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
