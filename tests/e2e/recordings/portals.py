"""Portals with recordings in them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipelines.simulator import Portal, PortalOptions, generate
from tests.archives import FIRST

BUCKET = "recordings"
START = datetime(2026, 1, 5, 3, tzinfo=UTC)


def add_call(portal: Portal, call_id: str = "call-vn-1-AAAAAAAAAA-1", **fields: Any) -> None:
    start_ms = int(START.timestamp() * 1000) + 60_000 * len(portal.keys(0, 2**60))
    row = {
        "id": call_id, "start_time": start_ms, "end_time": start_ms + 12_000, "duration": 12, "talk_duration": 10,
        "recorded": 1, "direction": 1, "status": 1,
    }  # fmt: skip
    portal.add_call({**row, **fields})


def big_portal(calls: int = 60, **options: Any) -> Portal:
    return Portal(generate(seed=5, start_date=FIRST, days=1, calls_total=calls), PortalOptions(**options))
