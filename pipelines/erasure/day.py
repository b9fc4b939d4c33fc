"""A local day without the people who are erased: raw copies, lake, warehouse, and certificates that hold again.

Cut off anywhere, the rows of the warehouse still speak of them: they come last, in one transaction with the
certificates. So the next scan finds the day again, and what was done already is done as well a second time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.erasure.scan import OfDay
from pipelines.windows import day_bounds
from sinks.certificates import Cause
from sinks.ledger import ClaimedDay, LedgerRow, WindowStatus
from sinks.parquet import LakeWriter
from sinks.raw import RawFile, RawWriter, raw_folder, read_raw
from sinks.scratch import scratch_folder
from sinks.spool import BATCH_ROWS
from sinks.window_rows import restate_window, window_counts
from transforms.erased_calls import (
    CHANGED_COLUMNS,
    READ_COLUMNS,
    ErasedCalls,
    ids_that_mention,
    without_erased,
)
from transforms.erasure import Erased
from transforms.errors import DataError
from transforms.json_text import exact_json, parse_json
from transforms.participants import ENTRY_COLUMNS
from transforms.rejects import reject_id
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, PARTITION_COLUMN, REJECTED_ROWS, Table

_IDS_AT_ONCE = 500


def erase_day(stores: Stores, erased: Erased, claim: ClaimedDay, found: OfDay, now: datetime) -> None:
    """Take people out of what was found on a local day, which is claimed; ``now`` is when the rows changed.

    A damaged raw copy stays as it is: a scan names it. Raises ``ClaimLostError`` where the day is another run's by now,
    ``DataError`` for a file of the lake that cannot be read.
    """
    day = claim.call_date
    ledger_rows = stores.ledger.rows(day, day)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch_folder())))
        for file in sorted(found.raw_files):
            _erase_in_raw(stores, erased, file, folder)
        connection = stack.enter_context(stores.warehouse.transaction())
        stores.ledger.check_claim(connection, claim)
        # Under the lock, nobody publishes this day between reading its files and writing them.
        stack.enter_context(stores.lake.storage.locked(raw_folder(day)))
        certified = [row for row in ledger_rows if _holds(stores, connection, row)]
        # Both copies stamp the same calls: one of them may have come from a backup.
        ids = sorted(found.call_ids)
        if ids:
            try:
                _erase_in_lake(stores, erased, day, ids, now, folder)
            except (OSError, KeyError, ValueError) as error:  # what Arrow raises on a file that is damaged
                raise DataError(
                    f"the lake's files are damaged: callhistory replay --from {day} rebuilds them"
                ) from error
            for first in range(0, len(ids), _IDS_AT_ONCE):
                _erase_in_warehouse(stores, connection, erased, ids[first : first + _IDS_AT_ONCE], now)
        _erase_in_versions(stores, connection, erased, day)
        _erase_in_rejects(stores, connection, erased, day)
        for row in certified:
            _restate(stores, connection, row)


def _holds(stores: Stores, connection: sa.Connection, row: LedgerRow) -> bool:
    """Whether lake and warehouse hold what a window's certificate says; another one stays as wrong as it is."""
    if row.content_hash is None or row.content_hash != row.warehouse_content_hash:
        return False
    calls = stores.warehouse.tables[CALLS.name]
    held = window_counts(connection, calls, row.window_start, row.window_end)
    return (held.calls, held.content_hash) == (row.warehouse_rows, row.content_hash)


def _restate(stores: Stores, connection: sa.Connection, row: LedgerRow) -> None:
    calls = stores.warehouse.tables[CALLS.name]
    held = window_counts(connection, calls, row.window_start, row.window_end)
    if held.content_hash != row.content_hash:
        restate_window(stores.warehouse, connection, row.window_start, held.content_hash)
    if row.status is WindowStatus.COMPLETE:
        stores.certificates.append(connection, row.window_start, Cause.ERASED)


def _erase_in_raw(stores: Stores, erased: Erased, file: RawFile, folder: Path) -> None:
    storage, path = stores.lake.storage, folder / "raw.jsonl.zst"
    try:
        with RawWriter(path) as writer:
            for rows in read_raw(storage, file, BATCH_ROWS):
                writer.add(erased.redacted(rows))
    except (DataError, FileNotFoundError):
        return  # damaged since, or another erasure has written it anew: the next look finds what there is
    storage.publish(path, replace(file, content_hash=writer.content_hash).name)
    storage.remove(file.name)


