"""Where the stores speak of people who are erased, or are to be: every table, every file, row by row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from pipelines.context import Stores
from sinks.archive import Archive
from sinks.raw import RawFile, raw_dates, raw_files, read_raw
from sinks.spool import BATCH_ROWS
from transforms.call_ids import call_id_of
from transforms.erased_calls import READ_COLUMNS, ids_that_mention, participants_that_mention, texts_that_mention
from transforms.erasure import Erased
from transforms.errors import DataError
from transforms.json_text import parse_json
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    ERASURES,
    PARTITION_COLUMN,
    RECORDINGS,
    REJECTED_ROWS,
    TABLES,
    Table,
)
from transforms.types import JSON, TEXT

RAW, LAKE, FILE_NAMES = "raw copy", "lake", "archive file names"
_OTHER_TABLES = (CALLS, CALL_VERSIONS, CALL_PARTICIPANTS, REJECTED_ROWS, ERASURES)


def texts_of(table: Table) -> list[str]:
    """Return the columns of a table that can speak of somebody."""
    return [column.name for column in table.columns if column.type in (TEXT, JSON)]


PLAIN_TABLES = tuple(table for table in TABLES if table not in _OTHER_TABLES and texts_of(table))
"""Tables whose texts are looked at as they are; what the list of erasures holds is hashes."""
_PARTICIPANT_COLUMNS = ("call_id", "raw", PARTITION_COLUMN)


OnPlace = Callable[[str], None]
"""Is told what is looked through, or done, next."""


def ignore(_: str) -> None:
    """Nobody is told."""


@dataclass
class OfDay:
    """What speaks of somebody on a local day: calls in the lake or the warehouse by their ids, and raw copies.

    Their versions and rejected rows are not listed.
    """

    call_ids: set[str] = field(default_factory=set)
    raw_files: set[RawFile] = field(default_factory=set)


@dataclass
class Scan:
    """What was looked at, and what of it speaks of somebody: rows and files, by place.

    ``days`` are the local days that hold some of it, each with what is to be written anew there. ``call_ids`` are the
    calls that somebody is on, whose audio has their voice. ``unreadable`` names files of which nobody can tell.
    """

    looked_at: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    days: dict[date, OfDay] = field(default_factory=dict)
    call_ids: set[str] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether nothing speaks of anybody, and everything could be read."""
        return not self.found and not self.unreadable

    def note_days(self, days: Iterable[date]) -> None:
        """Note that local days hold some of it."""
        for day in days:
            self.days.setdefault(day, OfDay())

    def count(self, place: str, rows: int, found: int) -> None:
        """Add what was looked at in a place, and how much of it was found."""
        self.looked_at[place] += rows
        if found:
            self.found[place] += found


def scan(stores: Stores, archive: Archive, erased: Erased, on_place: OnPlace = ignore) -> Scan:
    """Look through everything that the stores hold; nothing is written.

    What a legal hold keeps is not looked at: it stays.
    """
    done = Scan()
    for place, look in (
        ("the warehouse", _scan_warehouse),
        ("the lake", _scan_lake),
        ("the raw copy", _scan_raw),
    ):
        on_place(place)
        look(stores, erased, done)
    on_place("the archive")
    _scan_archive(stores, archive, erased, done)
    return done


