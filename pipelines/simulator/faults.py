"""Faults to switch on while the portal runs: what networks, proxies, gateways and the API itself do on bad days.

What is wrong with the calls themselves, rather than with an answer, is in ``data_faults``; all are listed here in
``FAULTS``. A refused connection is no fault of a request: stop the server (``SimulatedPortal.stop``), and start it
again.
"""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.simulator.data_faults import (
    DropField,
    DuplicateIds,
    FewerRows,
    FieldAs,
    NullField,
    OnlyShare,
    OtherPortal,
    RenameField,
    SetField,
)
from pipelines.simulator.fault import Fault
from pipelines.simulator.history import MISSING, HistoryPage, HistoryQuery
from pipelines.simulator.state import PortalState
from pipelines.simulator.text_faults import LongNumber, RepeatKey
from pipelines.simulator.wire import Request, Response, envelope


@dataclass(kw_only=True)
class Reset(Fault):
    """The connection is reset (RST) before an answer."""

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(200, b"", delivery="reset")


@dataclass(kw_only=True)
class Close(Fault):
    """The connection is closed without an answer."""

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(200, b"", delivery="close")


@dataclass(kw_only=True)
class Status(Fault):
    """An HTTP error without an envelope, such as 500, 502, 503 or 504."""

    status: int = 503
    retry_after: str | None = None

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        headers = {} if self.retry_after is None else {"Retry-After": self.retry_after}
        return Response(self.status, b"upstream error", "text/plain", headers)


@dataclass(kw_only=True)
class RateLimited(Fault):
    """HTTP 429 out of the blue, with ``retry_after`` (the header's text) or without."""

    retry_after: str | None = None

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        response = envelope(-429, "Too many requests", portal.options.message_key, 429)
        if self.retry_after is not None:
            response.headers["Retry-After"] = self.retry_after
        return response


@dataclass(kw_only=True)
class Envelope(Fault):
    """HTTP 200 whose envelope says no: busy by default; ``r=5`` for a recording of another region."""

    r: int = -1
    message: str = "System is busy, please try again"

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return envelope(self.r, self.message, portal.options.message_key)


@dataclass(kw_only=True)
class CodeAs(Fault):
    """The envelope's code, ``r`` 0 of a success, in another JSON type, or left out."""

    form: Literal["float", "text", "text_float", "false", "true", "null", "missing"] = "float"

    def on_answer(self, response: Response) -> Response:  # noqa: D102
        code = {"float": "0.0", "text": '"0"', "text_float": '"0.0"'}.get(self.form, self.form)
        odd = b"" if self.form == "missing" else b'"r":%s,' % code.encode()
        return dataclasses.replace(response, body=response.body.replace(b'"r":0,', odd, 1))


@dataclass(kw_only=True)
class AuthRejected(Fault):
    """A good token is refused, in one of the ways the portal may do it."""

    mode: Literal["401", "403", "envelope"] = "401"

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return portal.unauthorised("access token is expired", self.mode)


@dataclass(kw_only=True)
class Html(Fault):
    """A proxy's HTML page instead of JSON, with any status."""

    status: int = 200

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(self.status, b"<!doctype html><title>Bad Gateway</title><h1>Bad Gateway</h1>", "text/html")


@dataclass(kw_only=True)
class EmptyBody(Fault):
    """The status line of success and nothing behind it."""

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(200, b"")


@dataclass(kw_only=True)
class InvalidJson(Fault):
    """A complete body that is not JSON."""

    body: str = '{"r":0,"msg":"Success","data":{"totalCount":1,"rows":[{"id":'

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(200, self.body.encode())


@dataclass(kw_only=True)
class Redirect(Fault):
    """A redirect to another host."""

    location: str = "https://evilstringee.com/v1/call/history"
    status: int = 302

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(self.status, b"", headers={"Location": self.location})


