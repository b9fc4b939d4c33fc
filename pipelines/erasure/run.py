"""Erasing people: looked for, put on the list, taken out of every store, and looked for once more."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores, open_archive, utc_now
from pipelines.erasure.day import erase_day
from pipelines.erasure.scan import PLAIN_TABLES, OfDay, OnPlace, Scan, ignore, scan, texts_of
from pipelines.export.claims import LEASE, PATIENCE, keep_claim
from pipelines.export.planner import windows_of
from pipelines.logs import logger
from pipelines.recordings.delete import delete_without_copy
from pipelines.settings import Settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.operations import StringeeX
from pipelines.stringeex.request_budget import Priority
from sinks.archive import Archive, safe_name
from sinks.erasures import Erasure
from sinks.ledger import ClaimedDay, attempt_of
from transforms.columns import Table
from transforms.erasure import Erased, digests_of, key_id
from transforms.errors import ApiError, BusyError, CallHistoryError, DataError, RetryableError
from transforms.person import Person
from transforms.schema import RECORDINGS

_ROUNDS = 3
"""Rows that come while an erasure is at work are found by its last look, and taken out by one more round."""
_WAIT_SECONDS = 1.0
_IDS_AT_ONCE = 500


def erasure_of(person: Person, key: bytes, now: datetime) -> Erasure:
    """Return the list's entry for a person: the same person has the same id under the same key."""
    digests = digests_of(person, key)
    name = hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()[:32]
    return Erasure(name, key_id(key), digests, now)


class Stage(StrEnum):
    """How far what is asked for has come already."""

    NEW = "new"
    BEGUN = "begun"
    """It was cut off, and goes on."""
    DONE = "done"
    """Nothing is left of them, and they are on the list."""


@dataclass(frozen=True)
class Request:
    """People to erase, as the list has them or will have them, and where something speaks of them now."""

    erasures: Sequence[Erasure]
    stage: Stage
    found: Scan


def look_for(stores: Stores, people: Sequence[Person], now: datetime, on_place: OnPlace = ignore) -> Request:
    """Look for people in everything that is held; nothing is written.

    Raises ``SettingsError`` where there is no key, or another one than that of the list.
    """
    asked = [erasure_of(person, stores.erasure_key(), now) for person in people]
    stores.erased()
    known = {erasure.erasure_id: erasure for erasure in stores.erasures.all()}
    found = scan(
        stores, open_archive(stores, only_look=True), stores.people_of(erasure.digests for erasure in asked), on_place
    )
    listed = [known[erasure.erasure_id] for erasure in asked if erasure.erasure_id in known]
    if len(listed) == len(asked) and all(erasure.completed_at is None for erasure in listed):
        return Request(listed, Stage.BEGUN, found)
    if len(listed) == len(asked) and all(erasure.completed_at for erasure in listed) and found.is_clean:
        return Request(listed, Stage.DONE, found)
    counts = tuple(sorted(found.found.items()))
    return Request([replace(erasure, found=counts) for erasure in asked], Stage.NEW, found)


def carry_out(
    stores: Stores, request: Request, on_place: OnPlace = ignore, clock: Callable[[], datetime] = utc_now
) -> tuple[list[Erasure], Scan]:
    """Erase the people of a request; return the list's entries of them, and the last look. Raises as below."""
    if request.stage is Stage.NEW:
        stores.erasures.add(request.erasures)
    last_look = request.found if request.stage is Stage.DONE else finish_erasures(stores, on_place, clock, request)
    ids = [erasure.erasure_id for erasure in request.erasures]
    listed = {erasure.erasure_id: erasure for erasure in stores.erasures.all()}
    return [listed[erasure_id] for erasure_id in ids], last_look or request.found


def finish_erasures(
    stores: Stores,
    on_place: OnPlace = ignore,
    clock: Callable[[], datetime] = utc_now,
    request: Request | None = None,
) -> Scan | None:
    """Do what is unfinished on the list, all of it in one pass; return the last look, or null where there is nothing.

    Where that is a ``request`` alone, its look is the first one.

    So an erasure that was killed goes on, and one that a backup has undone is done again. Audio whose legal hold has
    ended goes, too. What cannot be erased leaves its erasures unfinished, and `Scan.is_clean` is false.

    Raises ``SettingsError`` as `Stores.erased` does, and ``BusyError`` where another run keeps a day for long, or is
    at work in the archive.
    """
    unfinished = stores.erasures.unfinished()
    archive = open_archive(stores, only_look=True)
    with archive.storage.only_writer() if archive.storage.is_there else nullcontext():
        _erase_audio(stores, archive, stores.erasures.released_audio())
        if not unfinished:
            return None
        erased = stores.people_of(erasure.digests for erasure in unfinished)
        looked_already = request is not None and _ids(request.erasures) == _ids(unfinished)
        found = request.found if request and looked_already else scan(stores, archive, erased, on_place)
        for _ in range(_ROUNDS):
            if not found.found:
                break
            on_place(f"{len(found.days)} local days to write anew")
            _erase_audio(stores, archive, found.call_ids)
            _erase_days(stores, erased, found.days, clock)
            for table in PLAIN_TABLES:
                if found.found[table.name]:
                    _erase_in_table(stores, erased, table)
            found = scan(stores, archive, erased, on_place)
    if found.is_clean:
        stores.erasures.complete(_ids(unfinished), clock())
    return found