def _scan_warehouse(stores: Stores, erased: Erased, done: Scan) -> None:
    for table in (CALLS, CALL_VERSIONS):
        for batch in _batches(stores, table, (*READ_COLUMNS, PARTITION_COLUMN)):
            _note_calls(done, table.name, batch, erased, _days(batch))
    for batch in _batches(stores, CALL_PARTICIPANTS, _PARTICIPANT_COLUMNS):
        _note_participants(done, CALL_PARTICIPANTS.name, batch, erased, _days(batch))
    for batch in _batches(stores, REJECTED_ROWS, ("payload", PARTITION_COLUMN)):
        payloads: list[Any] = batch["payload"].to_pylist()
        hits = erased.hits([parse_json(payload.encode()) for payload in payloads])
        done.count(REJECTED_ROWS.name, len(hits), sum(map(bool, hits)))
        done.note_days(day for day, of_row in zip(_days(batch), hits, strict=True) if of_row)
    for table in PLAIN_TABLES:
        for batch in _batches(stores, table, (*texts_of(table), *(("legal_hold",) if table is RECORDINGS else ()))):
            if table is RECORDINGS:
                batch = batch.filter(pc.invert(batch["legal_hold"])).drop_columns("legal_hold")
            done.count(table.name, batch.num_rows, texts_that_mention(batch, erased))


def _scan_lake(stores: Stores, erased: Erased, done: Scan) -> None:
    for table, note in ((CALLS, _note_calls), (CALL_PARTICIPANTS, _note_participants)):
        for day in stores.lake.call_dates(table):
            try:
                for batch in stores.lake.rows(table, day):
                    note(done, f"{LAKE}: {table.name}", batch, erased, [day] * batch.num_rows)
            except (OSError, KeyError, ValueError):  # what Arrow raises on a file that is damaged
                done.unreadable.append(stores.lake.file_name(table, day))


def _scan_raw(stores: Stores, erased: Erased, done: Scan) -> None:
    storage = stores.lake.storage
    for day in sorted(raw_dates(storage)):
        for file in raw_files(storage, day):
            try:
                for rows in read_raw(storage, file, BATCH_ROWS):
                    hits = erased.hits(rows)
                    done.count(RAW, len(rows), sum(map(bool, hits)))
                    if any(hits):
                        done.note_days([day])
                        done.days[day].raw_files.add(file)
                    for row, of_row in zip(rows, hits, strict=True):
                        if erased.takes_part(of_row) and (call_id := call_id_of(row)):
                            done.call_ids.add(call_id)
            except DataError:
                done.unreadable.append(file.name)


def _scan_archive(stores: Stores, archive: Archive, erased: Erased, done: Scan) -> None:
    names = archive.storage.sizes()
    held = stores.warehouse.tables[RECORDINGS.name]
    with stores.warehouse.reading() as connection:
        query = sa.select(held.c.archive_path).where(held.c.legal_hold.is_(True), held.c.archive_path.is_not(None))
        kept = tuple(connection.scalars(query))
    found = sum(erased.mentions(name) and not name.startswith(kept) for name in names)
    done.count(FILE_NAMES, len(names), found)


def _note_calls(done: Scan, place: str, batch: pa.Table, erased: Erased, days: list[date]) -> None:
    found = ids_that_mention(batch, erased)
    done.count(place, batch.num_rows, sum(of_row is not None for of_row in found))
    for day, of_row in zip(days, found, strict=True):
        if of_row is not None:
            call_id, takes_part = of_row
            done.note_days([day])
            if place != CALL_VERSIONS.name:
                done.days[day].call_ids.add(call_id)
            if takes_part:
                done.call_ids.add(call_id)


def _note_participants(done: Scan, place: str, batch: pa.Table, erased: Erased, days: list[date]) -> None:
    found = participants_that_mention(batch, erased)
    done.count(place, len(found), sum(found))
    ids: list[Any] = batch["call_id"].to_pylist()
    for day, call_id, is_found in zip(days, ids, found, strict=True):
        if is_found:
            done.note_days([day])
            done.days[day].call_ids.add(call_id)
            done.call_ids.add(call_id)


def _batches(stores: Stores, table: Table, names: tuple[str, ...]) -> Iterator[pa.Table]:
    t = stores.warehouse.tables[table.name]
    with stores.warehouse.reading() as connection:
        yield from stores.warehouse.fetch(connection, table, sa.select(*(t.c[name] for name in names)))


def _days(batch: pa.Table) -> list[date]:
    days: list[Any] = batch[PARTITION_COLUMN].to_pylist()
    return days
