"""An account with recordings, exported and archived for tests, and other hosts that recordings may lie on."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import s3fs
import sqlalchemy as sa
from moto.server import ThreadedMotoServer

from pipelines.context import Stores, open_pipeline, open_stores, utc_now
from pipelines.export.run import plan_days, run_plans
from pipelines.recordings.archive import ArchiveSummary, OnEvent, archive_recordings
from pipelines.settings import Settings, load_settings
from pipelines.simulator import Portal
from pipelines.simulator.audio import recording
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.request_budget import RequestBudget
from sinks.storage import Storage
from sinks.warehouse import Warehouse
from tests.e2e.command import account

FIRST = date(2026, 1, 5)


@dataclass(frozen=True)
class Archived:
    """An account whose calls are exported, and the archive of its recordings."""

    settings: Settings

    def run(
        self,
        *,
        now: datetime | None = None,
        budget: RequestBudget | None = None,
        on_event: OnEvent | None = None,
        again: bool = False,
    ) -> ArchiveSummary:
        with self.open() as stores, self.client(budget) as client:
            return archive_recordings(stores, client, again=again, on_event=on_event, now=lambda: now or utc_now())

    def client(self, budget: RequestBudget | None = None) -> StringeeXClient:
        return StringeeXClient(self.settings, budget=budget or RequestBudget([]))

    @contextmanager
    def open(self) -> Iterator[Stores]:
        with open_stores(self.settings) as stores:
            yield stores

    def export(self, first: date = FIRST, last: date = FIRST) -> None:
        with open_pipeline(self.settings) as pipeline:
            assert run_plans(pipeline, plan_days(pipeline, first, last, utc_now(), force=True)).is_complete

    def rows(self) -> dict[str, dict[str, Any]]:
        """The table, by call id."""
        with Warehouse(self.settings.warehouse_url.get_secret_value()) as warehouse, warehouse.reading() as connection:
            found = connection.execute(sa.select(warehouse.tables["recordings"])).mappings()
            return {row["call_id"]: dict(row) for row in found}

    def files(self) -> dict[str, bytes]:
        """Every finished file of the archive, by name."""
        storage = Storage(self.settings.archive_url)
        contents = {}
        for name in storage.sizes():
            with storage.open(name) as file:
                contents[name] = file.read()
        return contents

    def check_every_recording(self, expected: dict[str, bytes]) -> None:
        """Every recording is there byte for byte, and the table's hash proves it."""
        rows, files = self.rows(), self.files()
        assert {call_id for call_id, row in rows.items() if row["status"] == "archived"} == set(expected)
        for call_id, audio in expected.items():
            row = rows[call_id]
            assert files[row["archive_path"]] == audio
            assert (row["bytes"], row["sha256"]) == (len(audio), hashlib.sha256(audio).hexdigest())
        assert len(files) == 2 * len(expected), "a recording and its facts each"


def archived_at(base_url: str, folder: Any, **overrides: str) -> Archived:
    """Return the archive of an account at a simulated portal, below ``folder``."""
    values = {
        "STRINGEEX_RECORDINGS_PER_MINUTE": "0",
        "CALLHISTORY_WAREHOUSE_URL": f"duckdb:///{folder}/warehouse.duckdb",
        "CALLHISTORY_LAKE_URL": f"{folder}/lake",
        "CALLHISTORY_ARCHIVE_URL": f"{folder}/recordings",
        **overrides,
    }
    return Archived(load_settings(None, overrides=account(base_url, **values)))


def recordings_of(portal: Portal) -> dict[str, bytes]:
    """The audio of every recorded or voicemail call that the portal shows now."""
    return {
        row["id"]: recording(row["id"], row["talk_duration"])
        for row in portal.rows(0, 2**60)
        if row.get("recorded") or row.get("have_voice_mail")
    }


def requests_for_recordings(portal: Portal) -> list[str]:
    """The call ids whose recordings were asked for, in order, as the log has them (quoted)."""
    return [entry.path.rpartition("/")[2] for entry in portal.log if entry.operation == "download_recording"]


@dataclass
class OtherHost:
    """A server that is not the portal: answers as it is told, and remembers every request's headers."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    seen: list[dict[str, str]] = field(default_factory=list)
    base_url: str = ""

    @property
    def saw_a_token(self) -> bool:
        return any("x-stringee-auth" in headers or "access_token" in headers[":path"] for headers in self.seen)


@contextmanager
def other_host(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[OtherHost]:
    """Serve on another port of loopback for the length of a block; whatever happens there, no token may come along."""
    host = OtherHost(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            host.seen.append({name.lower(): value for name, value in self.headers.items()} | {":path": self.path})
            host.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    host.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert not host.saw_a_token


def serve(content: bytes, content_type: str = "audio/wav", cut_at: int | None = None) -> Callable[[Any], None]:
    """Return an answer after which the connection ends, at ``cut_at`` too early; ``Range`` is ignored."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", content_type)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(content[:cut_at])

    return answer


@contextmanager
def s3_server(monkeypatch: Any, bucket: str) -> Iterator[s3fs.S3FileSystem]:
    """Run an S3 server on loopback, reached as users do, by AWS's own environment variables; with one empty bucket."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir(bucket)
    try:
        yield files
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()