def _ids(erasures: Iterable[Erasure]) -> set[str]:
    return {erasure.erasure_id for erasure in erasures}


def _erase_days(stores: Stores, erased: Erased, days: Mapping[date, OfDay], clock: Callable[[], datetime]) -> None:
    """Do the days one after the other; one that another run is at work on is waited for, as runs do."""
    claimed_by = attempt_of(f"erase-{uuid.uuid4().hex[:12]}")
    pending, gives_up_at = sorted(days), time.monotonic() + PATIENCE.total_seconds()
    while True:
        pending = [day for day in pending if not _erase_claimed(stores, erased, day, days[day], claimed_by, clock)]
        if not pending:
            return
        if time.monotonic() > gives_up_at:
            raise BusyError(
                f"another run is at work on {pending[0]}: erase again when it has ended, which goes on from here"
            )
        logger.info("waiting for %d local days that other runs are at work on", len(pending))
        time.sleep(_WAIT_SECONDS)


def _erase_claimed(
    stores: Stores, erased: Erased, day: date, found: OfDay, claimed_by: str, clock: Callable[[], datetime]
) -> bool:
    rows = {row.window_start: row for row in stores.ledger.rows(day, day)}
    first = windows_of(day, rows, stores.timezone, stores.settings.window)[0]
    claim = ClaimedDay(day, first.start, first.end, claimed_by)
    if stores.ledger.claim_day(claim, (), LEASE) is None:
        return False
    try:
        with keep_claim(stores.ledger, claim, LEASE):
            erase_day(stores, erased, claim, found, clock())
    except DataError as error:
        logger.warning("%s is left as it is: %s", day, error)
    finally:
        with suppress(CallHistoryError):  # it lapses by itself
            stores.ledger.release_day(claim)
    return True


def _erase_audio(stores: Stores, archive: Archive, call_ids: Iterable[str]) -> None:
    """Delete the audio of calls, and what lies beside it; what is under legal hold is marked, and stays."""
    t = stores.warehouse.tables[RECORDINGS.name]
    ids = sorted(call_ids)
    kept: set[str] = set()
    for first in range(0, len(ids), _IDS_AT_ONCE):
        some = t.c.call_id.in_(ids[first : first + _IDS_AT_ONCE])
        with stores.warehouse.transaction() as connection:
            now = stores.warehouse.utc_now(connection)
            held = (some, t.c.legal_hold.is_(True), t.c.erase_requested_at.is_(None))
            connection.execute(sa.update(t).where(*held).values(erase_requested_at=now))
            going = (some, t.c.legal_hold.is_(False))
            paths = connection.scalars(sa.select(t.c.archive_path).where(*going, t.c.archive_path.is_not(None))).all()
            for path in paths:
                archive.remove(str(path))
            connection.execute(sa.delete(t).where(*going))
            kept |= set(connection.scalars(sa.select(t.c.call_id).where(some)))
    # What was cut off on its way into the archive is in no row.
    stems = {safe_name(call_id) for call_id in ids if call_id not in kept}
    for name in archive.storage.sizes() if stems else ():
        if name.rpartition("/")[2].partition(".")[0] in stems:
            archive.storage.remove(name)


def _erase_in_table(stores: Stores, erased: Erased, table: Table) -> None:
    """Take people out of a table whose texts are looked at as they are."""
    t = stores.warehouse.tables[table.name]
    names = dict.fromkeys((*table.key, *texts_of(table), *(("legal_hold",) if table is RECORDINGS else ())))
    with stores.warehouse.transaction() as connection:
        query = sa.select(*(t.c[name] for name in names))
        found: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        for batch in stores.warehouse.fetch(connection, table, query):
            for row in batch.to_pylist():
                changed = {} if row.get("legal_hold") else erased.columns_without(table, row)
                if changed != {}:
                    found.append(({name: row[name] for name in table.key}, changed))
        for key, changed in found:
            is_row = [t.c[name] == value for name, value in key.items()]
            change = sa.delete(t) if changed is None else sa.update(t).values(changed)
            connection.execute(change.where(*is_row))


def delete_at_source(stores: Stores, settings: Settings, call_ids: Iterable[str]) -> list[str]:
    """Delete the recordings of calls at the provider; return why some were not, one line each.

    Only calls of which the table ``recordings`` knows are asked for; a legal hold keeps a recording there, too. Raises
    as `pipelines.recordings.delete.delete_without_copy`.
    """
    t = stores.warehouse.tables[RECORDINGS.name]
    ids, problems = sorted(call_ids), []
    with StringeeXClient(settings, priority=Priority.INTERACTIVE) as client:
        api = StringeeX(client)
        for first in range(0, len(ids), _IDS_AT_ONCE):
            some = (t.c.call_id.in_(ids[first : first + _IDS_AT_ONCE]), t.c.source_deleted_at.is_(None))
            with stores.warehouse.reading() as connection:
                recorded = connection.scalars(sa.select(t.c.call_id).where(*some)).all()
            for call_id in recorded:
                try:
                    problems += delete_without_copy(stores, api, call_id, utc_now()).refused
                except (ApiError, RetryableError) as error:
                    problems.append(str(error))
    return problems
