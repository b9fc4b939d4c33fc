"""What the API answers: envelope to data, failures to errors."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable
from typing import Any, Literal

import httpx

from pipelines.stringeex.technical_words import technical_words_of
from transforms.errors import ApiError, CallHistoryError, RateLimitedError, ServerError, TransportError
from transforms.json_text import parse_json

MAX_BODY_BYTES = 64 * 1024 * 1024
_SPEAKS_OF_AUTHENTICATION = re.compile(r"auth(?!or\b)|token|jwt", re.IGNORECASE)
_SAYS_TRY_AGAIN = re.compile(
    r"busy|try again|temporar|overload|too many|time.?out|timed out|unavailable", re.IGNORECASE
)
_INSTANT_FROM_SECONDS = 10**9
_WHOLE_NUMBER = re.compile(r"\s*([+-]?[0-9]{1,9})(?:\.0*)?\s*")


class RejectedError(CallHistoryError):
    """The API did not accept the token. Stays inside the client, which renews the token or gives up."""


def read_body(
    response: httpx.Response, endpoint: str, *, deadline: float, clock: Callable[[], float] = time.monotonic
) -> bytes:
    """Read an unread answer, decoded, until ``deadline`` on ``clock`` at most.

    Raises TransportError past the deadline, past `MAX_BODY_BYTES`, or for an encoding that was not asked for (one
    layer of gzip or deflate is: others can blow up a few bytes beyond all bounds).
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "deflate"):
        raise TransportError(f"{endpoint}: the answer is encoded in a way that was not asked for")
    chunks: list[bytes] = []
    size = 0
    for chunk in response.iter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise TransportError(f"{endpoint}: the answer is larger than {MAX_BODY_BYTES >> 20} MiB")
        if clock() > deadline:
            raise TransportError(f"{endpoint}: the answer did not end in time ({size} bytes so far)")
    return b"".join(chunks)


def parse(
    response: httpx.Response, body: bytes, endpoint: str, *, transient_codes: tuple[int, ...] | Literal["negative"]
) -> Any:
    """Return what the envelope carries: its ``data``, or, without that key, everything but code and message.

    Raises RateLimitedError (429), ServerError (5xx, transient ``r``), RejectedError (401, 403, a message about
    the token), ApiError (any other refusal) and TransportError (no envelope).

    ``r`` may be a number or a string of one. Without a code (none, null, or what is no whole number, such as a boolean,
    which could mean either) an answer is taken for what was asked for only when its ``data`` says something: an empty
    one may as well come from a gateway that knows nothing.
    """
    status = response.status_code
    if status == 429:
        raise RateLimitedError(f"{endpoint}: HTTP 429, too many requests", retry_after_seconds(response))
    if 300 <= status < 400:
        raise ApiError(
            f"{endpoint}: redirected to {_redirect_host(response)}, not followed; see STRINGEEX_BASE_URL", status=status
        )
    if status == 204:
        return {}
    try:
        envelope = parse_json(body)
    except ValueError as error:
        if 200 <= status < 300:
            kind = "empty" if not body.strip() else "cut short or no JSON"
            raise TransportError(f"{endpoint}: HTTP {status}, but the answer is {kind} ({len(body)} bytes)") from error
        envelope = None
    r, message = _code_and_message(envelope)
    shown = technical_words_of(message)
    said = f"HTTP {status}" + (f", r={r}" if r is not None else "") + (f", {shown}" if shown else "")
    if status >= 500:
        raise ServerError(f"{endpoint}: {said}")
    if status in (401, 403):
        raise RejectedError(f"{endpoint}: {said}")
    if status >= 400:
        # A 404 that is no envelope comes from a server that knows nothing of the API.
        hint = "; look at STRINGEEX_BASE_URL" if status == 404 and envelope is None else ""
        raise ApiError(f"{endpoint}: {said}{hint}", status=status, r=r)
    if not isinstance(envelope, dict) or (r is None and not _says_something(envelope.get("data"))):
        raise TransportError(f"{endpoint}: HTTP {status}, but the answer is JSON without the envelope's `r`")
    if r is None or r == 0:
        rest = {key: value for key, value in envelope.items() if key not in ("r", "msg", "message")}
        return rest.get("data", rest)
    if _SPEAKS_OF_AUTHENTICATION.search(message):
        raise RejectedError(f"{endpoint}: {said}")
    if (r < 0 if transient_codes == "negative" else r in transient_codes) or _SAYS_TRY_AGAIN.search(message):
        raise ServerError(f"{endpoint}: {said}")
    raise ApiError(f"{endpoint}: {said}", status=status, r=r)


def retry_after_seconds(response: httpx.Response) -> float | None:
    """Return the seconds that ``Retry-After`` asks for; None where it is unusable.

    It is a number of seconds or a date (RFC 9110, section 10.2.3). A number too large for one is taken for the instant
    itself, in seconds since 1970, which is what some gateways send.
    """
    value = response.headers.get("retry-after", "").strip()
    try:
        if re.fullmatch(r"[0-9]{1,10}(\.[0-9]+)?", value):
            seconds = float(value)
            return max(0.0, seconds - time.time()) if seconds >= _INSTANT_FROM_SECONDS else seconds
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _code_and_message(envelope: Any) -> tuple[int | None, str]:
    if not isinstance(envelope, dict):
        return None, ""
    message = envelope.get("msg") or envelope.get("message") or ""
    return _code(envelope.get("r")), message if isinstance(message, str) else ""


def _code(r: Any) -> int | None:
    """A whole number of any JSON type; a boolean is none, though Python counts it as one."""
    if isinstance(r, str):
        return int(match[1]) if (match := _WHOLE_NUMBER.fullmatch(r)) else None
    if isinstance(r, float):
        return int(r) if r.is_integer() else None
    return r if isinstance(r, int) and not isinstance(r, bool) else None


def _says_something(data: Any) -> bool:
    return isinstance(data, dict) and any(data.values())


def _redirect_host(response: httpx.Response) -> str:
    try:
        return f"host {response.url.join(response.headers.get('location', '')).host}"
    except httpx.InvalidURL:
        return "an address that is none"
