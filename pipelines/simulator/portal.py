"""The simulated portal: every operation of the API, with faults on the way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from pipelines.settings.endpoints import OPERATIONS
from pipelines.simulator import calls_in_progress, recordings
from pipelines.simulator.access import CREDENTIALS, Credentials
from pipelines.simulator.clock import Clock
from pipelines.simulator.fault import Fault
from pipelines.simulator.generator import GeneratedCalls
from pipelines.simulator.history import HistoryQuery
from pipelines.simulator.limits import Blocks
from pipelines.simulator.oddities import OddRows
from pipelines.simulator.options import PortalOptions
from pipelines.simulator.state import LogEntry, PortalState
from pipelines.simulator.wire import Refusal, Request, Response, envelope

_ALSO_BY_POST = frozenset({"transfer", "stop", "add_participant"})


class Portal(PortalState):
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
        super().__init__(calls, options, odd_rows=odd_rows, clock=clock, credentials=credentials)
        self.faults: list[Fault] = list(faults)
        self._blocks = Blocks(self.options.rate_limits, limits_clock)
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
        asked: PortalState = self
        for fault in faults:
            asked = fault.portal_asked(asked)
        shows = (lambda *call: all(fault.shows(*call) for fault in faults)) if faults else None
        doubles = [fault.double for fault in faults if type(fault).double is not Fault.double]
        page = asked.history.page(query, self.clock.now_ms(), shows, doubles)
        # A page that is repeated later gets what is wrong with its rows only once.
        for fault in (fault for fault in faults if not fault.acts_beside_others):
            page = fault.on_page(page, query, self)
        self.remember_page(query, page)
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
