"""Rows as the API serves them, to the tables ``calls``, ``call_participants`` and ``rejected_rows``.

Nothing that was served is lost: what has no column, or cannot be read as what its column holds, is in ``extra`` under
the name that it was served under; a row that cannot be a call is a reject with its payload. (A field that is null says
nothing, so a null field that we do not know is treated as one that is not there.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from transforms.call_hashes import call_hashes
from transforms.call_ids import call_id_of
from transforms.columns import UNKNOWN, Column
from transforms.fields import (
    Reading,
    columns_of,
    instant_ms,
    positions_of,
    read_flags,
    read_instants,
    read_instants_or_seconds,
    read_integers,
    read_minutes,
    read_seconds,
    read_text,
    whole_number,
)
from transforms.json_text import JsonValue, RepeatedKeys, canonical_json
from transforms.local_time import local_columns
from transforms.participants import Participants, read_participants
from transforms.phones import parse_numbers
from transforms.rejects import admit
from transforms.schema import CALL_PARTICIPANTS, CALLS
from transforms.types import BOOLEAN, INSTANT, INTEGER, SMALL_INTEGER, TEXT, LogicalType

if TYPE_CHECKING:
    import pandas as pd

DIRECTIONS = {0: "outbound", 1: "inbound", 2: "internal"}
STATUSES = {1: "answered", 2: "missed", 3: "stopped_at_ivr", 4: "stopped_at_survey_ivr"}
CHANNELS = {False: "voice", True: "video"}
_WORDS = {"direction": DIRECTIONS, "status": STATUSES}

_READERS: dict[LogicalType, Callable[[Sequence[JsonValue]], Reading]] = {
    TEXT: read_text,
    INTEGER: read_integers,
    BOOLEAN: read_flags,
    INSTANT: read_instants,
}
_READERS_OF_DURATIONS = {"seconds": read_seconds, "minutes": read_minutes}
"""By unit; all small integers that hold one field are durations."""

_INTERPRETED_FIELDS = frozenset(
    {
        "object_type",
        "direction",
        "status",
        "video_call",
        "answer_time",
        "first_answer_time",
        "answer_duration",
        "enqueue_time",
        "queue_duration",
        "participants",
    }
)
"""Fields that take more than a reader."""

_DERIVED_COLUMNS = frozenset(
    {"call_date", "call_hour", "customer_number_e164", "customer_country", "stringee_number_e164"}
)
"""Columns made of a field that has a column of its own."""

FIELD_OF_COLUMN = {
    column.name: column.source
    for column in CALLS.columns
    if column.name in CALLS.hashed_columns
    and column.source.isidentifier()
    and column.source not in _INTERPRETED_FIELDS
    and column.name not in _DERIVED_COLUMNS
}
"""Columns that hold one field, read as the column's type says."""

KNOWN_FIELDS = _INTERPRETED_FIELDS | frozenset(FIELD_OF_COLUMN.values())
"""All the API's fields that have a place; whatever else a row holds goes to ``extra``."""


@dataclass(frozen=True)
class CallTables:
    """A batch of rows as Arrow tables, in the order served; columns and types are those of ``transforms.schema``.

    ``calls`` has the columns that follow from the source, and ``row_hash``; two rows of one id both stay.
    ``participants`` is a whole ``call_participants``. ``rejects`` lacks only ``first_seen_at``. ``usable`` counts, by
    source field that every call needs, the rows in which it can be used, whether they are calls or rejects; ``unread``,
    by any source field that has a column, the calls in which it says something that could not be read.
    """

    calls: pa.Table
    participants: pa.Table
    rejects: pa.Table
    usable: Counter[str]
    unread: Counter[str]


@dataclass(frozen=True)
class Normalised:
    """The same as `CallTables`, as pandas frames with Arrow dtypes."""

    calls: pd.DataFrame
    participants: pd.DataFrame
    rejects: pd.DataFrame
    usable: Counter[str]
    unread: Counter[str]


def normalise(
    rows: Sequence[JsonValue],
    *,
    window_start: datetime,
    window_end: datetime,
    timezone: str,
    region: str,
    reject_occurrences: Counter[str] | None = None,
    superseded: Collection[int] = (),
) -> Normalised:
    """Turn rows into pandas frames; all else is as `tables_of` says."""
    tables = tables_of(
        rows,
        window_start=window_start,
        window_end=window_end,
        timezone=timezone,
        region=region,
        reject_occurrences=reject_occurrences,
        superseded=superseded,
    )
    return Normalised(
        frame_of(tables.calls), frame_of(tables.participants), frame_of(tables.rejects), tables.usable, tables.unread
    )


