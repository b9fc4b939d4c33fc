"""What the tasks of a run share in one process: its pipeline, opened for the first, closed after the last."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pipelines.context import open_pipeline, utc_now
from pipelines.export.drift import read_beliefs
from pipelines.export.run import requests_sent
from pipelines.export.window import Run
from pipelines.settings import load_settings
from pipelines.stringeex.request_budget import Priority


@dataclass
class Share:
    """A run as one process knows it; ``opening`` names the pipeline, unlike any other in any process."""

    run: Run
    _resources: ExitStack
    opening: str = field(default_factory=lambda: uuid.uuid4().hex)
    users: int = 0

    @property
    def requests(self) -> int:
        """How many requests of every kind this pipeline has sent so far."""
        return requests_sent(self.run.pipeline)

    def close(self) -> None:
        """Close the pipeline."""
        self._resources.close()


_shares: dict[str, Share] = {}
_lock = threading.Lock()


@contextmanager
def shared_run(run_id: str, priority: Priority, *, accepts_vanished: bool = False) -> Iterator[Share]:
    """Join the run in this process, whose pipeline is opened from this process's own environment.

    ``accepts_vanished`` believes a source that no longer has most of a day's calls.

    Raises as `load_settings` and `open_pipeline`.
    """
    with _lock:
        share = _shares.get(run_id) or _open(run_id, priority, accepts_vanished)
        share.users += 1
        _shares[run_id] = share
    try:
        yield share
    finally:
        with _lock:
            share.users -= 1
            if not share.users:
                del _shares[run_id]
                share.close()


def _open(run_id: str, priority: Priority, accepts_vanished: bool) -> Share:
    with ExitStack() as stack:
        pipeline = stack.enter_context(open_pipeline(load_settings(), priority))
        beliefs = read_beliefs(pipeline.state, accepts_vanished=accepts_vanished)
        return Share(Run(pipeline, run_id, utc_now(), beliefs=beliefs), stack.pop_all())
