"""The base of all faults: which requests one hits, and where it acts on them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from pipelines.simulator.history import HistoryPage, HistoryQuery
from pipelines.simulator.state import PortalState
from pipelines.simulator.wire import Request, Response


@dataclass(kw_only=True)
class Fault:
    """Base of all faults: which requests are hit.

    ``operation`` is a name from ``pipelines.settings.endpoints`` or ``"*"``; of the requests that also satisfy
    ``when``, the first ``after`` pass, then each is hit with ``probability``, at most ``count`` times.

    It acts instead of the answer, on which calls there are, on the page of history, or on the finished answer. Of the
    faults that hit one request the first acts, and beside it all those with ``acts_beside_others``.
    """

    acts_beside_others: ClassVar[bool] = False

    operation: str = "history"
    probability: float = 1.0
    seed: int = 0
    after: int = 0
    count: int | None = None
    when: Callable[[Request], bool] | None = None
    fired: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - reproducible test data
        self._seen = 0

    def chosen_for(self, operation: str, request: Request) -> Fault | None:
        """Return the fault that acts on this request, or None. The caller serialises access."""
        if self.operation not in ("*", operation) or (self.when is not None and not self.when(request)):
            return None
        self._seen += 1
        exhausted = self.count is not None and self.fired >= self.count
        if self._seen <= self.after or exhausted or self._random.random() >= self.probability:
            return None
        self.fired += 1
        return self

    def instead(self, portal: PortalState, request: Request) -> Response | None:
        """Return what is answered without doing anything, or None to go on."""
        return None

    def portal_asked(self, portal: PortalState) -> PortalState:
        """Return the portal whose calls the history shows."""
        return portal

    def shows(self, place: int, call_id: str) -> bool:
        """Return whether a call is there; ``place`` counts from 0 in its window. Count and pages agree with this."""
        return True

    def double(self, call_id: str, row: bytes) -> bytes | None:
        """Return the second row of a call, which is served beside ``row`` and counted; null where it has none."""
        return None

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:
        """Return the page of history to serve."""
        return page

    def on_answer(self, response: Response) -> Response:
        """Return the answer to send."""
        return response
