"""The table ``recordings``: which calls have audio, and what has become of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from sinks.warehouse import Warehouse
from transforms.schema import CALLS

_ROWS_PER_READ = 1_000
_STATUS = "recording_status"
"""The name of our ``status`` in a row that has the call's as well."""

FACTS = tuple(name for name in CALLS.hashed_columns if name not in ("extra", "participant_count"))
"""Columns of ``calls`` that go along with a recording."""


class RecordingStatus(StrEnum):
    """What has become of a recording; the table's column ``status`` says what each means."""

    PENDING = "pending"
    ARCHIVED = "archived"
    NOT_READY = "not_ready"
    MISSING = "missing"
    NONE = "none"
    FAILED = "failed"
    DELETED_AT_SOURCE = "deleted_at_source"
    EXPIRED = "expired"


WANTED = (RecordingStatus.PENDING, RecordingStatus.NOT_READY, RecordingStatus.FAILED)
"""Still to be fetched."""
KEPT = (RecordingStatus.ARCHIVED, RecordingStatus.DELETED_AT_SOURCE)
"""In the archive."""
LOST = (RecordingStatus.MISSING, RecordingStatus.FAILED)
"""A recording that never came, or does not come."""
UNDONE = (RecordingStatus.FAILED,)
"""What makes an archive incomplete for as long as it is so. What is missing for good is told once, and then counted."""


@dataclass(frozen=True)
class WantedRecording:
    """A recording to fetch, and the ``FACTS`` of its call."""

    call_id: str
    status: RecordingStatus
    attempts: int
    not_found_count: int
    first_not_found_at: datetime | None
    facts: Mapping[str, Any]

    @property
    def call_date(self) -> date:
        """Local day of the call."""
        day: date = self.facts["call_date"]
        return day

    @property
    def ended_at(self) -> datetime:
        """When the call ended; its start where the end is not known."""
        moment: datetime = self.facts["ended_at"] or self.facts["started_at"]
        return moment

    @property
    def is_promised(self) -> bool:
        """Whether the call history says that there is a recording; a voicemail may hold nothing."""
        return self.facts["is_recorded"] is True


@dataclass(frozen=True)
class KeptRecording:
    """A recording that the table says is in the archive."""

    call_id: str
    status: RecordingStatus
    archive_path: str
    bytes: int
    sha256: str
    legal_hold: bool
    source_deleted_at: datetime | None
    doubt: str | None
    started_at: datetime | None


