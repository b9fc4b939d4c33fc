"""Somebody on loopback to be told: takes what Apprise posts."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Takes what Apprise posts; ``is_down`` makes it refuse."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.is_down = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not receiver.is_down:
                    receiver.messages.append(body | {"authorised": "Authorization" in self.headers})
                self.send_response(503 if receiver.is_down else 200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"json://operator:hush-hush@127.0.0.1:{self.server.server_port}/hook"

    def take(self) -> list[str]:
        """Return title and text of what came since the last time."""
        taken, self.messages = self.messages, []
        return [f"{message['title']}: {message['message']}" for message in taken]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for the length of the block."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()
