"""The rule of `transforms.erasure`, for rows that are calls already: as if they had come without the people erased.

What comes out is what `transforms.calls` makes of a raw row that went through the same rule, value for value, so raw
copy, lake and warehouse still agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.call_hashes import call_hashes
from transforms.calls import FIELD_OF_COLUMN, tables_of
from transforms.erasure import Erased
from transforms.fields import positions_of
from transforms.json_text import JsonValue, RepeatedKeys, canonical_json, parse_json
from transforms.participants import ENTRY_COLUMNS, read_participants
from transforms.schema import CALL_PARTICIPANTS, CALLS
from transforms.types import INTEGER, TEXT

_SERVED = {name: field for name, field in FIELD_OF_COLUMN.items() if CALLS[name].type in (TEXT, INTEGER)} | {
    "direction_code": "direction",
    "status_code": "status",
}
"""The columns in which what was served can be read again, with their fields; the others hold times, counts, flags."""

_EMPTIED = {
    column.name: column.source
    for column in CALLS.columns
    if column.name in CALLS.hashed_columns
    and column.source.isidentifier()
    and column.name not in ("call_id", "extra", "participant_count")
}
"""The columns that follow from one field each."""

READ_COLUMNS = (*_SERVED, "extra")
"""What `ids_that_mention` looks at."""
CHANGED_COLUMNS = (*_EMPTIED, "extra", "row_hash")
"""What can be another value in a call from which somebody was taken out; ``call_id`` too."""


@dataclass(frozen=True)
class ErasedCalls:
    """Calls without the people erased, in the order they came; ``call_ids`` are those they had before."""

    calls: pa.Table
    participants: pa.Table
    call_ids: Sequence[str]


def ids_that_mention(calls: pa.Table, erased: Erased) -> list[tuple[str, bool] | None]:
    """Return for each row of ``calls``, or ``call_versions``, whose own columns speak of somebody, its call's id.

    With it comes whether somebody is on the call. Null for most rows. Of the columns, `READ_COLUMNS` are looked at.
    """
    found: list[tuple[str, bool] | None] = [None] * calls.num_rows
    places = positions_of(_may_mention(calls, erased))
    rows = _rows(calls.select(READ_COLUMNS).take(pa.array(places, pa.int64())))
    for place, row, hits in zip(places, rows, erased.hits([_served(row, ()) for row in rows]), strict=True):
        if hits:
            found[place] = (row["call_id"], erased.takes_part(hits))
    return found


def _may_mention(calls: pa.Table, erased: Erased) -> pa.Array[Any]:
    """Return where a look at the whole row is worth it: each distinct value of a column is looked at once."""
    may: Any = pc.is_valid(calls["extra"].combine_chunks())
    for name in _SERVED:
        column: Any = calls[name].combine_chunks().dictionary_encode()
        values: list[Any] = column.dictionary.to_pylist()
        rows: list[JsonValue] = [{_SERVED[name]: value} for value in values]
        known = [place for place, hits in enumerate(erased.hits(rows)) if hits]
        if known:
            may = pc.or_(may, pc.is_in(column.indices, value_set=pa.array(known, column.indices.type)))
    return may  # type: ignore[no-any-return]


def texts_that_mention(rows: pa.Table, erased: Erased) -> int:
    """Count the rows of which any column, all of them texts, speaks of somebody."""
    if not rows.num_columns:
        return 0
    found: Any = pa.array([False] * rows.num_rows, pa.bool_())
    for column in rows.columns:
        encoded: Any = column.combine_chunks().dictionary_encode()
        texts: list[Any] = encoded.dictionary.to_pylist()
        known: Any = pa.array([erased.mentions(text) for text in texts], pa.bool_())
        found = pc.or_(found, known.take(encoded.indices).fill_null(False))
    return int(pc.sum(found).as_py() or 0)


def participants_that_mention(participants: pa.Table, erased: Erased) -> list[bool]:
    """Return for each row of ``call_participants`` whether it speaks of somebody."""
    entries: Any = participants["raw"].combine_chunks().dictionary_encode()
    rows: list[JsonValue] = [{"participants": [parse_json(raw.encode())]} for raw in entries.dictionary.to_pylist()]
    speaks = [bool(hits) for hits in erased.hits(rows)]
    return [speaks[place] for place in entries.indices.to_pylist()]


def without_erased(calls: pa.Table, participants: pa.Table, erased: Erased) -> ErasedCalls:
    """Take the people erased out of whole ``calls`` (or ``call_versions``) and their ``participants``.

    All columns have to be there; those that tell when a row came and changed stay as they are. Participants come in any
    order, and go in that of their calls.
    """
    entries: defaultdict[str, list[tuple[int, JsonValue]]] = defaultdict(list)
    for call_id, position, raw in zip(*(_texts(participants, n) for n in ("call_id", "position", "raw")), strict=True):
        entries[call_id].append((position, parse_json(raw.encode())))
    before = _rows(calls)
    listed = [[entry for _, entry in sorted(entries[row["call_id"]], key=itemgetter(0))] for row in before]
    served = [_served(row, of_call) for row, of_call in zip(before, listed, strict=True)]
    silent = _silent_call()
    after, entries_after = [], []
    for row, of_call, as_served, hits in zip(before, listed, served, erased.hits(served), strict=True):
        emptied = erased.emptied(as_served, hits)
        own_ids = erased.own_ids(as_served, emptied)
        new = dict(row) | {name: silent[name] for name, field in _EMPTIED.items() if field in emptied}
        if "id" in emptied:
            new["call_id"] = erased.other_call_id(row["call_id"])
        if row["extra"] is not None and emptied:
            left = erased.without(parse_json(row["extra"].encode()), emptied, own_ids)
            assert isinstance(left, dict)
            said: dict[str, JsonValue] = {field: value for field, value in left.items() if value is not None}
            new["extra"] = canonical_json(said) if said else None
        entries_after.append(erased.other_entries(of_call, own_ids) if "participants" in emptied else of_call)
        after.append(new)
    new_calls, new_participants = _with_hashes(pa.Table.from_pylist(after, calls.schema), entries_after, erased.region)
    return ErasedCalls(new_calls, new_participants, [row["call_id"] for row in before])


def _with_hashes(calls: pa.Table, entries: Sequence[Sequence[JsonValue]], region: str) -> tuple[pa.Table, pa.Table]:
    """Return calls with the hashes that they have with these participants, and the participants as a table."""
    columns: dict[str, Any] = {name: calls[name].combine_chunks() for name in calls.column_names}
    listed = read_participants([list(of_call) for of_call in entries], columns["agent_id"], region)
    hashes = call_hashes(columns, listed.columns, listed.offsets)
    calls = calls.set_column(calls.column_names.index("row_hash"), calls.schema.field("row_hash"), hashes)
    of_call = pa.array(listed.calls)
    own = {name: listed.columns[name] for name in ENTRY_COLUMNS} | {"position": pa.array(listed.positions)}
    arrays = [own[name] if name in own else columns[name].take(of_call) for name in CALL_PARTICIPANTS.column_names]
    return calls, pa.Table.from_arrays(arrays, schema=CALL_PARTICIPANTS.arrow_schema)


def _texts(table: pa.Table, name: str) -> list[Any]:
    values: list[Any] = table[name].to_pylist()
    return values


def _rows(calls: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = calls.to_pylist()
    return rows


def _served(row: Mapping[str, Any], entries: Sequence[JsonValue]) -> dict[str, JsonValue]:
    """Return what can be read again of the row that was served: its columns, and what lies in ``extra``."""
    pairs: list[tuple[str, JsonValue]] = []
    if row["extra"] is not None:
        pairs += parse_json(row["extra"].encode()).items()
    pairs += [(field, row[name]) for name, field in _SERVED.items() if row[name] is not None]
    if entries:
        pairs.append(("participants", list(entries)))
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else RepeatedKeys(pairs)


@cache
def _silent_call() -> dict[str, Any]:
    """Return a call of which nothing was served but an id and a start: what is emptied gets its values."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    row: JsonValue = {"id": "silent", "start_time": int(start.timestamp() * 1000)}
    tables = tables_of([row], window_start=start, window_end=start + timedelta(days=1), timezone="UTC", region="VN")
    [values] = tables.calls.to_pylist()
    return dict(values)
