"""A claim on a local day, kept alive for as long as the work on it takes."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from pipelines.logs import logger
from sinks.ledger import ClaimedDay, Ledger
from transforms.errors import CallHistoryError

LEASE = timedelta(minutes=2)
"""How long a claim lasts when it is not renewed. Nobody publishes without it: one that lapses too early costs work, and
nothing else."""

PATIENCE = 1.25 * LEASE
"""How long a run waits at its end for days that others have claimed: a dead one's lease has lapsed by then."""

_RENEWALS_PER_LEASE = 4
_TRIES_PER_RENEWAL = 4


@contextmanager
def keep_claim(ledger: Ledger, claim: ClaimedDay, lease: timedelta) -> Iterator[threading.Event]:
    """Renew the lease as long as the block lasts, however long it waits for the request budget.

    The event is set when the day is not ours any more. A renewal that fails, whatever the ledger's error is, is logged
    (once for each kind of error) and tried again, sooner than the next one would be due; the last word has
    `Ledger.check_claim`, in the transaction that publishes.
    """
    done, lost = threading.Event(), threading.Event()
    between_seconds = (lease / _RENEWALS_PER_LEASE).total_seconds()

    def renew() -> None:
        told: set[str] = set()
        wait_seconds = between_seconds
        while not done.wait(wait_seconds) and not lost.is_set():
            try:
                if not ledger.renew_claim(claim, lease):
                    lost.set()
                wait_seconds = between_seconds
            except Exception as error:  # noqa: BLE001 - a heartbeat that ends at an error loses the day for good
                wait_seconds = between_seconds / _TRIES_PER_RENEWAL
                kind = type(error).__name__
                if kind not in told:
                    # The text of a foreign error may quote a row.
                    reason = str(error) if isinstance(error, CallHistoryError) else kind
                    logger.warning("the claim on %s was not renewed, trying again: %s", claim.call_date, reason)
                told.add(kind)

    # In the caller's context, so that its lines in the log carry the ids of the run and the day.
    heartbeat = threading.Thread(
        target=contextvars.copy_context().run, args=(renew,), name=f"claim-{claim.call_date}", daemon=True
    )
    heartbeat.start()
    try:
        yield lost
    finally:
        done.set()
        # A ledger that does not answer must not keep the work from its end: what is renewed later is nobody's claim.
        heartbeat.join(lease.total_seconds())
