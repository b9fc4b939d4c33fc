"""What the tests of the operations have in common: one call that is over, one in progress, the tables."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import duckdb

CALL_ID = "call-vn-1-AAAAAAAAAA-1"
LIVE_ID = "call-vn-1-LIVE000001-1"


def live_call(call_id: str = LIVE_ID, **fields: Any) -> dict[str, Any]:
    now_ms = int(time.time() * 1000)
    return {
        "callId": call_id,
        "stringeeNumber": "+842473000001",
        "stringeeNumberNickname": "Tổng đài chính",
        "agent": "user_3",
        "startTime": now_ms - 60_000,
        "answeredTime": now_ms - 50_000,
        "customerNumber": "84900000012",
        "direction": "callin",
        **fields,
    }


def queried(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(folder / "data/warehouse.duckdb"), read_only=True) as connection:
        return connection.sql(query).fetchall()
