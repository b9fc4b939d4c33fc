"""A claim on a local day, kept alive for as long as the work on it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from sinks.ledger import ClaimedDay, Ledger
from transforms.errors import RetryableError

LEASE = timedelta(minutes=10)
"""How long a claim lasts when it is not renewed."""


@contextmanager
def keep_claim(ledger: Ledger, claim: ClaimedDay) -> Iterator[threading.Event]:
    """Renew the lease as long as the block lasts, however long it waits for the request budget.

    The event is set when another run has taken the day over. A renewal that fails for another reason is tried again;
    the last word has `Ledger.check_claim`, in the transaction that publishes.
    """
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait(LEASE.total_seconds() / 4) and not lost.is_set():
            with suppress(RetryableError):
                if not ledger.renew_claim(claim, LEASE):
                    lost.set()

    heartbeat = threading.Thread(target=renew, name=f"claim-{claim.call_date}", daemon=True)
    heartbeat.start()
    try:
        yield lost
    finally:
        done.set()
        heartbeat.join()
