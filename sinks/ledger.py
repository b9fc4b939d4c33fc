"""The ledger: one row per export window in ``export_windows``, its claim, and its certificate of completeness."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol

import sqlalchemy as sa

from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.errors import ClaimLostError

ERROR_MAX_CHARACTERS = 2_000

_OF = "/"
_LONGER_THAN_ANY_LEASE = timedelta(minutes=10)


class WindowStatus(StrEnum):
    """Where a window stands."""

    RUNNING = "running"
    COMPLETE = "complete"
    DISPUTED = "disputed"
    """What was served is published, or held, but does not prove that it is all."""
    FAILED = "failed"


@dataclass(frozen=True)
class LedgerRow:
    """One row of ``export_windows``."""

    window_start: datetime
    window_end: datetime
    call_date: date
    status: WindowStatus
    api_total: int | None
    raw_rows: int | None
    rejected: int | None
    lake_rows: int | None
    warehouse_rows: int | None
    late_changes: int
    attempts: int
    content_hash: str | None
    warehouse_content_hash: str | None
    claimed_by: str | None
    claim_expires_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    next_reread_at: datetime | None
    settled: bool
    run_id: str | None
    error: str | None
    held: bool | None = None
    made_by: str | None = None


class DueWindow(Protocol):
    """A window to begin; ``completed_at`` is when it was last complete, as the one who plans saw it."""

    @property
    def start(self) -> datetime:
        """First instant of the window."""

    @property
    def end(self) -> datetime:
        """First instant after the window."""

    @property
    def completed_at(self) -> datetime | None:
        """When it was last complete; null for never."""


@dataclass(frozen=True)
class ClaimedDay:
    """A local day and who claims it; ``lock_start`` and ``lock_end`` are the day's first window.

    ``claimed_by`` is one attempt of one run, as `attempt_of` names it.
    """

    call_date: date
    lock_start: datetime
    lock_end: datetime
    claimed_by: str

    @property
    def run_id(self) -> str:
        """The run that the attempt belongs to."""
        return self.claimed_by.partition(_OF)[0]


def attempt_of(run_id: str) -> str:
    """Return a name for one more attempt of a run on a day, unlike that of any other attempt."""
    return f"{run_id}{_OF}{uuid.uuid4().hex[:12]}"


@dataclass(frozen=True)
class Certificate:
    """What proves a window: the four counts, and the content hashes of both copies.

    ``api_total`` is null where the API gave no count; that is a dispute.
    """

    api_total: int | None
    raw_rows: int
    rejected: int
    lake_rows: int
    warehouse_rows: int
    content_hash: str
    warehouse_content_hash: str

    @property
    def differences(self) -> list[str]:
        """Return in words what does not agree; empty when the window is proven complete."""
        found = []
        if self.api_total != self.raw_rows:
            found.append(f"the API counts {self.api_total} calls and served {self.raw_rows}")
        if self.raw_rows != self.lake_rows + self.rejected:
            found.append(
                f"{self.raw_rows} rows were served, {self.lake_rows} are in the lake, {self.rejected} rejected"
            )
        return found + self.copy_differences

    @property
    def copy_differences(self) -> list[str]:
        """Return in words how lake and warehouse differ, which they may not under a dispute either."""
        if self.lake_rows != self.warehouse_rows:
            return [f"the lake has {self.lake_rows} calls, the warehouse {self.warehouse_rows}"]
        if self.content_hash != self.warehouse_content_hash:
            return [f"lake and warehouse hold {self.lake_rows} calls each, but not the same"]
        return []


class Ledger:
    """Reads and writes ``export_windows``."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._table = warehouse.tables["export_windows"]

    def rows(self, first: date | None = None, last: date | None = None) -> list[LedgerRow]:
        """Return the rows of the local days from ``first`` to ``last`` (both included), oldest first."""
        t = self._table
        query = sa.select(t).order_by(t.c.window_start)
        if first is not None:
            query = query.where(t.c.call_date >= first)
        if last is not None:
            query = query.where(t.c.call_date <= last)
        with self._warehouse.reading() as connection:
            return [_row(mapping) for mapping in connection.execute(query).mappings()]

    def has_rows(self) -> bool:
        """Whether any window was ever begun."""
        with self._warehouse.reading() as connection:
            return connection.scalar(sa.select(sa.literal(1)).select_from(self._table).limit(1)) is not None

    @once_more_on_collision
    def claim_day(
        self, day: ClaimedDay, windows: Sequence[DueWindow], lease: timedelta
    ) -> dict[datetime, LedgerRow] | None:
        """Take the lease on a local day and note that work on its ``windows`` has begun.

        Returns the rows of the begun windows as they were before, by their start; null when another run holds the
        day. A window that another run has completed meanwhile is not begun. Whatever is cut off from here on, the
        begun windows are due again.

        The lease lies in the row of the day's first window, so that one conditional UPDATE decides between any number
        of processes. The database's clock measures it where there is one: machines' clocks differ. A run has one
        attempt at a day at a time: a new one takes the day over from the last, which was given up as lost.
        """
        t = self._table
        with self._warehouse.transaction() as connection:
            now = self._warehouse.utc_now(connection)
            self._ensure_row(connection, day.call_date, day.lock_start, day.lock_end)
            if not self._take(connection, day, lease, now):
                return None
            before = {}
            for window in windows:
                self._ensure_row(connection, day.call_date, window.start, window.end)
                query = sa.select(t).where(t.c.window_start == window.start)
                row = _row(connection.execute(query).mappings().one())
                if row.status is not WindowStatus.COMPLETE or row.completed_at == window.completed_at:
                    before[window.start] = row
            connection.execute(
                sa.update(t)
                .where(t.c.window_start.in_(list(before)))
                .values(
                    status=WindowStatus.RUNNING,
                    attempts=t.c.attempts + 1,
                    started_at=now,
                    run_id=day.run_id,
                    error=None,
                )
            )
            return before

    def renew_claim(self, day: ClaimedDay, lease: timedelta) -> bool:
        """Have all days of this attempt be ours for another ``lease``; return false when this one is not any more."""
        t = self._table
        with self._warehouse.transaction() as connection:
            connection.execute(
                sa.update(t)
                .where(t.c.claimed_by == day.claimed_by)
                .values(claim_expires_at=self._warehouse.utc_now(connection) + lease)
            )
            return self._holder(connection, day) == day.claimed_by

    def release_day(self, day: ClaimedDay) -> None:
        """Give the lease back, if it is still ours."""
        with self._warehouse.transaction() as connection:
            self.release(connection, day)

    def release(self, connection: sa.Connection, day: ClaimedDay) -> None:
        """Give the lease back, if it is still ours, as a part of the caller's transaction."""
        t = self._table
        connection.execute(
            sa.update(t)
            .where(t.c.window_start == day.lock_start, t.c.claimed_by == day.claimed_by)
            .values(claimed_by=None, claim_expires_at=None)
        )

    def release_run(self, run_id: str) -> None:
        """Give back every lease that attempts of a run hold, wherever they are at work: they publish nothing more."""
        t = self._table
        with self._warehouse.transaction() as connection:
            connection.execute(
                sa.update(t).where(self._is_attempt_of(run_id)).values(claimed_by=None, claim_expires_at=None)
            )

    def check_claim(self, connection: sa.Connection, day: ClaimedDay) -> None:
        """Hold the day's row to the end of the transaction; raise ``ClaimLostError`` when it is not ours any more."""
        t = self._table
        connection.execute(sa.update(t).where(t.c.window_start == day.lock_start).values(claimed_by=t.c.claimed_by))
        if self._holder(connection, day) != day.claimed_by:
            raise ClaimLostError("another run has taken this day over; it will finish the work")

    def complete(
        self,
        connection: sa.Connection,
        window_start: datetime,
        certificate: Certificate,
        *,
        completed_at: datetime,
        next_reread_at: datetime | None,
        settled: bool,
        ends_day: bool,
        made_by: str,
        started_at: datetime | None = None,
    ) -> None:
        """Write the certificate, in the transaction that publishes the window's rows.

        ``started_at`` says when the API was asked, where that was not in this attempt. ``made_by`` is the digest of
        what made the rows.
        """
        self._certify(
            connection,
            window_start,
            certificate,
            started_at,
            status=WindowStatus.COMPLETE,
            completed_at=completed_at,
            next_reread_at=next_reread_at,
            settled=settled,
            ends_day=ends_day,
            made_by=made_by,
            error=None,
        )

    def dispute(
        self,
        connection: sa.Connection,
        window_start: datetime,
        certificate: Certificate,
        *,
        reason: str,
        disputed_at: datetime,
        started_at: datetime | None = None,
    ) -> None:
        """Write the counts of rows that are published and do not prove the window, in the same transaction.

        It is due again at once. When it was last complete stays.
        """
        self._certify(
            connection,
            window_start,
            certificate,
            started_at,
            status=WindowStatus.DISPUTED,
            next_reread_at=disputed_at,
            settled=False,
            error=reason[:ERROR_MAX_CHARACTERS],
        )

    def _certify(
        self,
        connection: sa.Connection,
        window_start: datetime,
        certificate: Certificate,
        started_at: datetime | None,
        **values: object,
    ) -> None:
        t = self._table
        connection.execute(
            sa.update(t)
            .where(t.c.window_start == window_start)
            .values(
                **asdict(certificate),
                started_at=t.c.started_at if started_at is None else started_at,
                held=False,
                **values,
            )
        )

    def hold(self, day: ClaimedDay, window_start: datetime, reason: str) -> None:
        """Note why a read of a window was held; what is published stays, and so do the numbers of its certificate.

        When the day is not ours any more, the window is left as it is.
        """
        t = self._table
        with self._warehouse.transaction() as connection:
            now = self._warehouse.utc_now(connection)
            self._note(
                connection,
                day,
                t.c.window_start == window_start,
                status=WindowStatus.DISPUTED,
                held=True,
                next_reread_at=now,
                settled=False,
                error=reason[:ERROR_MAX_CHARACTERS],
            )

    def add_late_changes(self, connection: sa.Connection, window_start: datetime, calls: int) -> None:
        """Add to the calls that later reads found changed, in the transaction that publishes them."""
        t = self._table
        connection.execute(
            sa.update(t).where(t.c.window_start == window_start).values(late_changes=t.c.late_changes + calls)
        )

    def fail(self, day: ClaimedDay, window_start: datetime, error: str) -> None:
        """Note why a window failed; the numbers of its last certificate stay.

        When the day is not ours any more, the window is somebody else's business, and left as it is.
        """
        t = self._table
        with self._warehouse.transaction() as connection:
            self._note(
                connection,
                day,
                t.c.window_start == window_start,
                status=WindowStatus.FAILED,
                held=False,
                error=error[:ERROR_MAX_CHARACTERS],
            )

    def _note(
        self, connection: sa.Connection, day: ClaimedDay, window: sa.ColumnElement[bool], **values: object
    ) -> None:
        if self._holder(connection, day) == day.claimed_by:
            connection.execute(sa.update(self._table).where(window).values(**values))

    def make_due(
        self, connection: sa.Connection, instants: Iterable[datetime], now: datetime, read_before: datetime
    ) -> None:
        """Have the complete windows that hold ``instants`` read again: whether a call is still there is to be seen.

        One that was read since ``read_before`` has just been seen.
        """
        was_read_before = self._table.c.completed_at < read_before
        for window in self._holding(connection, instants):
            connection.execute(
                sa.update(self._table).where(window, was_read_before).values(next_reread_at=now, settled=False)
            )

    def doubt(self, connection: sa.Connection, instants: Iterable[datetime], reason: str, now: datetime) -> None:
        """Take the certificates of the windows that hold ``instants`` back: a call of theirs has gone elsewhere.

        They are due again at once.
        """
        for window in self._holding(connection, instants):
            connection.execute(
                sa.update(self._table)
                .where(window)
                .values(status=WindowStatus.DISPUTED, held=False, error=reason, next_reread_at=now, settled=False)
            )

    def _holding(self, connection: sa.Connection, instants: Iterable[datetime]) -> Iterator[sa.ColumnElement[bool]]:
        """Yield for each instant the condition of its window, if that is complete, and hold its day's rows.

        Whoever publishes on that day has held the row with the claim first: one of the two waits for the other.
        """
        t = self._table
        for instant in instants:
            is_there = (t.c.window_start <= instant, t.c.window_end > instant)
            call_date = connection.scalar(sa.select(t.c.call_date).where(*is_there))
            if call_date is not None:
                connection.execute(sa.update(t).where(t.c.call_date == call_date).values(claimed_by=t.c.claimed_by))
                yield sa.and_(*is_there, t.c.status == WindowStatus.COMPLETE)

    def _take(self, connection: sa.Connection, day: ClaimedDay, lease: timedelta, now: datetime) -> bool:
        t = self._table
        is_free = sa.or_(
            t.c.claimed_by.is_(None),
            self._is_attempt_of(day.run_id),
            t.c.claim_expires_at <= now,
            # The clock was set back since, and the lease would outlast its holder.
            t.c.claim_expires_at > now + _LONGER_THAN_ANY_LEASE,
        )
        connection.execute(
            sa.update(t)
            .where(t.c.window_start == day.lock_start, is_free)
            .values(claimed_by=day.claimed_by, claim_expires_at=now + lease)
        )
        return self._holder(connection, day) == day.claimed_by

    def _is_attempt_of(self, run_id: str) -> sa.ColumnElement[bool]:
        return self._table.c.claimed_by.startswith(f"{run_id}{_OF}", autoescape=True)

    def _holder(self, connection: sa.Connection, day: ClaimedDay) -> str | None:
        t = self._table
        return connection.scalar(sa.select(t.c.claimed_by).where(t.c.window_start == day.lock_start))

    def _ensure_row(
        self, connection: sa.Connection, call_date: date, window_start: datetime, window_end: datetime
    ) -> None:
        t = self._table
        if connection.scalar(sa.select(sa.literal(1)).where(t.c.window_start == window_start)) is None:
            connection.execute(
                sa.insert(t).values(
                    window_start=window_start,
                    window_end=window_end,
                    call_date=call_date,
                    status=WindowStatus.RUNNING,
                    late_changes=0,
                    attempts=0,
                    settled=False,
                )
            )


def _row(mapping: Mapping[Any, Any]) -> LedgerRow:
    values = {name: mapping[name] for name in LedgerRow.__dataclass_fields__}
    values["status"] = WindowStatus(values["status"])
    return LedgerRow(**values)
