"""One deadline for a whole answer: httpx's own time-outs begin anew with every byte that arrives.

A server that sends its headers a byte at a time, or one ``100 Continue`` after the other, would keep a request for
ever. So a time-out for reads carries the time that is left, and the connections of a client look at it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx


class AnswerTimeout(float):
    """Seconds to wait for the next bytes of an answer; it stands where httpx takes a read time-out.

    On top, the answer has ``whole_seconds`` from the first look at the connection, which is when the request has been
    sent: uploading may take longer. Good for one request, and only on connections of a client that `keep_deadlines`
    has seen; elsewhere it is a read time-out like any other.
    """

    def __new__(cls, next_bytes_seconds: float, whole_seconds: float) -> AnswerTimeout:  # noqa: D102
        return super().__new__(cls, next_bytes_seconds)

    def __init__(self, next_bytes_seconds: float, whole_seconds: float) -> None:
        self._whole_seconds = whole_seconds
        self._ends_at: float | None = None

    def left_seconds(self) -> float:
        """Return how long the next read may take; nothing is left when it is not positive."""
        now = time.monotonic()
        if self._ends_at is None:
            self._ends_at = now + self._whole_seconds
        return min(self, self._ends_at - now)

    def lift(self) -> None:
        """From here on, let the answer take as long as it likes, while bytes arrive in time."""
        self._ends_at = float("inf")


def keep_deadlines(client: httpx.Client) -> None:
    """Make the connections of ``client`` respect an `AnswerTimeout`, and end what they wait for when it is closed.

    httpx takes no network backend for the pools that it makes, nor for those of the proxies it finds; so it is put
    there afterwards. Transports that have no pool, such as those of tests, are left alone.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            pool = transport._pool
            assert isinstance(pool._network_backend, httpcore.NetworkBackend)
            pool._network_backend = _Backend()


class _Backend(httpcore.SyncBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return _Stream(super().connect_tcp(host, port, timeout, local_address, socket_options))


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if isinstance(timeout, AnswerTimeout):
            timeout = timeout.left_seconds()
            if timeout <= 0:
                raise httpcore.ReadTimeout("the answer did not end in time")
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        # Closing alone would leave a thread that waits for bytes waiting.
        with contextlib.suppress(OSError):  # the other side has gone already
            self._stream.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
