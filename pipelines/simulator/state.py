"""What a simulated portal holds: its calls, its clock, what was asked of it, and what was done to it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.simulator.access import CREDENTIALS, Access, Credentials
from pipelines.simulator.clock import Clock
from pipelines.simulator.generator import GeneratedCalls
from pipelines.simulator.history import History, HistoryPage, HistoryQuery
from pipelines.simulator.oddities import OddRows
from pipelines.simulator.options import PortalOptions
from pipelines.simulator.rows import Row
from pipelines.simulator.store import CallStore
from pipelines.simulator.wire import Response, envelope

_READINGS_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request as the portal saw it; ``operation`` is "" where no endpoint matched, ``fault`` may be ``A+B``."""

    at: float
    method: str
    path: str
    query: str
    status: int
    host: str
    had_token: bool
    operation: str
    fault: str


class PortalState:
    """What operations and faults look at and change. All public methods may be called from any thread."""

    def __init__(
        self,
        calls: GeneratedCalls | None = None,
        options: PortalOptions | None = None,
        *,
        odd_rows: OddRows | None = None,
        clock: Clock | None = None,
        credentials: Credentials = CREDENTIALS,
    ) -> None:
        self.options = options or PortalOptions()
        self.clock = clock or Clock()
        self.access = Access(credentials, self.options.portal_count)
        self.store = CallStore(calls, odd_rows)
        self.history = History(self.store, self.options)
        self.log: list[LogEntry] = []
        self.counts: Counter[str] = Counter()
        self.realtime_calls: list[Row] = []
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.greetings: dict[str, tuple[str, bytes]] = {}
        self.deleted_recordings: set[str] = set()
        self.lock = threading.RLock()
        self._last_pages: dict[tuple[Any, ...], HistoryPage] = {}

    def rows(self, start_ms: int, end_ms: int, version: int = 2) -> list[Row]:
        """Return the truth: the rows now visible from ``start_ms`` to ``end_ms`` (inclusive), as served, ascending."""
        with self.lock:
            return [json.loads(row) for row in self.rows_json(start_ms, end_ms, version)]

    def rows_json(self, start_ms: int, end_ms: int, version: int = 2) -> list[bytes]:
        """Return the same rows as the exact JSON that is served."""
        with self.lock:
            now_ms = self.clock.now_ms()
            positions, _ = self.store.select(start_ms, end_ms, now_ms)
            return [self.store.row_json(position, version, now_ms) for position in positions]

    def keys(self, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        """Return (start in ms, call id) of the calls now visible, from the index: right even for odd rows."""
        with self.lock:
            return [
                self.store.key(position) for position in self.store.select(start_ms, end_ms, self.clock.now_ms())[0]
            ]

    def add_call(
        self, row: Row, *, start_ms: int | None = None, call_id: str | None = None, visible_from_ms: int = 0
    ) -> None:
        """Add a call, served as given. Its place in the index comes from the row unless it is named.

        Raises ValueError when the id is taken, or the row has no integer ``start_time`` and no ``start_ms`` is given.
        """
        start_ms = row.get("start_time") if start_ms is None else start_ms
        call_id = row.get("id") if call_id is None else call_id
        if not isinstance(start_ms, int) or not isinstance(call_id, str):
            raise ValueError("name start_ms and call_id for a row without a usable start_time or id")
        with self.lock:
            self.store.add(dict(row), start_ms, call_id, visible_from_ms)

    def update_call(self, call_id: str, **fields: Any) -> None:
        """Change fields of a call; a new integer ``start_time`` moves it. Raises KeyError for an unknown id."""
        with self.lock:
            self.store.update(call_id, fields, self.clock.now_ms())

    def remove_call(self, call_id: str) -> None:
        """Take a call out of the history. Raises KeyError for an unknown id."""
        with self.lock:
            self.store.remove(call_id)

    def warm(self, version: int = 2) -> None:
        """Serialise rows ahead of the first request, so that no client pays for it."""
        with self.lock:
            self.store.warm(version, self.clock.now_ms())

    def unauthorised(self, reason: str, mode: Literal["401", "403", "envelope"] | None = None) -> Response:
        """Return the answer to a bad token."""
        mode = mode or self.options.auth_failure
        return envelope(6, reason, self.options.message_key, 200 if mode == "envelope" else int(mode))

    def history_page(self, query: HistoryQuery) -> HistoryPage:
        """Return the page that a query would get if no fault struck."""
        with self.lock:
            return self.history.page(query, self.clock.now_ms())

    def page_before(self, query: HistoryQuery) -> HistoryPage | None:
        """Return the page last served of the same reading."""
        return self._last_pages.get(query.reading)

    def remember_page(self, query: HistoryQuery, page: HistoryPage) -> None:
        """Keep the page as the one last served of its reading."""
        self._last_pages[query.reading] = page
        if len(self._last_pages) > _READINGS_REMEMBERED:
            del self._last_pages[next(iter(self._last_pages))]