def _erase_in_lake(
    stores: Stores, erased: Erased, day: date, call_ids: Sequence[str], now: datetime, folder: Path
) -> None:
    lake, ids = stores.lake, pa.array(call_ids, pa.string())
    changed = without_erased(
        _with_day(_only(lake.rows(CALLS, day), CALLS, ids), day),
        _with_day(_only(lake.rows(CALL_PARTICIPANTS, day), CALL_PARTICIPANTS, ids), day),
        erased,
    )
    start, end = day_bounds(day, stores.timezone)
    with ExitStack() as stack:
        writers: list[LakeWriter] = []
        for table, rows in ((CALLS, _stamped(changed, now)), (CALL_PARTICIPANTS, changed.participants)):
            writer = stack.enter_context(LakeWriter(lake, table, day, start, end, whole_day=True, folder=folder))
            for batch in _exchanged(lake.rows(table, day), rows, changed, ids):
                writer.write(batch)
            writer.finish(writers[0].content_hash if writers else None)
            writers.append(writer)
        for writer in writers:
            writer.publish()


def _exchanged(
    batches: Iterator[pa.Table], new_rows: pa.Table, changed: ErasedCalls, ids: pa.Array[Any]
) -> Iterator[pa.Table]:
    """Yield the rows of a file, with the changed ones in the place of those of ``ids``; sorted as before."""
    new_ids = dict(zip(changed.call_ids, changed.calls["call_id"].to_pylist(), strict=True))
    for batch in batches:
        is_old = pc.is_in(batch["call_id"], value_set=ids)
        old: list[Any] = pc.unique(batch.filter(is_old)["call_id"]).to_pylist()
        kept = batch.filter(pc.invert(is_old))
        wanted = pa.array([new_ids.pop(call_id) for call_id in old if call_id in new_ids], pa.string())
        added = new_rows.filter(pc.is_in(new_rows["call_id"], value_set=wanted)).select(kept.column_names)
        order = ("started_at", "call_id", *(("position",) if "position" in kept.column_names else ()))
        yield pa.concat_tables([kept, added.cast(kept.schema)]).sort_by([(name, "ascending") for name in order])


def _erase_in_warehouse(
    stores: Stores, connection: sa.Connection, erased: Erased, call_ids: Sequence[str], now: datetime
) -> None:
    calls, participants = (stores.warehouse.tables[table.name] for table in (CALLS, CALL_PARTICIPANTS))
    changed = _without(stores, connection, erased, CALLS, calls.c.call_id.in_(call_ids))
    _update(connection, calls, ("call_id",), (*CHANGED_COLUMNS, "updated_at"), _stamped(changed, now), changed)
    _update(connection, participants, ("call_id", "position"), ENTRY_COLUMNS, changed.participants, changed)


def _erase_in_versions(stores: Stores, connection: sa.Connection, erased: Erased, day: date) -> None:
    t = stores.warehouse.tables[CALL_VERSIONS.name]
    of_day = t.c[PARTITION_COLUMN] == day
    ids = sorted(set(_ids(_fetched(stores, connection, CALL_VERSIONS, READ_COLUMNS, of_day), erased)))
    for first in range(0, len(ids), _IDS_AT_ONCE):
        of_ids = sa.and_(of_day, t.c.call_id.in_(ids[first : first + _IDS_AT_ONCE]))
        changed = _without(stores, connection, erased, CALL_VERSIONS, of_ids)
        _update(connection, t, ("call_id", "superseded_at"), CHANGED_COLUMNS, changed.calls, changed)


