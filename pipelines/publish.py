"""The second half of a window's way: from rows that were read, now or once, to lake, warehouse and certificate.

Export and replay differ in where the rows come from, and in nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa
import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.planner import next_reread
from pipelines.steps import Step
from pipelines.windows import Window, day_bounds
from sinks.bookkeeping import all_new, as_in_warehouse
from sinks.late_changes import add_late_changes
from sinks.ledger import Certificate, ClaimedDay, LedgerRow
from sinks.merge import Changes, StagedWindow, forget_window
from sinks.parquet import LakeWriter
from sinks.recordings import Recordings
from sinks.source_fields import replace_source_fields
from sinks.spool import Spool
from transforms.calls import Normalised, normalise
from transforms.errors import UnsettledWindowError
from transforms.json_text import JsonValue
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table


@dataclass(frozen=True)
class Publication:
    """One state of a window, to be published under a claim on its day.

    ``read_at`` is when the rows were read; rows that change are stamped with what ``changed_at`` returns. It is called
    when the claim is held to the end and nothing has been published: nobody's late state gets past it.
    ``previous_read_at`` is when the window was read before (null: never). ``whole_day`` says that the window is all of
    its local day, ``releases_claim`` that the claim ends with it.

    A replay sets the rest: ``forgets`` has the warehouse lose what it holds of the window first. With ``is_newest``
    false, a later state follows: lake and certificate are left to that one. ``started_at`` is when the API was asked;
    ``certified`` is the ledger's row where it has certified this very state: what it says of times stays.
    """

    stores: Stores
    claim: ClaimedDay
    window: Window
    api_total: int
    read_at: datetime
    changed_at: Callable[[], datetime]
    previous_read_at: datetime | None
    whole_day: bool
    releases_claim: bool
    tell: Callable[[Step], None]
    forgets: bool = False
    is_newest: bool = True
    started_at: datetime | None = None
    certified: LedgerRow | None = None


@dataclass(frozen=True)
class Published:
    """What publishing a window did, and the proof of what there is now (null for a state that another one follows)."""

    changes: Changes
    certificate: Certificate | None
    files_written: int


def window_spool(stores: Stores, window: Window) -> Spool:
    """Return an empty spool for rows that ``window`` served."""

    def normalise_batch(rows: list[JsonValue], reject_occurrences: Counter[str]) -> Normalised:
        return normalise(
            rows,
            window_start=window.start,
            window_end=window.end,
            timezone=stores.timezone,
            region=stores.settings.region,
            reject_occurrences=reject_occurrences,
        )

    return Spool(normalise_batch)


def publish(publication: Publication, spool: Spool, clock: Callable[[], datetime]) -> Published:
    """Publish what the spool holds; the last statement of the one transaction is the window's certificate.

    Cut off at any point, the ledger says ``running``, so the window is read again. The lake is swapped inside the
    transaction, after the database has accepted every row and before it commits: a file may be ahead of the
    warehouse for as long as it takes to commit, never behind. ``clock`` tells when it was completed.
    """
    p, stores, window = publication, publication.stores, publication.window
    with ExitStack() as stack:
        connection = stack.enter_context(stores.warehouse.transaction())
        stores.ledger.check_claim(connection, p.claim)
        changed_at = p.changed_at()
        if p.forgets:
            forget_window(stores.warehouse, connection, window.start, window.end)
        staged = stack.enter_context(StagedWindow(stores.warehouse, connection))
        for table in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS):
            for batch in spool.batches(table):
                staged.add(table, batch)
        p.tell(Step.STAGED)
        changes = staged.replace(window.start, window.end, changed_at)
        Recordings(stores.warehouse).add_pending(connection, window.start, window.end)
        replace_source_fields(
            stores.warehouse, connection, window.start, window.call_date, spool.field_types, changed_at
        )
        stores.ledger.make_due(connection, changes.moved, changed_at)
        _count_late_changes(p, connection, changes, changed_at)
        p.tell(Step.MERGED)
        if not p.is_newest:
            return Published(changes, None, 0)

        files_written = int(_swap_in(p, spool, CALLS, _with_times(p, spool, staged, changes, changed_at)))
        p.tell(Step.LAKE_CALLS_PUBLISHED)
        files_written += int(_swap_in(p, spool, CALL_PARTICIPANTS, spool.batches(CALL_PARTICIPANTS)))
        p.tell(Step.LAKE_PARTICIPANTS_PUBLISHED)

        certificate = _certificate(p, spool, staged)
        next_reread_at, settled = next_reread(window.end, p.read_at, stores.settings.reread)
        if p.certified is not None:
            next_reread_at, settled = p.certified.next_reread_at, p.certified.settled
        stores.ledger.complete(
            connection,
            window.start,
            certificate,
            completed_at=clock(),
            next_reread_at=next_reread_at,
            settled=settled,
            ends_day=window.end == day_bounds(window.call_date, stores.timezone)[1],
            started_at=p.certified.started_at if p.certified else p.started_at,
        )
        if p.releases_claim:
            stores.ledger.release(connection, p.claim)
        p.tell(Step.CERTIFIED)
    p.tell(Step.COMMITTED)
    return Published(changes, certificate, files_written)


def _count_late_changes(p: Publication, connection: sa.Connection, changes: Changes, changed_at: datetime) -> None:
    """Count what a re-read of the closed window found changed: for its age, and in the ledger."""
    if p.previous_read_at is None or p.previous_read_at < p.window.end or not changes.calls_changed:
        return
    p.stores.ledger.add_late_changes(connection, p.window.start, changes.calls_changed)
    add_late_changes(
        p.stores.warehouse,
        connection,
        p.window.start,
        p.window.end,
        p.window.call_date,
        changes,
        found_at=changed_at,
        previous_read_at=p.previous_read_at,
    )


def _with_times(
    p: Publication, spool: Spool, staged: StagedWindow, changes: Changes, changed_at: datetime
) -> Iterable[pa.Table]:
    """Yield the calls as the lake keeps them: with the times that the warehouse has decided."""
    for batch in spool.batches(CALLS):
        if changes.inserted == spool.calls:
            yield all_new(batch, p.window.start, changed_at)
        else:
            first, last = batch["started_at"][0].as_py(), batch["started_at"][-1].as_py()
            yield as_in_warehouse(batch, staged.times(first, last))


def _swap_in(p: Publication, spool: Spool, table: Table, batches: Iterable[pa.Table]) -> bool:
    """Replace the window in the lake's file of its day; return whether the lake has changed."""
    window = p.window
    with LakeWriter(
        p.stores.lake, table, window.call_date, window.start, window.end, whole_day=p.whole_day, folder=spool.folder
    ) as writer:
        for batch in batches:
            writer.write(batch)
        return writer.publish()


def _certificate(p: Publication, spool: Spool, staged: StagedWindow) -> Certificate:
    """Count both copies from what they now hold, not from what was meant to be written."""
    lake_rows, lake_hash = p.stores.lake.window_counts(p.window.call_date, p.window.start, p.window.end)
    warehouse = staged.counts(p.window.start, p.window.end)
    certificate = Certificate(
        api_total=p.api_total,
        raw_rows=spool.calls + spool.rejected,
        rejected=spool.rejected,
        lake_rows=lake_rows,
        warehouse_rows=warehouse.calls,
        content_hash=lake_hash,
        warehouse_content_hash=warehouse.content_hash,
    )
    if certificate.differences:
        raise UnsettledWindowError("; ".join(certificate.differences))
    return certificate
