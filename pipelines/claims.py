"""A claim on a local day, kept alive for as long as the work on it takes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from sinks.ledger import ClaimedDay, Ledger
from transforms.errors import RetryableError

LEASE = timedelta(minutes=2)
"""How long a claim lasts when it is not renewed. Nobody publishes without it: one that lapses too early costs work, and
nothing else."""

PATIENCE = 1.25 * LEASE
"""How long a run waits at its end for days that others have claimed: a dead one's lease has lapsed by then."""

_RENEWALS_PER_LEASE = 4


@contextmanager
def keep_claim(ledger: Ledger, claim: ClaimedDay, lease: timedelta) -> Iterator[threading.Event]:
    """Renew the lease as long as the block lasts, however long it waits for the request budget.

    The event is set when the day is not ours any more. A renewal that fails for another reason is tried again;
    the last word has `Ledger.check_claim`, in the transaction that publishes.
    """
    done, lost = threading.Event(), threading.Event()

    def renew() -> None:
        while not done.wait((lease / _RENEWALS_PER_LEASE).total_seconds()) and not lost.is_set():
            with suppress(RetryableError):
                if not ledger.renew_claim(claim, lease):
                    lost.set()

    heartbeat = threading.Thread(target=renew, name=f"claim-{claim.call_date}", daemon=True)
    heartbeat.start()
    try:
        yield lost
    finally:
        done.set()
        heartbeat.join()