def tables_of(
    rows: Sequence[JsonValue],
    *,
    window_start: datetime,
    window_end: datetime,
    timezone: str,
    region: str,
    reject_occurrences: Counter[str] | None = None,
    superseded: Collection[int] = (),
) -> CallTables:
    """Turn rows that the window ``[window_start, window_end)`` served, or a batch of them, into tables.

    ``timezone`` (an IANA name) decides the local day and hour, ``region`` (ISO 3166-1 alpha-2) the national form of
    phone numbers. A row's result depends on the row alone, so a window can be cut into batches anywhere; only the ids
    of equal rejects need to know how many there were before: pass one ``reject_occurrences`` for all batches of a
    window, and a new one for each time the window is read. ``superseded`` holds places in ``rows`` of rows that are not
    the call of their id, for another row is.

    No row raises. The window's ends must be aware (``TypeError``), and ``timezone`` known (``ZoneInfoNotFoundError``).
    """
    zone = ZoneInfo(timezone)
    admission = admit(
        rows,
        window_start=window_start,
        window_end=window_end,
        call_date=window_start.astimezone(zone).date(),
        occurrences=Counter() if reject_occurrences is None else reject_occurrences,
        superseded=superseded,
    )
    batch = _Batch(admission.rows)
    columns = {name: batch.read(field, _reader(CALLS[name])) for name, field in FIELD_OF_COLUMN.items()}
    columns |= local_columns(columns["started_at"], zone)
    columns |= _classification(batch)
    columns |= _answer(batch)
    columns |= _queue(batch)
    columns |= _phone_columns(columns, region)
    participants = _participants(batch, columns["agent_id"], region)
    columns["participant_count"] = pa.array(participants.counts)
    batch.keep_unknown_fields()
    batch.keep_earlier_values()
    columns["extra"] = batch.extra()
    return CallTables(
        calls=_calls_table(columns, participants),
        participants=_participants_table(columns, participants),
        rejects=admission.rejects,
        usable=_usable(columns, admission.refused),
        unread=batch.unread + _unread_numbers(columns),
    )


class _Batch:
    """The rows of a batch, and what is left of each once its fields have been read."""

    def __init__(self, rows: list[dict[str, JsonValue]]) -> None:
        self._rows = rows
        self._columns = columns_of(rows)
        self._left_over: defaultdict[int, dict[str, JsonValue]] = defaultdict(dict)
        self.unread: Counter[str] = Counter()

    def values(self, field: str) -> Sequence[JsonValue]:
        """Return one field of every row, None where it is missing."""
        column = self._columns.get(field)
        return [row.get(field) for row in self._rows] if column is None else column

    def keep(self, field: str, values: dict[int, JsonValue]) -> None:
        """Put values of ``field``, by row position, into ``extra``."""
        for position, value in values.items():
            self._left_over[position][field] = value

    def keep_where(self, field: str, mask: pa.Array[Any]) -> None:
        """Put the field, as served, of the rows where ``mask`` is true into ``extra``."""
        self.keep(field, {position: self._rows[position][field] for position in positions_of(mask)})

    def read(self, field: str, reader: Callable[[Sequence[JsonValue]], Reading]) -> pa.Array[Any]:
        """Return the field as a column; what the reader could not use goes into ``extra``."""
        reading = reader(self.values(field))
        self.keep_unread(field, reading.unread)
        return reading.array

    def read_instants_or_seconds(self, field: str) -> tuple[pa.Array[Any], pa.Array[Any]]:
        """Return the instants and the seconds of a field whose unit is open."""
        instants, seconds = read_instants_or_seconds(self.values(field))
        self.keep_unread(field, instants.unread)
        return instants.array, seconds

    def keep_unread(self, field: str, values: dict[int, JsonValue]) -> None:
        """Put values that could not be read, by row position, into ``extra``, and count them."""
        self.keep(field, values)
        self.unread[field] += len(values)

    def keep_unknown_fields(self) -> None:
        """Put the fields that have no place, and are not null, into ``extra``."""
        if self._columns and self._columns.keys() <= KNOWN_FIELDS:
            return
        for position, row in enumerate(self._rows):
            if not row.keys() <= KNOWN_FIELDS:
                for field in row.keys() - KNOWN_FIELDS:
                    if row[field] is not None:
                        self._left_over[position][field] = row[field]

    def keep_earlier_values(self) -> None:
        """Put what a later value of the same key has replaced into ``extra``: as it is, or as a list beside others."""
        for position, row in enumerate(self._rows):
            if isinstance(row, RepeatedKeys):
                earlier: defaultdict[str, list[JsonValue]] = defaultdict(list)
                for field, value in row.earlier():
                    if value is not None and value != row[field]:
                        earlier[field].append(value)
                kept = self._left_over[position] if earlier else {}
                for field, values in earlier.items():
                    if field in kept:
                        values.append(kept[field])
                    kept[field] = values[0] if len(values) == 1 else values

    def extra(self) -> pa.Array[Any]:
        """Return what is left of each row as a JSON object, null where it is nothing."""
        column: list[str | None] = [None] * len(self._rows)
        for position, fields in self._left_over.items():
            column[position] = canonical_json(fields)
        return pa.array(column, pa.string())


def _reader(column: Column) -> Callable[[Sequence[JsonValue]], Reading]:
    return _READERS_OF_DURATIONS[column.unit] if column.type is SMALL_INTEGER else _READERS[column.type]