@dataclass(kw_only=True)
class GzipBomb(Fault):
    """A small compressed body that becomes ``megabytes`` of blanks."""

    megabytes: int = 256

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        return Response(200, gzip.compress(b" " * (self.megabytes << 20), 1), headers={"Content-Encoding": "gzip"})


@dataclass(kw_only=True)
class Hook(Fault):
    """Calls ``action(portal, request)`` before the answer is made: calls come, go or change while a client reads."""

    action: Callable[[PortalState, Request], None]

    def instead(self, portal: PortalState, request: Request) -> None:  # noqa: D102
        self.action(portal, request)


@dataclass(kw_only=True)
class RepeatPage(Fault):
    """The page before, of the same reading, is served again, cursor and all."""

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        return portal.page_before(query) or page


@dataclass(kw_only=True)
class LargerPages(Fault):
    """A page holds ``factor`` times as many rows as were asked for: the portal has a page size of its own."""

    factor: int = 3

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        return portal.history_page(dataclasses.replace(query, limit=query.limit * self.factor))


@dataclass(kw_only=True)
class LoopSearchAfter(Fault):
    """The cursor never moves on: it is the one that was sent."""

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        if query.search_after is None:
            return page
        return dataclasses.replace(page, search_after=list(query.search_after))


@dataclass(kw_only=True)
class OtherWindow(Fault):
    """The rows of another window, ``shift_seconds`` away, under this request."""

    shift_seconds: int = -86_400

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        shift = self.shift_seconds * 1000
        start_ms, end_ms = max(query.start_ms + shift, 0), max(query.end_ms + shift, 0)
        return portal.history_page(dataclasses.replace(query, start_ms=start_ms, end_ms=end_ms, search_after=None))


@dataclass(kw_only=True)
class WrongTotal(Fault):
    """``totalCount`` is off by ``offset``, or written as text, null, or left out."""

    offset: int = 0
    form: Literal["number", "text", "null", "missing"] = "number"

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        total = page.total + self.offset
        forms = {"number": total, "text": str(total), "null": None, "missing": MISSING}
        return dataclasses.replace(page, total=forms[self.form])


@dataclass(kw_only=True)
class DropRows(Fault):
    """The last ``rows`` rows of a page are left out, though the cursor moves past them."""

    rows: int = 1

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        return dataclasses.replace(page, rows=page.rows[: -self.rows] if self.rows else page.rows)


@dataclass(kw_only=True)
class UnstablePages(Fault):
    """A page begins with the last row of the page before, in place of its own: a row is twice there, another never.

    As with an index whose equal rows have no order, the count is right all the same. Pages are told by their numbers:
    only version 1 has them.
    """

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        before = portal.page_before(query)
        if before is None or not before.rows or not page.rows or query.page == 1:
            return page
        return dataclasses.replace(page, rows=[before.rows[-1], *page.rows[1:]])


@dataclass(kw_only=True)
class NothingThere(Fault):
    """A window is said to hold nothing: a count of 0, and no rows."""

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        return dataclasses.replace(page, rows=[], total=0, search_after=None)


@dataclass(kw_only=True)
class HugePage(Fault):
    """A page blown up to ``megabytes`` by one enormous field in its first row."""

    megabytes: int = 64

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        if not page.rows:
            return page
        padding = b'{"padding":"' + b"x" * (self.megabytes << 20) + b'",'
        return dataclasses.replace(page, rows=[padding + page.rows[0][1:], *page.rows[1:]])


@dataclass(kw_only=True)
class Cut(Fault):
    """The operation is done, but only half of the body arrives before the connection closes."""

    def on_answer(self, response: Response) -> Response:  # noqa: D102
        return dataclasses.replace(response, delivery="cut")


@dataclass(kw_only=True)
class Stall(Fault):
    """The body trickles in, a byte per ``seconds_per_byte``."""

    seconds_per_byte: float = 1.0

    def on_answer(self, response: Response) -> Response:  # noqa: D102
        return dataclasses.replace(response, delivery="stall", seconds_per_byte=self.seconds_per_byte)


