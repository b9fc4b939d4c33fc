"""What the warehouse holds of one window: counted, listed, forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime

import pyarrow as pa
import sqlalchemy as sa

from sinks.content_hash import content_hash
from sinks.warehouse import Warehouse
from transforms.rejects import RejectReason
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    EXPORT_WINDOWS,
    LATE_CHANGES,
    REJECTED_ROWS,
    Table,
)

_HASHES_PER_FETCH = 10_000


@dataclass(frozen=True)
class WindowCounts:
    """What the warehouse holds of a window: ``calls`` not deleted, and their ``content_hash``."""

    calls: int
    content_hash: str


def row_count(connection: sa.Connection, source: sa.FromClause, *conditions: sa.ColumnElement[bool]) -> int:
    """Count the rows of a table or a join that meet ``conditions``."""
    return connection.execute(sa.select(sa.func.count()).select_from(source).where(*conditions)).scalar_one()


def window_counts(
    connection: sa.Connection, calls: sa.Table, window_start: datetime, window_end: datetime
) -> WindowCounts:
    """Count and hash the calls of ``[window_start, window_end)`` that are not deleted, in constant memory."""
    count = 0

    def hashes(rows: Iterable[str]) -> Iterable[str]:
        nonlocal count
        for count, row_hash in enumerate(rows, start=1):  # noqa: B007
            yield row_hash

    query = sa.select(calls.c.row_hash).where(
        calls.c.started_at >= window_start, calls.c.started_at < window_end, calls.c.deleted_at.is_(None)
    )
    with connection.execute(query, execution_options={"yield_per": _HASHES_PER_FETCH}) as result:
        digest = content_hash(hashes(result.scalars()))
    return WindowCounts(count, digest)


def reject_count(warehouse: Warehouse, connection: sa.Connection, window_start: datetime, window_end: datetime) -> int:
    """Count the rejected rows of ``[window_start, window_end)``."""
    t = warehouse.tables[REJECTED_ROWS.name]
    return row_count(connection, t, t.c.window_start >= window_start, t.c.window_start < window_end)


def moved_calls(warehouse: Warehouse) -> list[tuple[datetime, ...]]:
    """Return, of every call whose start was once another one, all starts that it has had."""
    calls, versions = warehouse.tables[CALLS.name], warehouse.tables[CALL_VERSIONS.name]
    query = (
        sa.select(versions.c.call_id, versions.c.started_at, calls.c.started_at)
        .join(calls, calls.c.call_id == versions.c.call_id)
        .where(versions.c.started_at != calls.c.started_at)
    )
    starts: dict[str, set[datetime]] = {}
    with warehouse.reading() as connection:
        for call_id, *instants in connection.execute(query).tuples():
            starts.setdefault(call_id, set()).update(instants)
    return [tuple(sorted(of_call)) for of_call in starts.values()]


def forget_window(
    warehouse: Warehouse, connection: sa.Connection, window_start: datetime, window_end: datetime
) -> None:
    """Remove the calls of ``[window_start, window_end)``, what they were before, and what was counted of them."""
    tables = warehouse.tables
    calls, participants = tables[CALLS.name], tables[CALL_PARTICIPANTS.name]
    in_window = (calls.c.started_at >= window_start, calls.c.started_at < window_end)
    of_window = participants.c.call_id.in_(sa.select(calls.c.call_id).where(*in_window))
    connection.execute(sa.delete(participants).where(of_window))
    for table in (participants, calls, tables[CALL_VERSIONS.name]):
        inside = (table.c.started_at >= window_start, table.c.started_at < window_end)
        connection.execute(sa.delete(table).where(*inside))
    late_changes, ledger = tables[LATE_CHANGES.name], tables[EXPORT_WINDOWS.name]
    connection.execute(sa.delete(late_changes).where(late_changes.c.window_start == window_start))
    connection.execute(sa.update(ledger).where(ledger.c.window_start == window_start).values(late_changes=0))


def restate_window(warehouse: Warehouse, connection: sa.Connection, window_start: datetime, content_hash: str) -> None:
    """Give a window's certificate the hash that its calls have now, in the transaction that changed them."""
    t = warehouse.tables[EXPORT_WINDOWS.name]
    values = {"content_hash": content_hash, "warehouse_content_hash": content_hash}
    connection.execute(sa.update(t).where(t.c.window_start == window_start).values(values))


def live_rows(
    warehouse: Warehouse, connection: sa.Connection, table: Table, window_start: datetime, window_end: datetime
) -> Iterator[pa.Table]:
    """Yield the rows of ``calls`` or ``call_participants`` of the window's calls that are not deleted, by start."""
    calls, t = warehouse.tables[CALLS.name], warehouse.tables[table.name]
    query = sa.select(*(t.c[name] for name in table.column_names)).where(
        calls.c.started_at >= window_start, calls.c.started_at < window_end, calls.c.deleted_at.is_(None)
    )
    if table is not CALLS:
        query = query.select_from(t.join(calls, calls.c.call_id == t.c.call_id))
    yield from warehouse.fetch(connection, table, query.order_by(t.c.started_at, *(t.c[name] for name in table.key)))


def day_counts(
    warehouse: Warehouse, connection: sa.Connection, call_date: date, *, gone_since: datetime
) -> tuple[int, int]:
    """Return how many calls of a local day are not deleted, and how many were marked deleted since an instant."""
    calls = warehouse.tables[CALLS.name]
    live, gone = (
        sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)
        for condition in (calls.c.deleted_at.is_(None), calls.c.deleted_at >= gone_since)
    )
    counts = connection.execute(sa.select(live, gone).where(calls.c.call_date == call_date)).one()
    return int(counts[0]), int(counts[1])


def ids_set_aside(warehouse: Warehouse, window_start: datetime, window_end: datetime) -> list[str]:
    """Return the ids of which the window serves a row that is not the call: another window has a later one."""
    calls, rejects = warehouse.tables[CALLS.name], warehouse.tables[REJECTED_ROWS.name]
    query = (
        sa.select(calls.c.call_id)
        .distinct()
        .join(rejects, rejects.c.call_id == calls.c.call_id)
        .where(
            rejects.c.window_start >= window_start,
            rejects.c.window_start < window_end,
            rejects.c.reason == RejectReason.DUPLICATE_ID.value,
            calls.c.started_at >= window_end,
            calls.c.deleted_at.is_(None),
        )
    )
    with warehouse.reading() as connection:
        return list(connection.execute(query).scalars())
