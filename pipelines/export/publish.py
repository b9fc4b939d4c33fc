"""The second half of a window's way: from rows that were read, now or once, to lake, warehouse and certificate.

Export and replay differ in where the rows come from, and in nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import pyarrow as pa
import sqlalchemy as sa

from pipelines.context import Stores
from pipelines.export.doubts import DayLosses, Judgement
from pipelines.export.made_by import made_by
from pipelines.export.planner import next_reread
from pipelines.export.progress import Step
from pipelines.windows import Window, day_bounds
from sinks.certificates import Cause
from sinks.late_changes import add_late_changes
from sinks.ledger import Certificate, ClaimedDay, LedgerRow
from sinks.merge import StagedWindow
from sinks.parquet import LakeWriter
from sinks.raw import Verdict, raw_folder
from sinks.recordings import Recordings
from sinks.row_times import all_new, as_in_warehouse
from sinks.source_fields import replace_source_fields
from sinks.spool import Spool
from sinks.window_changes import Changes, Losses
from sinks.window_rows import day_counts, forget_window, live_rows, reject_count, window_counts
from transforms.calls import CallTables, tables_of
from transforms.errors import DataError, UnsettledWindowError
from transforms.json_text import JsonValue
from transforms.rejects import can_be_call
from transforms.schema import CALL_PARTICIPANTS, CALLS, REJECTED_ROWS, Table

_CALL_HAS_LEFT = "a call of this window starts in another one now, or has gone from there: it is read again"
_LAKE_STEPS = (Step.LAKE_CALLS_PUBLISHED, Step.LAKE_PARTICIPANTS_PUBLISHED)


@dataclass(frozen=True)
class Publication:
    """One state of a window, to be published under a claim on its day.

    ``read_at`` is when the rows were read. ``judge`` says how far they are believed, by what the warehouse would lose;
    it may raise. ``keep_raw`` keeps the raw copy under that verdict, and returns the stamp of rows that change. It is
    called when the claim is held to the end and nothing has been published: nobody's late state gets past it.
    ``previous_read_at`` is when the window was read before (null: never). ``whole_day`` says that the window is all of
    its local day, ``releases_claim`` that the claim ends with it.

    A replay sets the rest: ``forgets`` are windows of which the warehouse loses first what it holds. With ``is_newest``
    false, a later state follows: lake and certificate are left to that one. ``started_at`` is when the API was asked;
    ``certified`` is the ledger's row where it has certified this very state: what it says of times stays.
    """

    stores: Stores
    claim: ClaimedDay
    window: Window
    api_total: int | None
    read_at: datetime
    judge: Callable[[Losses, DayLosses], Judgement]
    keep_raw: Callable[[Verdict], datetime]
    previous_read_at: datetime | None
    whole_day: bool
    releases_claim: bool
    tell: Callable[[Step], None]
    run_began_at: datetime | None = None
    forgets: Sequence[Window] = ()
    is_newest: bool = True
    started_at: datetime | None = None
    certified: LedgerRow | None = None


class HeldError(DataError):
    """A read would take most of what is published away, so nothing of it was published; the text says what."""

    def __init__(self, judgement: Judgement, rows_read: int) -> None:
        super().__init__(judgement.reason or "held")
        self.missing_fields = judgement.missing_fields
        self.rows_read = rows_read


@dataclass(frozen=True)
class Published:
    """What publishing a window did, and the proof of what there is now (null for a state that another one follows).

    ``dispute`` is why it is no proof of the whole window; null when it is. ``missing_fields`` is that of the judgement.
    """

    changes: Changes
    certificate: Certificate | None
    files_written: int
    dispute: str | None = None
    missing_fields: tuple[str, ...] = ()


def window_spool(stores: Stores, window: Window, *, waits: bool = False) -> Spool:
    """Return an empty spool for rows that ``window`` served; with ``waits``, they become tables on demand only.

    Nothing of a person who is erased by now gets into it. Raises as `Stores.erased`.
    """

    def normalise_batch(
        rows: list[JsonValue], reject_occurrences: Counter[str], superseded: Collection[int]
    ) -> CallTables:
        return tables_of(
            rows,
            window_start=window.start,
            window_end=window.end,
            timezone=stores.timezone,
            region=stores.settings.region,
            reject_occurrences=reject_occurrences,
            superseded=superseded,
        )

    erased = stores.erased()
    return Spool(
        normalise_batch,
        lambda row: can_be_call(row, window.start, window.end),
        redact=None if erased is None else erased.redacted,
        waits=waits,
    )


def publish(publication: Publication, spool: Spool, clock: Callable[[], datetime]) -> Published:
    """Publish what the spool holds; the last statement of the one transaction is the window's certificate.

    Cut off at any point, the ledger says ``running``, so the window is read again. The lake is swapped inside the
    transaction, after the database has accepted every row and before it commits: a file may be ahead of the
    warehouse for as long as it takes to commit, never behind. ``clock`` tells when it was completed.

    Raises ``HeldError``, and what ``judge`` raises; nothing is published then.
    """
    p, stores, window = publication, publication.stores, publication.window
    with ExitStack() as stack:
        connection = stack.enter_context(stores.warehouse.transaction())
        stores.ledger.check_claim(connection, p.claim)
        for forgotten in p.forgets:
            forget_window(stores.warehouse, connection, forgotten.start, forgotten.end)
        staged = stack.enter_context(StagedWindow(stores.warehouse, connection))
        _stage(staged, spool)
        if later := staged.ids_that_start_later(window.end):
            spool.set_aside(later)
            staged.clear()
            _stage(staged, spool)
        p.tell(Step.STAGED)
        judgement = p.judge(staged.compare(window.start, window.end, p.previous_read_at), _day_losses(p, connection))
        with _proven_claim(p, connection):
            changed_at = p.keep_raw(judgement.verdict)
        if judgement.verdict is Verdict.HELD:
            raise HeldError(judgement, spool.rows)
        changes = staged.replace(changed_at, believes_gone=judgement.verdict is Verdict.PROVEN)
        Recordings(stores.warehouse).add_pending(connection, window.start, window.end)
        replace_source_fields(
            stores.warehouse, connection, window.start, window.call_date, spool.field_types, changed_at
        )
        stores.ledger.doubt(connection, changes.left, _CALL_HAS_LEFT, changed_at)
        stores.ledger.make_due(connection, changes.to_confirm, changed_at, p.run_began_at or changed_at)
        _count_late_changes(p, connection, changes, changed_at)
        staged.check_written()
        p.tell(Step.MERGED)
        if not p.is_newest:
            return Published(changes, None, 0)

        if judgement.verdict is Verdict.PROVEN:
            batches = {CALLS: _with_times(p, spool, staged, changes, changed_at)}
            batches[CALL_PARTICIPANTS] = spool.batches(CALL_PARTICIPANTS)
        else:
            # Calls that stay although they were not served are in the warehouse only.
            live = partial(live_rows, stores.warehouse, connection, window_start=window.start, window_end=window.end)
            batches = {table: live(table) for table in (CALLS, CALL_PARTICIPANTS)}
        files_written = _swap_lake(p, connection, spool, batches)
        certificate = _certificate(p, spool, staged, judgement.verdict)
        _certify(p, connection, certificate, judgement, clock())
        if p.releases_claim:
            stores.ledger.release(connection, p.claim)
        p.tell(Step.CERTIFIED)
    p.tell(Step.COMMITTED)
    return Published(changes, certificate, files_written, judgement.reason, judgement.missing_fields)


def confirm(
    publication: Publication, certified: LedgerRow, spool: Spool, clock: Callable[[], datetime]
) -> Published | None:
    """Certify a window anew of which the rows were served that ``certified`` was made of, as that row says it all.

    Lake and warehouse are counted and hashed, and not written: only the certificate is. Null where they do not hold
    what was certified; then nothing is done, and the window is to be published.
    """
    p, stores, window = publication, publication.stores, publication.window
    with stores.warehouse.transaction() as connection:
        stores.ledger.check_claim(connection, p.claim)
        lake_rows, lake_hash = stores.lake.window_counts(window.call_date, window.start, window.end)
        held = window_counts(connection, stores.warehouse.tables[CALLS.name], window.start, window.end)
        rejected = reject_count(stores.warehouse, connection, window.start, window.end)
        certificate = Certificate(
            p.api_total, spool.rows, rejected, lake_rows, held.calls, lake_hash, held.content_hash
        )
        if certificate.differences or (rejected, lake_hash) != (certified.rejected, certified.content_hash):
            return None
        with _proven_claim(p, connection):
            p.keep_raw(Verdict.PROVEN)
        _certify(p, connection, certificate, Judgement(Verdict.PROVEN), clock())
        if p.releases_claim:
            stores.ledger.release(connection, p.claim)
        p.tell(Step.CERTIFIED)
    p.tell(Step.COMMITTED)
    unchanged = Changes(
        inserted=0, updated=0, restored=0, vanished=0, unchanged=held.calls, rejects_added=0, rejects_removed=0
    )
    return Published(unchanged, certificate, 0)


def _stage(staged: StagedWindow, spool: Spool) -> None:
    for table in (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS):
        for batch in spool.batches(table):
            staged.add(table, batch)


def _day_losses(p: Publication, connection: sa.Connection) -> DayLosses:
    """Return how the day stands, where it has more windows than this one."""
    if p.whole_day or p.run_began_at is None:
        return DayLosses()
    return DayLosses(*day_counts(p.stores.warehouse, connection, p.window.call_date, gone_since=p.run_began_at))


@contextmanager
def _proven_claim(p: Publication, connection: sa.Connection) -> Iterator[None]:
    """Write to the lake: nobody else does at this moment, and the day is ours at this moment.

    A process that stood still may have lost its connection, and with it the day. It asks inside of the lock, so that
    whoever has the day by now has published before, or waits for the lock.
    """
    with p.stores.lake.storage.locked(raw_folder(p.window.call_date)):
        p.stores.ledger.check_claim(connection, p.claim)
        yield


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


def _swap_lake(
    p: Publication, connection: sa.Connection, spool: Spool, batches: Mapping[Table, Iterable[pa.Table]]
) -> int:
    """Replace the window in the lake's files of its day; return how many files have changed."""
    window, files_written = p.window, 0
    with ExitStack() as stack:
        writers: list[LakeWriter] = []
        for table, rows in batches.items():
            writer = LakeWriter(
                p.stores.lake, table, window.call_date, window.start, window.end,
                whole_day=p.whole_day, folder=spool.folder,
            )  # fmt: skip
            stack.enter_context(writer)
            for batch in rows:
                writer.write(batch)
            writer.finish(writers[0].content_hash if writers else None)
            writers.append(writer)
        stack.enter_context(_proven_claim(p, connection))
        for writer, step in zip(writers, _LAKE_STEPS, strict=True):
            files_written += int(writer.publish())
            p.tell(step)
    return files_written


