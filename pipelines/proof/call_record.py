"""Everything that is held of one call: its row, its participants, what it was before, its recording, its proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.proof.changes import changed_columns
from sinks.raw import believed_states, read_raw
from sinks.spool import BATCH_ROWS
from transforms.call_ids import call_id_of
from transforms.errors import DataError
from transforms.json_text import exact_json, iso, parse_json
from transforms.schema import CALL_PARTICIPANTS, CALL_VERSIONS, CALLS, EXPORT_WINDOWS, RECORDINGS, Table
from transforms.types import JSON


@dataclass(frozen=True)
class CallRecord:
    """What is held of a call, as JSON can hold it; ``raw`` is null unless it was asked for.

    ``changes`` says of each change when the row before it was first read, when it was replaced, and which columns had
    another value. ``certificate`` is the ledger's row of the window in which the call started.
    """

    call: Mapping[str, Any]
    participants: Sequence[Mapping[str, Any]]
    changes: Sequence[Mapping[str, Any]]
    recording: Mapping[str, Any] | None
    certificate: Mapping[str, Any] | None
    raw: Sequence[str] | None


def read_call(stores: Stores, call_id: str, *, with_raw: bool = False) -> CallRecord:
    """Return what is held of a call. Raises ``DataError`` when no call has that id."""
    of_call = {table.name: _rows(stores, table, "call_id", call_id) for table in (CALLS, CALL_PARTICIPANTS)}
    if not of_call[CALLS.name]:
        raise DataError("no exported call has this id: a call in progress is shown by callhistory live")
    [call] = of_call[CALLS.name]
    versions = _rows(stores, CALL_VERSIONS, "call_id", call_id)
    recordings = _rows(stores, RECORDINGS, "call_id", call_id)
    started_at: datetime = call["started_at"]
    windows = [
        row
        for row in _rows(stores, EXPORT_WINDOWS, "call_date", call["call_date"])
        if row["window_start"] <= started_at < row["window_end"]
    ]
    return CallRecord(
        call=row_as_json(CALLS, call),
        participants=[row_as_json(CALL_PARTICIPANTS, row) for row in of_call[CALL_PARTICIPANTS.name]],
        changes=_changes([*versions, call]),
        recording=row_as_json(RECORDINGS, recordings[0]) if recordings else None,
        certificate=row_as_json(EXPORT_WINDOWS, windows[0]) if windows else None,
        raw=_raw_rows(stores, call, windows) if with_raw else None,
    )


def _rows(stores: Stores, table: Table, column: str, value: object) -> list[dict[str, Any]]:
    t = stores.warehouse.tables[table.name]
    query = sa.select(t).where(t.c[column] == value).order_by(*(t.c[name] for name in table.key))
    with stores.warehouse.reading() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _changes(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compare each state with the one that replaced it; the last one is as the call is now."""
    found = []
    for old, new in pairwise(states):
        before, after = row_as_json(CALLS, old), row_as_json(CALLS, new)
        fields = {n: {"was": before[n], "became": after[n]} for n in changed_columns(old, new)}
        found.append(
            {
                "read_at": before["updated_at"],
                "replaced_at": iso(old["superseded_at"]),
                "fields": fields,
            }
        )
    return found


def _raw_rows(stores: Stores, call: Mapping[str, Any], windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rows of that id as they were served when the window was last published."""
    found: list[str] = []
    for window in windows:
        states = believed_states(stores.lake.storage, call["call_date"], window["window_start"], window["window_end"])
        for batch in read_raw(stores.lake.storage, states[-1], BATCH_ROWS) if states else ():
            found += [exact_json(row) for row in batch if call_id_of(row) == call["call_id"]]
    return found


def row_as_json(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a table as JSON can hold it: dates as ISO 8601, columns of JSON as what they say."""

    def value(name: str) -> Any:
        if table[name].type is JSON and row[name] is not None:
            return parse_json(row[name].encode())
        return iso(row[name]) if isinstance(row[name], date | datetime) else row[name]

    return {name: value(name) for name in table.column_names}
