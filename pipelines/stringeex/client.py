"""The client: every request through the budget, with retries where a retry can help and harm nothing."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import stamina

from pipelines.settings import Settings
from pipelines.settings.endpoints import Operation
from pipelines.settings.values import is_loopback
from pipelines.stringeex.auth import TOKEN_HEADER, KeyPairAuth, PortalLoginAuth, TokenAuth
from pipelines.stringeex.deadline import AnswerTimeout, keep_deadlines
from pipelines.stringeex.envelope import RejectedError, parse, read_body, retry_after_seconds
from pipelines.stringeex.request_budget import Priority, RequestBudget, open_budget
from transforms.errors import (
    AccountBlockedError,
    ApiError,
    AuthenticationError,
    NoAddressError,
    RateLimitedError,
    RetryableError,
    SettingsError,
    TransportError,
)

_LONGEST_CONNECT_SECONDS = 5.0
_TIMEOUTS_PER_ANSWER = 3

T = TypeVar("T")
Params = Sequence[tuple[str, str]] | Mapping[str, str]


class _WithoutQuery(logging.Filter):
    """Cuts the query off the addresses that httpx logs: it holds call ids, and numbers to filter by."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(arg.copy_with(query=None) if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


logging.getLogger("httpx").addFilter(_WithoutQuery())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a request is. Time spent waiting for the budget does not count.

    ``attempts_unreached`` is for a server that has not given one answer yet: a wrong address or no network at all
    is better told at once.
    """

    attempts: int = 8
    attempts_unreached: int = 3
    total_seconds: float = 300.0
    wait_initial_seconds: float = 0.5
    wait_max_seconds: float = 20.0
    wait_jitter_seconds: float = 1.0

    def patiently(self, attempt: Callable[[], T], worth_another: Callable[[RetryableError], bool]) -> T:
        """Return what ``attempt`` does, made again while it raises a RetryableError that is ``worth_another``.

        Only the waits between are this policy's; how often is for ``worth_another`` to say.
        """

        def waits(error: Exception) -> bool | float:
            if not isinstance(error, RetryableError) or not worth_another(error):
                return False
            # The budget keeps everybody waiting after a 429, so a wait here would come on top.
            return 0.0 if isinstance(error, RateLimitedError) else True

        for another in stamina.retry_context(
            on=waits,
            attempts=None,
            timeout=None,
            wait_initial=self.wait_initial_seconds,
            wait_max=self.wait_max_seconds,
            wait_jitter=self.wait_jitter_seconds,
        ):
            with another:
                return attempt()
        raise AssertionError("retry_context ends with a result or an error")


@dataclass(slots=True)
class _Request:
    """One logical request, over all of its attempts."""

    operation: Operation
    path_values: Mapping[str, str]
    send: dict[str, Any]
    attempts: int = 0
    budget_seconds: float = 0.0


@cache
def _certificates() -> ssl.SSLContext:
    """Return whom to trust, as httpx does by default; reading the certificates takes it 20 ms for each client."""
    return httpx.create_ssl_context()


class StringeeXClient:
    """One account's API, for all threads: pooled connections, one token, one budget. A context manager.

    ``priority`` says who goes first when all processes of the account together run short of requests; ``budget``,
    ``transport`` and ``retry`` are for tests.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        priority: Priority = Priority.EXPORT,
        budget: RequestBudget | None = None,
        transport: httpx.BaseTransport | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.settings = settings
        self.budget = budget or open_budget(settings, priority)
        self._retry = retry or RetryPolicy()
        self._reached = False
        self._closed = threading.Event()
        self._auth = self._choose_auth()
        self._http = httpx.Client(
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=100, keepalive_expiry=5.0),
            headers={"User-Agent": f"callhistory/{version('callhistory')}", "Accept-Encoding": "gzip"},
            # A session cookie would be a second way to authenticate, which nobody renews or checks.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            # Proxies of the environment are for the world outside, never for this machine.
            trust_env=not is_loopback(httpx.URL(settings.base_url).host),
            follow_redirects=False,
            verify=_certificates(),
            transport=transport,
        )
        keep_deadlines(self._http)

    def __enter__(self) -> StringeeXClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.budget.close()

    @property
    def has_answered(self) -> bool:
        """Whether the server has given any answer so far; if not, its address or the network may be wrong."""
        return self._reached

    def close(self) -> None:
        """Close the connections; a thread that waits for the budget or an answer is let go with a RetryableError."""
        self._closed.set()
        self._http.close()

    def request(
        self,
        operation: str,
        *,
        params: Params | None = None,
        json: object = None,
        files: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        path_values: Mapping[str, str] | None = None,
    ) -> Any:
        """Carry out ``operation`` and return what the envelope carries: ``data``, or all but code and message.

        Operations that only read are tried again, as `RetryPolicy` says, on errors that may pass. Those that change
        the world are sent once, or once more with the fallback method when the first answer was 404 or 405.

        Raises AuthenticationError, ApiError, or a RetryableError once patience is at its end.
        """
        content = {"params": params, "json": json, "files": files, "data": form}
        request = _Request(
            self.settings.operation(operation),
            path_values or {},
            {name: value for name, value in content.items() if value is not None},
        )
        if request.operation.changes_world:
            return self._send_once(request)
        return self._send_patiently(request)

    @contextlib.contextmanager
    def stream(
        self,
        operation: str,
        *,
        url: str | None = None,
        path_values: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx.Response]:
        """Open the answer to a reading ``operation``, unread, whatever its status: for bodies that are no envelope.

        ``url`` is an absolute link to use instead of the operation's own path; the token goes along only where it may.
        One attempt, through the budget; HTTP 429 is noted there. Status and headers have to arrive in time as a whole;
        how long the body may take is for the caller to say. Raises TransportError; NoAddressError, before any request,
        for a value that would lead to another address than the operation's own.
        """
        declared = self.settings.operation(operation)
        address = url or self._url(declared, path_values or {})
        self.budget.acquire(operation, self._closed)
        with self._answer(declared.endpoint, declared.method, address, headers=headers, auth=self._auth) as answer:
            response, timeout = answer
            timeout.lift()
            if response.status_code == 429:
                self.budget.blocked(operation, retry_after_seconds(response))
            yield response

    def renew_token(self, response: httpx.Response) -> None:
        """Drop the token that an answer of `stream` rejected; the next request gets a new one."""
        self._auth.renew(response.request.headers.get(TOKEN_HEADER))

    def _send_patiently(self, request: _Request) -> Any:
        began = time.monotonic()
        patience = self._retry

        def worth_another(error: RetryableError) -> bool:
            limit = patience.attempts if self._reached else patience.attempts_unreached
            spent = time.monotonic() - began - request.budget_seconds
            if self._closed.is_set() or isinstance(error, AccountBlockedError):
                return False
            if request.attempts >= limit or spent > patience.total_seconds:
                hint = "" if self._reached else "; look at STRINGEEX_BASE_URL and the network"
                error.args = (f"{error} (gave up after {request.attempts} attempts{hint})",)
                return False
            return True

        return patience.patiently(lambda: self._send_authenticated(request, request.operation.method), worth_another)

    def _send_once(self, request: _Request) -> Any:
        operation = request.operation
        try:
            return self._send_authenticated(request, operation.method)
        except ApiError as error:
            if operation.fallback_method is None or error.status not in (404, 405):
                raise
        return self._send_authenticated(request, operation.fallback_method)

    def _send_authenticated(self, request: _Request, method: str) -> Any:
        """Send, and once more with a new token when the token was rejected: a rejected request has done nothing."""
        try:
            answer = self._send(request, method, self._auth)
        except RejectedError:
            try:
                answer = self._send(request, method, self._auth)
            except RejectedError as error:
                raise self._auth.refused(str(error)) from error
        self._auth.accepted()
        return answer

    def _send(self, request: _Request, method: str, auth: TokenAuth | None) -> Any:
        operation = request.operation
        endpoint = f"{method} {operation.path}"
        url = self._url(operation, request.path_values)
        request.attempts += 1
        if auth:
            auth.token()  # before the budget is asked: getting one may take a request of its own
        request.budget_seconds += self.budget.acquire(operation.name, self._closed)
        with self._answer(endpoint, method, url, auth=auth, **request.send) as (response, _):
            self._reached = True
            body = read_body(response, endpoint, deadline=time.monotonic() + self._answer_seconds)
        try:
            return parse(response, body, endpoint, transient_codes=self.settings.transient_codes)
        except RateLimitedError as error:
            self.budget.blocked(operation.name, error.retry_after_seconds)
            raise
        except RejectedError:
            if auth:
                auth.renew(response.request.headers.get(TOKEN_HEADER))
            raise

    @contextlib.contextmanager
    def _answer(
        self, endpoint: str, method: str, url: str, **send: Any
    ) -> Iterator[tuple[httpx.Response, AnswerTimeout]]:
        """Send a request and open its answer, which has to arrive as a whole within `_answer_seconds`."""
        seconds = self.settings.timeout_seconds
        read = AnswerTimeout(seconds, self._answer_seconds)
        try:
            timeout = httpx.Timeout(seconds, connect=min(_LONGEST_CONNECT_SECONDS, seconds), read=read)
            with self._http.stream(method, url, timeout=timeout, **send) as response:
                yield response, read
        except httpx.HTTPError as error:
            raise _transport_error(endpoint, error) from error
        except RuntimeError as error:
            if not self._closed.is_set():
                raise
            raise RetryableError(f"{endpoint}: stopped") from error  # httpx sends nothing once it is closed

    @property
    def _answer_seconds(self) -> float:
        return _TIMEOUTS_PER_ANSWER * self.settings.timeout_seconds

    def _url(self, operation: Operation, path_values: Mapping[str, str]) -> str:
        path = operation.path.format_map({name: quote(value, safe="") for name, value in path_values.items()})
        # Whoever reads an address takes "." and ".." out of it, quoted or not: another operation would be asked.
        for declared, segment in zip(operation.path.split("/"), path.split("/"), strict=True):
            if segment in ("", ".", "..") and segment != declared:
                raise NoAddressError(
                    f"{operation.endpoint}: this id cannot be a part of an address, so nobody was asked"
                )
        return f"{self.settings.base_url}{path}"

    def _choose_auth(self) -> TokenAuth:
        settings = self.settings
        if settings.api_key_sid and settings.api_key_secret:
            return KeyPairAuth(
                settings.api_key_sid,
                settings.api_key_secret.get_secret_value(),
                lifetime_seconds=settings.token_lifetime_seconds,
                base_url=settings.base_url,
                token_hosts=settings.token_hosts,
            )
        if settings.email and settings.password:
            return PortalLoginAuth(
                settings.email,
                settings.password.get_secret_value(),
                settings.portal,
                log_in=self._log_in,
                base_url=settings.base_url,
                token_hosts=settings.token_hosts,
            )
        raise SettingsError(
            f"no way to authenticate: set {KeyPairAuth.setting_names}, or {PortalLoginAuth.setting_names}"
        )

    def _log_in(self, credentials: dict[str, str]) -> Any:
        request = _Request(self.settings.operation("account"), {}, {"json": credentials})
        try:
            return self._send(request, request.operation.method, None)
        except (ApiError, RejectedError) as error:
            raise AuthenticationError(f"{error}: check {PortalLoginAuth.setting_names}") from error


def _transport_error(endpoint: str, error: httpx.HTTPError) -> TransportError:
    """Say what went wrong without the URL, which may hold a query."""
    if isinstance(error, httpx.ConnectError):
        return TransportError(f"{endpoint}: no connection ({error})")
    if isinstance(error, httpx.TimeoutException):
        return TransportError(f"{endpoint}: no answer, or it did not end in time ({type(error).__name__})")
    return TransportError(f"{endpoint}: the connection broke or the answer is unreadable ({type(error).__name__})")