def _classification(batch: _Batch) -> dict[str, pa.Array[Any]]:
    object_types = batch.values("object_type")
    batch.keep("object_type", {i: v for i, v in enumerate(object_types) if v is not None and v not in ("call", "")})
    video = read_flags(batch.values("video_call"))
    batch.keep_unread("video_call", video.unread)
    channels = [UNKNOWN if i in video.unread else CHANNELS[bool(v)] for i, v in enumerate(video.array.to_pylist())]
    direction_codes = batch.read("direction", read_integers)
    status_codes = batch.read("status", read_integers)
    return {
        "direction": _words(direction_codes, DIRECTIONS),
        "direction_code": direction_codes,
        "status": _words(status_codes, STATUSES),
        "status_code": status_codes,
        "channel": pa.array(channels, pa.string()),
    }


def _words(codes: pa.Array[Any], words: dict[int, str]) -> pa.Array[Any]:
    return pa.array([UNKNOWN if code is None else words.get(code, UNKNOWN) for code in codes.to_pylist()], pa.string())


def _answer(batch: _Batch) -> dict[str, pa.Array[Any]]:
    """Read the answer's instant and duration; ``answer_time`` is documented as the one and seen to be the other."""
    answered_at, seconds = batch.read_instants_or_seconds("answer_time")
    first_answered_at = batch.read("first_answer_time", read_instants)
    answer_seconds = batch.read("answer_duration", read_seconds)
    batch.keep_where("answer_time", pc.not_equal(seconds, answer_seconds))
    batch.keep_where("first_answer_time", pc.not_equal(first_answered_at, answered_at))
    return {
        "answered_at": pc.coalesce(answered_at, first_answered_at),
        "answer_seconds": pc.coalesce(answer_seconds, seconds),
    }


def _queue(batch: _Batch) -> dict[str, pa.Array[Any]]:
    """Read the queue's instant and duration; ``enqueue_time`` can be either."""
    enqueued_at, seconds = batch.read_instants_or_seconds("enqueue_time")
    queue_seconds = batch.read("queue_duration", read_seconds)
    batch.keep_where("enqueue_time", pc.not_equal(seconds, queue_seconds))
    return {"enqueued_at": enqueued_at, "queue_seconds": pc.coalesce(queue_seconds, seconds)}


def _phone_columns(columns: dict[str, pa.Array[Any]], region: str) -> dict[str, pa.Array[Any]]:
    customer = parse_numbers(columns["customer_number"], region)
    ours = parse_numbers(columns["stringee_number"], region)
    return {
        "customer_number_e164": customer.e164,
        "customer_country": customer.country,
        "stringee_number_e164": ours.e164,
    }


def _unread_numbers(columns: dict[str, pa.Array[Any]]) -> Counter[str]:
    """Count the numbers that are no phone numbers: a user's id is none either, but not in every call."""
    fields = ("customer_number", "stringee_number")
    return Counter({field: columns[f"{field}_e164"].null_count - columns[field].null_count for field in fields})


def _participants(batch: _Batch, agent_ids: pa.Array[Any], region: str) -> Participants:
    participants = read_participants(batch.values("participants"), agent_ids, region)
    batch.keep_unread("participants", participants.unread)
    return participants


def _calls_table(columns: dict[str, pa.Array[Any]], participants: Participants) -> pa.Table:
    hashes = call_hashes(columns, participants.columns, participants.offsets)
    schema = pa.schema([CALLS.arrow_schema.field(name) for name in (*CALLS.value_columns, "row_hash")])
    return pa.Table.from_arrays([*(columns[name] for name in CALLS.value_columns), hashes], schema=schema)


def _participants_table(columns: dict[str, pa.Array[Any]], participants: Participants) -> pa.Table:
    of_call = pa.array(participants.calls)
    own = participants.columns | {"position": pa.array(participants.positions)}
    arrays = [own[name] if name in own else columns[name].take(of_call) for name in CALL_PARTICIPANTS.column_names]
    return pa.Table.from_arrays(arrays, schema=CALL_PARTICIPANTS.arrow_schema)


def _usable(columns: dict[str, pa.Array[Any]], refused: list[JsonValue]) -> Counter[str]:
    """Count the rows in which each needed field can be used: calls by their columns, rejected rows one by one."""
    needed = [column for column in CALLS.columns if column.needed]
    usable = Counter({column.source: _known_values(columns[column.name], column.unknown) for column in needed})
    for row in refused:
        if isinstance(row, dict):
            usable.update(column.source for column in needed if _is_usable(row, column))
    return usable


def _known_values(values: pa.Array[Any], unknown: str | None) -> int:
    known = len(values) - values.null_count
    return known if unknown is None else known - values.to_pylist().count(unknown)


def _is_usable(row: dict[str, JsonValue], column: Column) -> bool:
    if column.key:
        return call_id_of(row) is not None
    value = row.get(column.source)
    if column.type is INSTANT:
        return instant_ms(value) is not None
    return whole_number(value) in _WORDS[column.source]


def frame_of(table: pa.Table) -> pd.DataFrame:
    """Return an Arrow table as a pandas frame whose columns keep their Arrow types."""
    import pandas as pd  # takes a third of a second, which most commands do without

    return table.to_pandas(types_mapper=pd.ArrowDtype)
