"""The simulated portal in a process of its own, started and steered from Python."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import Any
from urllib.parse import quote

import httpx

from pipelines.simulator.access import Credentials
from pipelines.simulator.control import PREFIX

_END_SECONDS = 10
"""How long a portal has for its end. One that takes longer is killed: nobody waits for ever."""


class SpawnedPortal:
    """A running portal: ``base_url``, ``credentials``, ``process_id``, and its controls (see ``simulator.control``)."""

    def __init__(self, base_url: str, credentials: Credentials, process_id: int, http: httpx.Client) -> None:
        self.base_url = base_url
        self.credentials = credentials
        self.process_id = process_id
        self._http = http

    def control(self, method: str, resource: str, body: Any = None) -> Any:
        """Send one control request; return its JSON. Raises ValueError with the reason when it is refused."""
        response = self._http.request(method, PREFIX + resource, content=None if body is None else json.dumps(body))
        if response.is_error:
            raise ValueError(f"{method} {PREFIX}{resource}: {response.text}")
        return json.loads(response.content)

    def log(self) -> list[dict[str, Any]]:
        """Return the requests seen so far, as the fields of ``LogEntry``."""
        entries: list[dict[str, Any]] = self.control("GET", "log")
        return entries

    def clear_log(self) -> None:
        """Forget log and counts."""
        self.control("DELETE", "log")

    def counts(self) -> dict[str, int]:
        """Return requests per operation."""
        counts: dict[str, int] = self.control("GET", "counts")
        return counts

    def rows(self, start_ms: int, end_ms: int, version: int = 2) -> list[dict[str, Any]]:
        """Return the truth of a window, both ends inclusive, as ``Portal.rows`` does."""
        rows: list[dict[str, Any]] = self.control("GET", f"rows?time={start_ms}-{end_ms}&version={version}")
        return rows

    def keys(self, start_ms: int, end_ms: int) -> list[tuple[int, str]]:
        """Return (start in ms, call id) of a window, both ends inclusive, as ``Portal.keys`` does."""
        return [(start, call_id) for start, call_id in self.control("GET", f"keys?time={start_ms}-{end_ms}")]

    def add_fault(self, fault: str, **fields: Any) -> None:
        """Switch a fault on, by the name of its class: ``add_fault("Cut", count=1)``; ``"Mixed"`` takes a rate."""
        self.control("POST", "faults", {"fault": fault, **fields})

    def clear_faults(self) -> None:
        """Switch all faults off."""
        self.control("DELETE", "faults")

    def add_call(self, row: dict[str, Any], **index: Any) -> None:
        """Add a call, as ``Portal.add_call`` does."""
        self.control("POST", "calls", {"row": row, **index})

    def update_call(self, call_id: str, **fields: Any) -> None:
        """Change fields of a call."""
        self.control("PATCH", f"calls/{quote(call_id, safe='')}", fields)

    def remove_call(self, call_id: str) -> None:
        """Take a call out of the history."""
        self.control("DELETE", f"calls/{quote(call_id, safe='')}")

    def set_options(self, **fields: Any) -> None:
        """Change fields of ``PortalOptions``; ``rate_limits`` as a dict."""
        self.control("PATCH", "options", fields)


@contextmanager
def spawn(
    calls: int = 2_000,
    days: int = 3,
    seed: int = 1,
    start_date: date | str | None = None,
    *,
    port: int = 0,
    page_limit: int = 100,
    fault_rate: float = 0.0,
    odd_share: float = 0.0,
    ties: int = 1,
    limits: bool = True,
    timezone: str = "Asia/Ho_Chi_Minh",
    faults: Sequence[Mapping[str, Any]] = (),
) -> Iterator[SpawnedPortal]:
    """Run ``python -m pipelines.simulator`` for the length of a ``with`` block.

    ``faults`` are switched on from the first request on: ``[{"fault": "DropField", "field": "status"}]``. The process
    ends with the block, and also when this process dies. Raises RuntimeError when it does not start.
    """
    numbers = {
        "calls": calls, "days": days, "seed": seed, "port": port, "page-limit": page_limit, "fault-rate": fault_rate,
        "odd-share": odd_share, "ties": ties, "timezone": timezone,
    }  # fmt: skip
    command = [sys.executable, "-m", "pipelines.simulator", "--until-stdin-closes"]
    command += [f"--{name}={value}" for name, value in numbers.items()]
    command += [f"--start-date={start_date}"] if start_date is not None else []
    command += [f"--fault={json.dumps(dict(fault))}" for fault in faults]
    command += [] if limits else ["--no-limits"]
    # In a group of its own, so that Ctrl-C in a terminal ends it only behind whoever works with it.
    with subprocess.Popen(  # noqa: S603 - ourselves
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    ) as process:
        assert process.stdin is not None, "opened as a pipe"
        assert process.stdout is not None, "opened as a pipe"
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"the simulated portal did not start: exit status {process.wait()}")
            ready = json.loads(line)
            base_url = ready.pop("base_url")
            with httpx.Client(base_url=base_url, timeout=120, trust_env=False) as http:
                yield SpawnedPortal(base_url, Credentials(**ready), process.pid, http)
        finally:
            process.stdin.close()
            process.terminate()
            try:
                process.wait(timeout=_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