def _erase_in_rejects(stores: Stores, connection: sa.Connection, erased: Erased, day: date) -> None:
    t = stores.warehouse.tables[REJECTED_ROWS.name]
    query = sa.select(t.c.window_start, t.c.reject_id, t.c.payload).where(t.c[PARTITION_COLUMN] == day)
    taken = {(start, reject) for start, reject, _ in connection.execute(query).tuples()}
    for start, old_id, text in connection.execute(query.order_by(t.c.reject_id)).tuples().all():
        [hits] = erased.hits([payload := parse_json(text.encode())])
        if not hits:
            continue
        left = erased.without(payload, erased.emptied(payload, hits))
        occurrence = 0
        while (start, new_id := reject_id(left, occurrence)) in taken:
            occurrence += 1
        taken.add((start, new_id))
        call_id = {"call_id": left["id"]} if isinstance(left, dict) and "id" in hits and left["id"] != [] else {}
        connection.execute(
            sa.update(t)
            .where(t.c.window_start == start, t.c.reject_id == old_id)
            .values(reject_id=new_id, payload=exact_json(left), **call_id)
        )


def _without(
    stores: Stores, connection: sa.Connection, erased: Erased, table: Table, condition: sa.ColumnElement[bool]
) -> ErasedCalls:
    """Return whole rows of ``calls`` or ``call_versions`` without people; participants are those of now."""
    t = stores.warehouse.tables[table.name]
    p = stores.warehouse.tables[CALL_PARTICIPANTS.name]
    of_calls = p.c.call_id.in_(sa.select(t.c.call_id).where(condition))
    rows, entries = (
        list(_fetched(stores, connection, of, of.column_names, which))
        for of, which in ((table, condition), (CALL_PARTICIPANTS, of_calls))
    )
    return without_erased(
        pa.concat_tables(rows) if rows else table.arrow_schema.empty_table(),
        pa.concat_tables(entries) if entries else CALL_PARTICIPANTS.arrow_schema.empty_table(),
        erased,
    )


def _update(
    connection: sa.Connection,
    t: sa.Table,
    key: Sequence[str],
    names: Sequence[str],
    rows: pa.Table,
    changed: ErasedCalls,
) -> None:
    """Write the columns ``names`` of rows, found by their ``key`` as it was; then the ids that are other ones now."""
    old_ids = dict(zip(changed.calls["call_id"].to_pylist(), changed.call_ids, strict=True))
    values = [
        {f"new_{name}": row[name] for name in names}
        | {f"old_{name}": old_ids[row[name]] if name == "call_id" else row[name] for name in key}
        for row in rows.to_pylist()
    ]
    if not values:
        return
    is_row = [t.c[name] == sa.bindparam(f"old_{name}", type_=t.c[name].type) for name in key]
    new = {name: sa.bindparam(f"new_{name}", type_=t.c[name].type) for name in names}
    connection.execute(sa.update(t).where(*is_row).values(new), values)
    for new_id, old_id in old_ids.items():
        if new_id != old_id:
            connection.execute(sa.update(t).where(t.c.call_id == old_id).values(call_id=new_id))


def _stamped(changed: ErasedCalls, now: datetime) -> pa.Table:
    """Return the calls as changed here and now: whoever copies what has changed takes the erasure over."""
    calls = changed.calls
    stamp: Any = pa.array([now] * calls.num_rows, calls.schema.field("updated_at").type)
    return calls.set_column(calls.column_names.index("updated_at"), calls.schema.field("updated_at"), stamp)


def _fetched(
    stores: Stores, connection: sa.Connection, table: Table, names: Sequence[str], *conditions: sa.ColumnElement[bool]
) -> Iterator[pa.Table]:
    t = stores.warehouse.tables[table.name]
    query = sa.select(*(t.c[name] for name in names)).where(*conditions)
    return stores.warehouse.fetch(connection, table, query)


def _ids(calls: Iterator[pa.Table], erased: Erased) -> Iterator[str]:
    for batch in calls:
        yield from (found[0] for found in ids_that_mention(batch, erased) if found is not None)


def _only(batches: Iterator[pa.Table], table: Table, ids: pa.Array[Any]) -> pa.Table:
    found = [batch.filter(pc.is_in(batch["call_id"], value_set=ids)) for batch in batches]
    return pa.concat_tables(found) if found else table.lake_schema.empty_table()


def _with_day(rows: pa.Table, day: date) -> pa.Table:
    """Return rows of the lake with all columns of their table: the folder's name tells the day."""
    table = CALL_PARTICIPANTS if "position" in rows.column_names else CALLS
    rows = rows.append_column(PARTITION_COLUMN, pa.array([day] * rows.num_rows, pa.date32()))
    return rows.select(table.column_names).cast(table.arrow_schema)
