"""One recording from the API into a file: streamed, resumed after a cut, and never taken for what it is not."""

from __future__ import annotations

import hashlib
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

import httpx

from pipelines.stringeex.audio import NotARecordingError, is_text
from pipelines.stringeex.auth import TOKEN_HEADER
from pipelines.stringeex.client import RetryPolicy, StringeeXClient
from pipelines.stringeex.envelope import RejectedError, parse
from pipelines.stringeex.recording_links import recording_url, redirect_target
from transforms.errors import ApiError, AuthenticationError, DataError, RetryableError, TransportError

MAX_BYTES = 4 << 30
PATIENCE = RetryPolicy(attempts=5, wait_initial_seconds=0.5, wait_max_seconds=10.0, wait_jitter_seconds=0.5)
"""Within one run; what fails longer is for a later one."""

_OPERATION = "download_recording"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_SLOWEST_BYTES_PER_SECOND = 1_000
_MOST_TEXT_BYTES = 1 << 20
_BEGINNING_BYTES = 1_024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


class RecordingNotFoundError(DataError):
    """The provider does not have the recording: not yet, or not any more."""


@dataclass(frozen=True)
class Fetched:
    """A recording as it was received; ``content_type`` is what the answer's header says, "" where it says nothing."""

    bytes: int
    sha256: str
    content_type: str


