"""The simulated portal: its state, its options, and every operation of the API."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

from pipelines.settings.endpoints import OPERATIONS
from pipelines.simulator import calls_in_progress, recordings
from pipelines.simulator.access import CREDENTIALS, Access, Credentials
from pipelines.simulator.audio import RecordingFormat
from pipelines.simulator.clock import Clock
from pipelines.simulator.fault import Fault
from pipelines.simulator.generator import GeneratedCalls
from pipelines.simulator.history import History, HistoryPage, HistoryQuery
from pipelines.simulator.limits import Blocks, RateLimits
from pipelines.simulator.oddities import OddRows
from pipelines.simulator.rows import Row
from pipelines.simulator.store import CallStore
from pipelines.simulator.wire import Refusal, Request, Response, envelope

_READINGS_REMEMBERED = 64
_ALSO_BY_POST = frozenset({"transfer", "stop", "add_participant"})


@dataclass(slots=True)
class PortalOptions:
    """How this portal behaves where portals differ or nothing is published; may be changed while it runs.

    Recordings play as long as the talk was, or ``recording_seconds``; only the first ``recording_share`` of the bytes
    is served, as if that were all.
    """

    max_limit: int = 100
    default_limit: int = 10
    large_limit: Literal["truncate", "refuse", "bad_request"] = "truncate"
    supports_version_2: bool = True
    version_2_honours_limit: bool = True
    search_after_at_end: list[Any] | Literal["missing"] | None = field(default_factory=list)
    result_cap: int | None = None
    past_result_cap: Literal["empty", "error", "refused"] = "empty"
    refuses_ascending: bool = False
    message_key: Literal["msg", "message"] = "msg"
    auth_failure: Literal["401", "403", "envelope"] = "401"
    portal_count: int = 1
    retry_after: bool = False
    operation_methods: tuple[str, ...] = ("GET", "POST")
    latency_seconds: float = 0.0
    recording_ready_seconds: float = 60.0
    recording_kept_days: float = 36_500.0
    missing_recording: Literal["404", "envelope"] = "404"
    recording_format: RecordingFormat = "wav"
    recording_seconds: int | None = None
    recording_share: float = 1.0
    honours_if_range: bool = True
    range_says_total: bool = True
    most_bytes_per_range: int | None = None
    rate_limits: RateLimits = field(default_factory=RateLimits)


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


class Portal:
    """Everything behind the HTTP server. All public methods may be called from any thread."""

    def __init__(
        self,
        calls: GeneratedCalls | None = None,
        options: PortalOptions | None = None,
        *,
        faults: Iterable[Fault] = (),
        odd_rows: OddRows | None = None,
        clock: Clock | None = None,
        limits_clock: Callable[[], float] = time.time,
        credentials: Credentials = CREDENTIALS,
    ) -> None:
        self.options = options or PortalOptions()
        self.clock = clock or Clock()
        self.faults: list[Fault] = list(faults)
        self.access = Access(credentials, self.options.portal_count)
        self.store = CallStore(calls, odd_rows)
        self.log: list[LogEntry] = []
        self.counts: Counter[str] = Counter()
        self.realtime_calls: list[Row] = []
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.greetings: dict[str, tuple[str, bytes]] = {}
        self.deleted_recordings: set[str] = set()
        self.lock = threading.RLock()
        self._history = History(self.store, self.options)
        self._blocks = Blocks(self.options.rate_limits, limits_clock)
        self._last_pages: dict[tuple[Any, ...], HistoryPage] = {}
        self._routes = [
            (name, operation.method, re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(operation.path))))
            for name, operation in OPERATIONS.items()
        ]
        self._actions: dict[str, Callable[[Request, dict[str, str]], Response]] = {
            "account": self._account,
            "realtime": lambda request, _: calls_in_progress.realtime(self, request),
            "transfer": lambda request, _: calls_in_progress.transfer(self, request),
            "stop": lambda request, _: calls_in_progress.stop(self, request),
            "add_participant": lambda request, _: calls_in_progress.add_participant(self, request),
            "download_recording": lambda request, path: recordings.download(self, request, path["call_id"]),
            "delete_recording": lambda request, path: recordings.delete(self, path["call_id"]),
            "upload_greeting": lambda request, _: recordings.upload_greeting(self, request),
        }

    # ---- what tests do and look at -------------------------------------------------------------------------------

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

    # ---- requests ------------------------------------------------------------------------------------------------

    def handle(self, request: Request) -> Response:
        """Answer one request: count it, let faults strike, check the token, do the operation, log it."""
        if self.options.latency_seconds:
            time.sleep(self.options.latency_seconds)
        token = request.headers.get("x-stringee-auth") or request.parameter("access_token")
        with self.lock:
            operation, path = self._route(request)
            faults: list[Fault] = []
            self._blocks.limits = self.options.rate_limits
            usage = self._blocks.count(operation)
            if usage is not None and usage.exceeded:
                response = envelope(-429, "Too many requests", self.options.message_key, 429)
                if self.options.retry_after:
                    response.headers["Retry-After"] = str(int(usage.seconds_left) + 1)
            else:
                faults = self._faults_of(operation, request)
                response = self._answer(operation, path, request, token, faults)
            if usage is not None:
                response.headers = usage.headers() | response.headers
            self.counts[operation] += 1
            struck = "+".join(type(fault).__name__ for fault in faults)
            self.log.append(
                LogEntry(
                    time.time(), request.method, request.path, request.query_string, response.status,
                    request.headers.get("host", ""), bool(token), operation, struck,
                )
            )  # fmt: skip
        return response

    def unauthorised(self, reason: str, mode: Literal["401", "403", "envelope"] | None = None) -> Response:
        """Return the answer to a bad token."""
        mode = mode or self.options.auth_failure
        return envelope(6, reason, self.options.message_key, 200 if mode == "envelope" else int(mode))

    def history_page(self, query: HistoryQuery) -> HistoryPage:
        """Return the page that a query would get if no fault struck."""
        with self.lock:
            return self._history.page(query, self.clock.now_ms())

    def page_before(self, query: HistoryQuery) -> HistoryPage | None:
        """Return the page last served of the same reading."""
        return self._last_pages.get(query.reading)

    def _route(self, request: Request) -> tuple[str, dict[str, str]]:
        """Return the operation's name and the names in its path; "not_allowed" or "" where nothing matches."""
        found = ""
        for name, method, pattern in self._routes:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            methods = self.options.operation_methods if name in _ALSO_BY_POST else (method,)
            if request.method in methods:
                return name, {key: unquote(value) for key, value in match.groupdict().items()}
            found = "not_allowed"
        return found, {}

    def _answer(
        self, operation: str, path: dict[str, str], request: Request, token: str | None, faults: list[Fault]
    ) -> Response:
        for fault in faults:
            instead = fault.instead(self, request)
            if instead is not None:
                return instead
        key = self.options.message_key
        if operation in ("", "not_allowed"):
            status = 404 if not operation else 405
            return envelope(status, "Not found" if status == 404 else "Method not allowed", key, status)
        problem = None if operation == "account" else self.access.problem(token)
        if problem is not None:
            return self.unauthorised(problem)
        try:
            response = (
                self._serve_history(request, faults)
                if operation == "history"
                else self._actions[operation](request, path)
            )
        except Refusal as refusal:
            response = envelope(refusal.r, refusal.message, key, refusal.status)
        for fault in faults:
            response = fault.on_answer(response)
        return response

    def _faults_of(self, operation: str, request: Request) -> list[Fault]:
        """Return what acts on a request: at most one fault, and behind it those that act beside others."""
        first: list[Fault] = []
        beside: list[Fault] = []
        for candidate in self.faults:
            if first and not candidate.acts_beside_others:
                continue
            chosen = candidate.chosen_for(operation, request)
            if chosen is not None:
                (beside if chosen.acts_beside_others else first).append(chosen)
        return first + beside

    def _serve_history(self, request: Request, faults: list[Fault]) -> Response:
        query = HistoryQuery.parse(request, self.options)
        asked = self
        for fault in faults:
            asked = fault.portal_asked(asked)
        shows = (lambda *call: all(fault.shows(*call) for fault in faults)) if faults else None
        doubles = [fault.double for fault in faults if type(fault).double is not Fault.double]
        page = asked._history.page(query, self.clock.now_ms(), shows, doubles)
        # A page that is repeated later gets what is wrong with its rows only once.
        for fault in (fault for fault in faults if not fault.acts_beside_others):
            page = fault.on_page(page, query, self)
        self._last_pages[query.reading] = page
        if len(self._last_pages) > _READINGS_REMEMBERED:
            del self._last_pages[next(iter(self._last_pages))]
        for fault in (fault for fault in faults if fault.acts_beside_others):
            page = fault.on_page(page, query, self)
        return page.response(self.options.message_key)

    def _account(self, request: Request, _: dict[str, str]) -> Response:
        body = calls_in_progress.json_body(request)
        self.access.portal_count = self.options.portal_count
        portals = self.access.login(body.get("email"), body.get("password"))
        if portals is None:
            raise Refusal(1, "Email or password is incorrect")
        return envelope(0, "Success", self.options.message_key, portals=portals)