def _certificate(p: Publication, spool: Spool, staged: StagedWindow, verdict: Verdict) -> Certificate:
    """Count both copies from what they now hold, not from what was meant to be written."""
    lake_rows, lake_hash = p.stores.lake.window_counts(p.window.call_date, p.window.start, p.window.end)
    warehouse = staged.counts(p.window.start, p.window.end)
    certificate = Certificate(
        api_total=p.api_total,
        raw_rows=spool.rows,
        rejected=spool.rejected,
        lake_rows=lake_rows,
        warehouse_rows=warehouse.calls,
        content_hash=lake_hash,
        warehouse_content_hash=warehouse.content_hash,
    )
    differences = certificate.differences if verdict is Verdict.PROVEN else certificate.copy_differences
    if differences:
        raise UnsettledWindowError("; ".join(differences))
    return certificate


def _certify(
    p: Publication, connection: sa.Connection, certificate: Certificate, judgement: Judgement, now: datetime
) -> None:
    ledger, window, certified = p.stores.ledger, p.window, p.certified
    started_at = certified.started_at if certified else p.started_at
    if judgement.verdict is Verdict.DISPUTED:
        reason = f"window {window.label}: {judgement.reason}"
        ledger.dispute(connection, window.start, certificate, reason=reason, disputed_at=now, started_at=started_at)
        return
    next_reread_at, settled = next_reread(window.end, p.read_at, p.stores.settings.reread)
    if certified is not None:
        next_reread_at, settled = certified.next_reread_at, certified.settled
    ledger.complete(
        connection,
        window.start,
        certificate,
        completed_at=now,
        next_reread_at=next_reread_at,
        settled=settled,
        ends_day=window.end == day_bounds(window.call_date, p.stores.timezone)[1],
        started_at=started_at,
        made_by=made_by(p.stores),
    )
    # A read is published when it is made, a replay says when it was.
    cause = Cause.READ if p.started_at is None else Cause.REPLAYED
    p.stores.certificates.append(connection, window.start, cause)
