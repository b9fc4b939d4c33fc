"""The portal on a socket: HTTP/1.1 on loopback with keep-alive, and the faults that need the socket itself."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from pipelines.simulator import control
from pipelines.simulator.portal import Portal
from pipelines.simulator.wire import Request, Response

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class SimulatedPortal:
    """Serves a portal from a thread of this process.

    >>> with SimulatedPortal(Portal(generate())) as server:
    ...     httpx.get(server.base_url + "/v1/call/history", headers={"X-STRINGEE-AUTH": token})

    On leaving, the port, every connection and every thread are gone.
    """

    def __init__(self, portal: Portal | None = None, port: int = 0) -> None:
        self.portal = portal or Portal()
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """Address to put into ``STRINGEEX_BASE_URL``; raises RuntimeError while the server is stopped."""
        if self._server is None:
            raise RuntimeError("the simulated portal is not running")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def errors(self) -> list[BaseException]:
        """Errors of the simulator itself while answering; tests expect none."""
        return [] if self._server is None else self._server.errors

    def start(self) -> Self:
        """Begin to listen; a stopped server comes back on the same port."""
        self._server = _Server(self.portal, self._port)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="simulated portal")
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening (connections are refused from now on) and end every connection."""
        server, thread = self._server, self._thread
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join()
        server.end_connections()
        server.server_close()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for every handler
    request_queue_size = 128

    def __init__(self, portal: Portal, port: int) -> None:
        self.portal = portal
        self.errors: list[BaseException] = []
        self.stopping = threading.Event()
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service who we are."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        self.stopping.set()
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # already closed by the other side
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, ConnectionError):  # clients may hang up whenever they like
            self.errors.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if "transfer-encoding" in headers:
            self.close_connection = True
            self._deliver(Response(411, b"", headers={"Connection": "close"}))
            return
        body = self.rfile.read(int(headers.get("content-length") or 0))
        path, _, query = self.path.partition("?")
        request = Request(self.command, path, query, headers, body)
        if path.startswith(control.PREFIX):
            response = control.handle(self.server.portal, request)
        else:
            response = self.server.portal.handle(request)
        self._deliver(response)

    do_POST = do_DELETE = do_PUT = do_PATCH = do_HEAD = do_GET  # noqa: N815 - names of the base class

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the portal has a log of its own."""

    def _deliver(self, response: Response) -> None:
        if response.delivery in ("close", "reset"):
            self.close_connection = True
            if response.delivery == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                os.close(self.connection.detach())
            return
        if response.delivery in ("endless", "endless_head"):
            self._deliver_without_end(response)
            return
        head = self._head(response)
        if response.delivery == "whole":
            self.wfile.write(head + (b"" if self.command == "HEAD" else response.body))
        elif response.delivery == "cut":
            self.wfile.write(head + response.body[: len(response.body) // 2])
            self.close_connection = True
        else:
            stalled = head + response.body if response.delivery == "stall_head" else response.body
            if response.delivery == "stall":
                self.wfile.write(head)
            for byte in stalled:
                if self.server.stopping.wait(response.seconds_per_byte):
                    break
                self.wfile.write(bytes((byte,)))
            self.close_connection = True

    def _deliver_without_end(self, response: Response) -> None:
        piece = response.body
        if response.delivery == "endless":
            response.headers["Transfer-Encoding"] = "chunked"
            self.wfile.write(self._head(response))
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        self.close_connection = True
        while not self.server.stopping.wait(response.seconds_per_byte):
            self.wfile.write(piece)

    def _head(self, response: Response) -> bytes:
        fields = {"Server": "simulated-portal", "Content-Type": response.content_type} | response.headers
        if response.delivery != "endless":
            fields = {"Content-Length": str(len(response.body))} | fields
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        # a name may carry a number behind a colon, so that a dict can hold several cookies
        lines += [f"{name.partition(':')[0]}: {value}" for name, value in fields.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