class Recordings:
    """Reads and writes ``recordings``."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._table = warehouse.tables["recordings"]
        self._calls = warehouse.tables["calls"]

    def add_pending(self, connection: sa.Connection, window_start: datetime, window_end: datetime) -> None:
        """Add the window's recorded and voicemail calls that have no row yet, as a part of the caller's transaction.

        A row that is there is not touched, so doing a window again adds what was recorded since and nothing else; but
        what nobody had promised, and was not there, is wanted again once the history says that there is a recording.
        """
        t, c = self._table, self._calls
        new_rows = (
            sa.select(
                c.c.call_id, sa.literal(RecordingStatus.PENDING.value), sa.literal(0), sa.literal(False, sa.Boolean())
            )
            .select_from(c.outerjoin(t, t.c.call_id == c.c.call_id))
            .where(
                c.c.started_at >= window_start,
                c.c.started_at < window_end,
                c.c.deleted_at.is_(None),
                c.c.is_recorded.is_(True) | c.c.has_voicemail.is_(True),
                t.c.call_id.is_(None),
            )
        )
        connection.execute(sa.insert(t).from_select(["call_id", "status", "attempts", "legal_hold"], new_rows))
        promised = sa.select(c.c.call_id).where(
            c.c.started_at >= window_start, c.c.started_at < window_end, c.c.is_recorded.is_(True)
        )
        connection.execute(
            sa.update(t)
            .where(t.c.status == RecordingStatus.NONE, t.c.call_id.in_(promised))
            .values(status=RecordingStatus.PENDING.value, next_attempt_at=None)
        )

    def counts(self) -> dict[RecordingStatus, int]:
        """Return the number of recordings of every status; none are left out. All 0 before there is a table."""
        t = self._table
        with self._warehouse.reading() as connection:
            if not self._warehouse.backend.has_table(connection, t):
                return dict.fromkeys(RecordingStatus, 0)
            found = connection.execute(sa.select(t.c.status, sa.func.count()).group_by(t.c.status)).tuples().all()
        return dict.fromkeys(RecordingStatus, 0) | {RecordingStatus(status): count for status, count in found}

    def count_due(self, now: datetime) -> int:
        """Return how many recordings are to be asked for at ``now``."""
        t, c = self._table, self._calls
        query = sa.select(sa.func.count()).select_from(t.join(c, c.c.call_id == t.c.call_id)).where(self._is_due(now))
        with self._warehouse.reading() as connection:
            return connection.execute(query).scalar_one()

    def due(self, now: datetime) -> Iterator[WantedRecording]:
        """Yield the recordings to be asked for at ``now``, oldest call first, in bounded memory.

        No connection is held between two reads of some rows, so the table can be written to meanwhile.
        """
        t, c = self._table, self._calls
        query = (
            sa.select(
                t.c.status.label(_STATUS),
                t.c.attempts,
                t.c.not_found_count,
                t.c.first_not_found_at,
                *(c.c[name] for name in FACTS),
            )
            .select_from(t.join(c, c.c.call_id == t.c.call_id))
            .where(self._is_due(now))
            .order_by(c.c.started_at, c.c.call_id)
            .limit(_ROWS_PER_READ)
        )
        page = query
        while True:
            with self._warehouse.reading() as connection:
                rows = connection.execute(page).mappings().all()
            for row in rows:
                facts = {name: row[name] for name in FACTS}
                yield WantedRecording(
                    row["call_id"],
                    RecordingStatus(row[_STATUS]),
                    row["attempts"],
                    row["not_found_count"] or 0,
                    row["first_not_found_at"],
                    facts,
                )
            if len(rows) < _ROWS_PER_READ:
                return
            page = query.where(_after(c.c.started_at, rows[-1]["started_at"], c.c.call_id, rows[-1]["call_id"]))

    def kept(self, *conditions: sa.ColumnElement[bool], most: int | None = None) -> Iterator[KeptRecording]:
        """Yield the recordings that are in the archive and meet ``conditions``, by call id, in bounded memory.

        With ``most``, only that many: those that were not verified for the longest time, so that samples go round.
        """
        t, c = self._table, self._calls
        names = ("call_id", "status", "archive_path", "bytes", "sha256", "legal_hold", "source_deleted_at", "doubt")
        query = (
            sa.select(*(t.c[name] for name in names), c.c.started_at)
            .select_from(t.outerjoin(c, c.c.call_id == t.c.call_id))
            .where(t.c.status.in_(KEPT), t.c.archive_path.is_not(None), *conditions)
        )
        if most is not None:
            query = query.order_by(t.c.verified_at.is_not(None), t.c.verified_at, t.c.call_id).limit(most)
            yield from self._kept(query)
            return
        page = query = query.order_by(t.c.call_id).limit(_ROWS_PER_READ)
        while rows := self._kept(page):
            yield from rows
            page = query.where(t.c.call_id > rows[-1].call_id)

    def _kept(self, query: sa.Select[Any]) -> list[KeptRecording]:
        with self._warehouse.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [KeptRecording(**{**row, "status": RecordingStatus(row["status"])}) for row in rows]

    def kept_one(self, call_id: str) -> KeptRecording | None:
        """Return the recording of a call, if the table says that it is in the archive."""
        return next(self.kept(self._table.c.call_id == call_id), None)

    def deletable(self, started_before: datetime) -> Iterator[KeptRecording]:
        """Yield what is archived, still at the provider, under no legal hold, and of a call before an instant.

        Not what is doubtful: the provider may yet be asked for a better one, so somebody has to name it.
        """
        t, c = self._table, self._calls
        return self.kept(
            t.c.status == RecordingStatus.ARCHIVED,
            t.c.legal_hold.is_(False),
            t.c.doubt.is_(None),
            c.c.started_at < started_before,
        )

    def expirable(self, started_before: datetime) -> Iterator[KeptRecording]:
        """Yield what is archived, under no legal hold, and of a call before an instant."""
        return self.kept(self._table.c.legal_hold.is_(False), self._calls.c.started_at < started_before)

    def expire(self, call_ids: Sequence[str], now: datetime) -> None:
        """Note that the audio of calls is not in the archive any more: it was kept for long enough."""
        t = self._table
        with self._warehouse.transaction() as connection:
            connection.execute(sa.update(t).where(t.c.call_id.in_(call_ids)).values(_expired(now)))

    def count_wanted(self, started_before: datetime) -> int:
        """Return how many recordings of calls before an instant are still to be fetched."""
        with self._warehouse.reading() as connection:
            query = sa.select(sa.func.count()).select_from(self._table).where(*self._wanted_before(started_before))
            return connection.scalar(query) or 0

    def expire_wanted(self, started_before: datetime, now: datetime) -> None:
        """Have the recordings of calls before an instant not fetched any more."""
        with self._warehouse.transaction() as connection:
            wanted = self._wanted_before(started_before)
            connection.execute(sa.update(self._table).where(*wanted).values(_expired(now)))

    def _wanted_before(self, started_before: datetime) -> list[sa.ColumnElement[bool]]:
        t, c = self._table, self._calls
        of_calls = sa.select(c.c.call_id).where(c.c.started_at < started_before)
        return [t.c.status.in_(WANTED), t.c.legal_hold.is_(False), t.c.call_id.in_(of_calls)]

    def confirm_deletable(self, call_id: str, verified_at: datetime) -> bool:
        """Note that an archived recording has just been read back; return whether it may be deleted at the source.

        It may not when it is under legal hold by now, or not in the archive.
        """
        t = self._table
        deletable = (t.c.call_id == call_id, t.c.status == RecordingStatus.ARCHIVED, t.c.legal_hold.is_(False))
        with self._warehouse.transaction() as connection:
            connection.execute(sa.update(t).where(*deletable).values(verified_at=verified_at, last_error=None))
            return connection.scalar(sa.select(sa.func.count()).where(*deletable)) == 1

    def is_held(self, call_id: str) -> bool:
        """Whether the recording is under legal hold."""
        t = self._table
        with self._warehouse.reading() as connection:
            query = sa.select(sa.func.count()).where(t.c.call_id == call_id, t.c.legal_hold.is_not(False))
            return bool(connection.scalar(query))

    def hold(self, call_id: str, reason: str, now: datetime) -> bool:
        """Keep a recording from being deleted, as of ``now``; return whether there is one.

        One that is held already gets the new reason, and stays held since then.
        """
        t = self._table
        held_at = sa.case((t.c.legal_hold.is_(True), t.c.held_at), else_=sa.literal(now, t.c.held_at.type))
        return self._set_hold(call_id, {"legal_hold": True, "hold_reason": reason, "held_at": held_at})

    def release(self, call_id: str) -> bool:
        """Let a recording be deleted again; return whether there is one."""
        return self._set_hold(call_id, {"legal_hold": False, "hold_reason": None, "held_at": None})

    def _set_hold(self, call_id: str, values: Mapping[str, object]) -> bool:
        t = self._table
        with self._warehouse.transaction() as connection:
            connection.execute(sa.update(t).where(t.c.call_id == call_id).values(values))
            return connection.scalar(sa.select(sa.func.count()).where(t.c.call_id == call_id)) == 1

    def count_held(self) -> int:
        """Return how many archived recordings are under legal hold."""
        t = self._table
        with self._warehouse.reading() as connection:
            query = sa.select(sa.func.count()).where(t.c.status == RecordingStatus.ARCHIVED, t.c.legal_hold.is_(True))
            return connection.scalar(query) or 0

    def count_doubtful(self) -> int:
        """Return how many archived recordings have something odd about them, deleted at the source or not.

        0 before there is a table.
        """
        t = self._table
        with self._warehouse.reading() as connection:
            if not self._warehouse.backend.has_table(connection, t):
                return 0
            return connection.scalar(self._doubtful(t.c.status.in_(KEPT))) or 0

    def count_doubtful_deletable(self, started_before: datetime) -> int:
        """Return how many recordings `deletable` leaves out for nothing but the doubt about them."""
        t, c = self._table, self._calls
        query = self._doubtful(
            t.c.status == RecordingStatus.ARCHIVED, t.c.legal_hold.is_(False), c.c.started_at < started_before
        ).select_from(t.join(c, c.c.call_id == t.c.call_id))
        with self._warehouse.reading() as connection:
            return connection.scalar(query) or 0

    def _doubtful(self, *conditions: sa.ColumnElement[bool]) -> sa.Select[tuple[int]]:
        return sa.select(sa.func.count()).where(self._table.c.doubt.is_not(None), *conditions)

    def want_lost_again(self) -> None:
        """Have everything that is missing or failed asked for at once."""
        self._want_again(self._table.c.status.in_(LOST))

    def want_again_after_one_answer(self) -> None:
        """Have asked for again what version 0.1.0 took for missing: one answer was enough for it, which proves little.

        Its rows hold no count of such answers. Changes nothing the second time.
        """
        t = self._table
        self._want_again((t.c.status == RecordingStatus.MISSING) & t.c.not_found_count.is_(None))

    def _want_again(self, condition: sa.ColumnElement[bool]) -> None:
        again = {"status": RecordingStatus.PENDING.value, "next_attempt_at": None}
        with self._warehouse.transaction() as connection:
            connection.execute(sa.update(self._table).where(condition).values(again))

    def want_again(self, call_ids: Iterable[str]) -> None:
        """Have recordings fetched anew that are archived, and still at the source."""
        t = self._table
        with self._warehouse.transaction() as connection:
            for call_id in call_ids:
                connection.execute(
                    sa.update(t)
                    .where(t.c.call_id == call_id, t.c.status == RecordingStatus.ARCHIVED)
                    .values(status=RecordingStatus.PENDING.value, next_attempt_at=None)
                )

    def record_path(self, call_id: str) -> str | None:
        """Return the link that the call history gives for a recording; null when there is none, or no such call."""
        c = self._calls
        with self._warehouse.reading() as connection:
            if not self._warehouse.backend.has_table(connection, c):
                return None
            path: str | None = connection.scalar(sa.select(c.c.record_path).where(c.c.call_id == call_id))
        return path

    def save(self, changes: Mapping[str, Mapping[str, object]]) -> None:
        """Set columns of rows, by call id, in one transaction.

        A failure (``status`` is not one of ``KEPT``) is not written over what another run has archived meanwhile.
        """
        t = self._table
        with self._warehouse.transaction() as connection:
            for call_id, values in changes.items():
                statement = sa.update(t).where(t.c.call_id == call_id).values(values)
                if values.get("status", RecordingStatus.ARCHIVED) not in KEPT:
                    statement = statement.where(t.c.status.in_(WANTED))
                connection.execute(statement)

    def _is_due(self, now: datetime) -> sa.ColumnElement[bool]:
        t = self._table
        return t.c.status.in_(WANTED) & (t.c.next_attempt_at.is_(None) | (t.c.next_attempt_at <= now))


def _expired(now: datetime) -> dict[str, object]:
    return {
        "status": RecordingStatus.EXPIRED.value,
        "expired_at": now,
        "archive_path": None,
        "next_attempt_at": None,
        "last_error": None,
    }


def _after(
    first: sa.ColumnElement[Any], first_value: object, second: sa.ColumnElement[Any], second_value: object
) -> sa.ColumnElement[bool]:
    return (first > first_value) | ((first == first_value) & (second > second_value))