@dataclass(kw_only=True)
class StallHead(Fault):
    """The whole answer trickles in, status line and headers too, a byte per ``seconds_per_byte``."""

    seconds_per_byte: float = 1.0

    def on_answer(self, response: Response) -> Response:  # noqa: D102
        return dataclasses.replace(response, delivery="stall_head", seconds_per_byte=self.seconds_per_byte)


@dataclass(kw_only=True)
class ContinueForever(Fault):
    """The server says ``100 Continue`` every ``seconds_between``, and never answers."""

    seconds_between: float = 0.5

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        again = b"HTTP/1.1 100 Continue\r\n\r\n"
        return Response(200, again, delivery="endless_head", seconds_per_byte=self.seconds_between)


@dataclass(kw_only=True)
class EndlessBody(Fault):
    """A chunked body without an end, compressed, of which nothing ever comes out; a piece every ``seconds_between``."""

    seconds_between: float = 0.5

    def instead(self, portal: PortalState, request: Request) -> Response:  # noqa: D102
        response = Response(200, b"\x00\x00\x00\xff\xff", headers={"Content-Encoding": "deflate"})
        return dataclasses.replace(response, delivery="endless", seconds_per_byte=self.seconds_between)


@dataclass(kw_only=True)
class CookieBomb(Fault):
    """An answer that wants to leave ``cookies`` cookies of 3,000 bytes (clients stop reading at about 100 headers)."""

    cookies: int = 20

    def on_answer(self, response: Response) -> Response:  # noqa: D102
        crumbs = {f"Set-Cookie:{number}": f"crumb{number}={'c' * 3_000}; Path=/" for number in range(self.cookies)}
        return dataclasses.replace(response, headers=response.headers | crumbs)


@dataclass(kw_only=True)
class Mixed(Fault):
    """One of several faults, drawn anew each time it fires."""

    choices: Sequence[Fault]

    def chosen_for(self, operation: str, request: Request) -> Fault | None:  # noqa: D102
        return None if super().chosen_for(operation, request) is None else self._random.choice(self.choices)


def mixed_faults(rate: float, seed: int = 0, operation: str = "*") -> Mixed:
    """Return a fault that makes a share ``rate`` of requests fail, each in one of many ways that pass by themselves."""
    transient: tuple[Fault, ...] = (
        Reset(), Close(), Cut(), EmptyBody(), Html(status=200), Html(status=502), InvalidJson(), Envelope(),
        Status(status=500), Status(status=502), Status(status=503), Status(status=503, retry_after="1"),
        Status(status=504), RateLimited(retry_after="1"),
    )  # fmt: skip
    return Mixed(operation=operation, probability=rate, seed=seed, choices=transient)


FAULTS: dict[str, type[Fault]] = {
    kind.__name__: kind
    for kind in (
        Reset, Close, Status, RateLimited, Envelope, AuthRejected, Html, EmptyBody, InvalidJson, Redirect, GzipBomb,
        RepeatPage, LargerPages, LoopSearchAfter, OtherWindow, WrongTotal, DropRows, NothingThere, HugePage, Cut,
        Stall, CookieBomb, UnstablePages, StallHead, ContinueForever, EndlessBody, CodeAs, RepeatKey, LongNumber,
        RenameField, DropField, NullField, SetField, FieldAs, FewerRows, OnlyShare, OtherPortal, DuplicateIds,
    )
}  # fmt: skip
"""Faults that can be switched on from another process, by name."""


def fault_from_json(description: dict[str, Any]) -> Fault:
    """Return the fault of ``{"fault": "Cut", "operation": "history", ...}``; ``"Mixed"`` takes rate, seed, operation.

    Raises ValueError for an unknown fault or field.
    """
    fields = dict(description)
    name = fields.pop("fault", None)
    try:
        return mixed_faults(**fields) if name == "Mixed" else FAULTS[str(name)](**fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no such fault: {error}") from error
