"""Everything that is held of a person, found and written down for them: the right of access."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.proof.call_record import row_as_json
from pipelines.report.csv_files import csv_file
from sinks.archive import SIDECAR_SUFFIX, Archive
from sinks.private_files import create_file, make_folder
from sinks.raw import raw_dates, raw_files, read_raw
from sinks.recordings import Recordings
from sinks.spool import BATCH_ROWS
from transforms.call_ids import call_id_of
from transforms.columns import Pii
from transforms.errors import SettingsError, StorageError
from transforms.json_text import exact_json, iso
from transforms.person import Person
from transforms.schema import (
    CALL_PARTICIPANTS,
    CALL_VERSIONS,
    CALLS,
    LIVE_CALLS,
    RECORDINGS,
    REJECTED_ROWS,
    Table,
)

_SEARCHED = (CALLS, CALL_VERSIONS, CALL_PARTICIPANTS, REJECTED_ROWS, LIVE_CALLS)
_OF_CALLS = (CALLS, CALL_PARTICIPANTS, CALL_VERSIONS, RECORDINGS)
_IDS_PER_QUERY = 500


@dataclass(frozen=True)
class Holdings:
    """What is held of a person: rows by table, as the warehouse has them; ``raw`` rows as they were served.

    The rows of a call are there as a whole, whichever of them speaks of the person: so they name others, too.
    """

    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    raw: Sequence[Mapping[str, Any]]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows, by table; ``raw_rows`` are those that were served."""
        return {name: len(rows) for name, rows in self.tables.items()} | {"raw_rows": len(self.raw)}


def find_person(stores: Stores, person: Person) -> Holdings:
    """Look for a person in every table and in every row that was ever served.

    Raises ``DataError`` for a raw copy that is damaged: what it holds cannot be told.
    """
    found = {table.name: list(_rows_of(stores, table, person)) for table in _SEARCHED}
    raw = list(_raw_rows(stores, person))
    call_ids = {row["call_id"] for name in found if name != REJECTED_ROWS.name for row in found[name]}
    call_ids |= {row["call_id"] for row in raw}
    ids = sorted(call_ids - {None})
    tables = {table.name: _rows_of_calls(stores, table, ids) for table in _OF_CALLS}
    return Holdings(tables | {t.name: found[t.name] for t in (REJECTED_ROWS, LIVE_CALLS)}, raw)


def _rows_of(stores: Stores, table: Table, person: Person) -> Iterator[Mapping[str, Any]]:
    t = stores.warehouse.tables[table.name]
    names = [column.name for column in table.columns if column.pii is not Pii.NONE]
    texts = [sa.func.lower(sa.cast(t.c[name], sa.Text)) for name in names]
    may_be = sa.or_(*(text.like(pattern, escape="/") for text in texts for pattern in person.like_patterns))
    with stores.warehouse.reading() as connection:
        for row in connection.execute(sa.select(t).where(may_be)).mappings():
            if any(person.is_in(str(row[name])) for name in names if row[name] is not None):
                yield dict(row)


def _raw_rows(stores: Stores, person: Person) -> Iterator[dict[str, Any]]:
    storage = stores.lake.storage
    for day in sorted(raw_dates(storage)):
        for file in raw_files(storage, day):
            for batch in read_raw(storage, file, BATCH_ROWS):
                for row in batch:
                    text = exact_json(row)
                    if person.is_in(text):
                        yield {"call_id": call_id_of(row), "read_at": file.read_at, "file": file.name, "row": text}


def _rows_of_calls(stores: Stores, table: Table, call_ids: Sequence[str]) -> list[Mapping[str, Any]]:
    t = stores.warehouse.tables[table.name]
    found: list[Mapping[str, Any]] = []
    with stores.warehouse.reading() as connection:
        for first in range(0, len(call_ids), _IDS_PER_QUERY):
            query = sa.select(t).where(t.c.call_id.in_(call_ids[first : first + _IDS_PER_QUERY]))
            query = query.order_by(*(t.c[name] for name in table.key))
            found += [dict(row) for row in connection.execute(query).mappings()]
    return found


def write_holdings(holdings: Holdings, archive: Archive, recordings: Recordings, folder: Path, zone: ZoneInfo) -> int:
    """Write ``person.json``, a CSV file for each table, and the recordings; return how many recordings.

    Only the user who runs this can read them. Raises ``SettingsError`` for a folder that holds something, and
    ``StorageError`` where it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            raise SettingsError(f"{folder} holds something already: choose another folder")
        make_folder(folder)
        data = {**holdings.tables, "raw_rows": holdings.raw}
        documents = {name: _documents(name, rows) for name, rows in data.items()}
        text = json.dumps(documents, default=iso, ensure_ascii=False, indent=1)
        # Half a character, as was served, is written as JSON's own escape of it.
        _write(folder / "person.json", text.encode(errors="backslashreplace"))
        for name, rows in data.items():
            if rows:
                _write(folder / f"{name}.csv", csv_file(rows, zone))
        return sum(_copy(archive, recordings, row["call_id"], folder) for row in holdings.tables[RECORDINGS.name])
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}. Choose a folder that can be written") from error


def _copy(archive: Archive, recordings: Recordings, call_id: str, folder: Path) -> int:
    kept = recordings.kept_one(call_id)
    if kept is None:
        return 0
    for name in (kept.archive_path, kept.archive_path + SIDECAR_SUFFIX):
        if archive.storage.exists(name):
            make_folder((folder / "recordings" / name).parent)
            with archive.storage.open(name) as source, create_file(folder / "recordings" / name, "wb") as copy:
                shutil.copyfileobj(source, copy)
    return 1


def _write(path: Path, content: bytes) -> None:
    with create_file(path, "wb") as file:
        file.write(content)


def _documents(name: str, rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return rows as JSON has them; those that were served are text, exactly as they were."""
    table = next((table for table in (*_SEARCHED, RECORDINGS) if table.name == name), None)
    return rows if table is None else [row_as_json(table, row) for row in rows]