@dataclass
class _Transfer:
    """What has arrived of one recording, over all attempts."""

    file: BinaryIO
    endpoint: str
    stop: threading.Event
    on_bytes: Callable[[int], None] | None
    size: int = 0
    expected: int | None = None
    part_ends_at: int | None = None
    validator: str | None = None
    etag: str = ""
    content_type: str = ""
    attempts: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers: for the whole recording, or for the rest of it."""
        headers = {"Accept-Encoding": "identity"}
        if self.size:
            headers["Range"] = f"bytes={self.size}-"
            if self.validator is not None:
                headers["If-Range"] = self.validator
        return headers

    def begin(self, response: httpx.Response) -> None:
        """Go on where the last attempt was cut off, if that is what ``response`` holds; else start from nothing."""
        if response.status_code == 206:
            self._begin_part(response)
            return
        self.restart()
        length = response.headers.get("content-length", "")
        self.expected = int(length) if length.isascii() and length.isdigit() else None
        self._note(response)

    def _begin_part(self, response: httpx.Response) -> None:
        """Check that a part of the recording begins where the last one ended, and is of the same recording."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        total = None if match is None or match[3] == "*" else int(match[3])
        etag = response.headers.get("etag", "")
        if match is None or int(match[1]) != self.size or (self.expected or total) != (total or self.expected):
            self.restart()
            raise NotARecordingError(f"{self.endpoint}: another part of the recording came than was asked for")
        if self.etag and etag and etag != self.etag:
            self.restart()
            raise NotARecordingError(f"{self.endpoint}: the recording has changed between two parts of it")
        if not self.size:
            self._note(response)
        self.expected = total or self.expected
        self.part_ends_at = int(match[2]) + 1

    def _note(self, response: httpx.Response) -> None:
        """Remember what tells this recording from another one under the same address."""
        self.etag = response.headers.get("etag", "")
        self.validator = self.etag if self.etag.startswith('"') else response.headers.get("last-modified")
        self.content_type = response.headers.get("content-type", "")

    def check_whole(self) -> bool:
        """Return whether all of it is there, and false when a part ended as promised and another one has to follow.

        Raises NotARecordingError when less, or more, has come than was promised.
        """
        promised = self.expected if self.part_ends_at is None else self.part_ends_at
        if promised is not None and self.size != promised:
            size = self.size
            self.restart()
            raise NotARecordingError(f"{self.endpoint}: {size} bytes arrived of a recording of {promised}")
        return self.expected is None or self.size == self.expected

    def restart(self) -> None:
        """Forget what has arrived."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self.expected, self.part_ends_at, self.digest = 0, None, None, hashlib.sha256()
        self.validator, self.etag, self.content_type = None, "", ""

    def write(self, chunk: bytes) -> None:
        """Take the next bytes; raise RetryableError when told to stop, DataError when it is too much."""
        self.file.write(chunk)
        self.digest.update(chunk)
        self.size += len(chunk)
        if self.on_bytes is not None:
            self.on_bytes(len(chunk))
        if self.size > MAX_BYTES:
            raise DataError(f"{self.endpoint}: the recording is larger than {MAX_BYTES >> 30} GiB")
        if self.stop.is_set():
            raise RetryableError(f"{self.endpoint}: stopped")


def fetch_recording(
    client: StringeeXClient,
    call_id: str,
    file: BinaryIO,
    *,
    record_path: str | None = None,
    retry: RetryPolicy = PATIENCE,
    on_bytes: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
) -> Fetched:
    """Write the recording of a call into the empty, seekable ``file``, in constant memory.

    ``record_path`` is the call history's link. What may pass is tried again as ``retry`` says, from where it was cut
    off if the server takes ranges, until ``stop`` is set; ``on_bytes`` is told the size of every piece that arrives.
    The content is not looked into beyond telling text (an envelope, a page of HTML) from all else; see `inspect_audio`.

    Raises RecordingNotFoundError, RefusedLinkError, NoAddressError, AuthenticationError, DataError, or a
    RetryableError.
    """
    url = recording_url(record_path, client.settings)
    stop = stop or threading.Event()
    transfer = _Transfer(file, client.settings.operation(_OPERATION).endpoint, stop, on_bytes)

    def attempt() -> Fetched:
        transfer.attempts += 1
        _receive_authenticated(client, call_id, url, transfer)
        return Fetched(transfer.size, transfer.digest.hexdigest(), transfer.content_type)

    return retry.patiently(attempt, lambda _: transfer.attempts < retry.attempts and not stop.is_set())


def _receive_authenticated(client: StringeeXClient, call_id: str, url: httpx.URL | None, transfer: _Transfer) -> None:
    """Receive part after part, and once more with a new token when the token was rejected."""
    was_rejected = is_whole = False
    while not is_whole:
        try:
            is_whole = _receive(client, call_id, url, transfer)
        except RejectedError as error:
            if was_rejected:
                raise AuthenticationError(
                    f"{error}: the API refuses the credentials (see callhistory check)"
                ) from error
            was_rejected = True


def _receive(client: StringeeXClient, call_id: str, url: httpx.URL | None, transfer: _Transfer) -> bool:
    """Receive one answer, wherever redirects lead; return whether the recording is whole then."""
    for _ in range(_MOST_REDIRECTS + 1):
        address = None if url is None else str(url)
        with client.stream(
            _OPERATION, url=address, path_values={"call_id": call_id}, headers=transfer.headers
        ) as response:
            if response.status_code not in _REDIRECTS:
                return _take(client, response, transfer)
            url = redirect_target(response, client.settings)
    raise NotARecordingError(f"{transfer.endpoint}: redirected more than {_MOST_REDIRECTS} times")


def _take(client: StringeeXClient, response: httpx.Response, transfer: _Transfer) -> bool:
    """Write a body of audio into the transfer's file, return whether it is whole; raise what another answer means.

    Only the beginning of a recording shows whether it is text: a later part may begin with any byte.
    """
    status, endpoint = response.status_code, transfer.endpoint
    if status == 416:
        transfer.restart()
        raise NotARecordingError(f"{endpoint}: the server has no such range of the recording")
    if status in (404, 410):
        raise RecordingNotFoundError(f"{endpoint}: HTTP {status}, there is no such recording (yet, or any more)")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise NotARecordingError(f"{endpoint}: the answer is encoded in a way that was not asked for")
    chunks = _chunks(response, endpoint, client.settings.timeout_seconds)
    if status != 206 or not transfer.size:
        beginning = _at_least(_BEGINNING_BYTES, b"", chunks)
        if status not in (200, 206) or not beginning or is_text(beginning, response.headers.get("content-type", "")):
            _refuse(client, response, _at_least(_MOST_TEXT_BYTES, beginning, chunks), endpoint)
        chunks = itertools.chain((beginning,), chunks)
    transfer.begin(response)
    for chunk in chunks:
        transfer.write(chunk)
    return transfer.check_whole()


def _refuse(client: StringeeXClient, response: httpx.Response, body: bytes, endpoint: str) -> NoReturn:
    """Raise what an answer without audio means."""
    status = response.status_code
    try:
        parse(response, body, endpoint, transient_codes=client.settings.transient_codes)
    except RejectedError as error:
        if TOKEN_HEADER not in response.request.headers:
            raise ApiError(str(error), status=status) from error
        client.renew_token(response)
        raise
    except ApiError as error:
        if status == 200:
            raise RecordingNotFoundError(str(error)) from error
        raise
    raise NotARecordingError(f"{endpoint}: HTTP {status}, but the answer is text instead of a recording")


def _chunks(response: httpx.Response, endpoint: str, timeout_seconds: float) -> Iterator[bytes]:
    """Yield the body as it comes; raise TransportError when it trickles in too slowly ever to end."""
    began, received = time.monotonic(), 0
    for chunk in response.iter_raw():
        received += len(chunk)
        yield chunk
        if time.monotonic() - began > 3 * timeout_seconds + received / _SLOWEST_BYTES_PER_SECOND:
            raise TransportError(f"{endpoint}: the recording did not end in time ({received} bytes so far)")


def _at_least(size: int, beginning: bytes, chunks: Iterator[bytes]) -> bytes:
    """Return ``beginning`` and what comes after it, until there are ``size`` bytes or no more."""
    body = bytearray(beginning)
    while len(body) < size and (chunk := next(chunks, b"")):
        body += chunk
    return bytes(body)
