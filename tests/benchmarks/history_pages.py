"""What dlt and the bare script have in common: the portal's pages, one after the other, by keyset."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import orjson

from pipelines.simulator import CREDENTIALS

PAGE_ROWS = 100


def pages(base_url: str, start_ms: int, end_ms: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of ``[start_ms, end_ms)``, page by page, in ascending order of their start."""
    now = int(time.time())
    claims = {
        "jti": f"{CREDENTIALS.api_key_sid}-{now}",
        "iss": CREDENTIALS.api_key_sid,
        "exp": now + 3600,
        "rest_api": True,
    }
    token = jwt.encode(claims, CREDENTIALS.api_key_secret, algorithm="HS256", headers={"cty": "stringee-api;v=1"})
    query = [
        ("time", f"{start_ms}-{end_ms - 1}"),
        ("version", "2"),
        ("limit", str(PAGE_ROWS)),
        ("sort_by", "start_time"),
        ("sort_order", "asc"),
    ]
    position: list[tuple[str, str]] = []
    read = 0
    with httpx.Client(base_url=base_url, headers={"X-STRINGEE-AUTH": token}, timeout=60, trust_env=False) as client:
        while True:
            response = client.get("/v1/call/history", params=[*query, *position])
            data = orjson.loads(response.raise_for_status().content)["data"]
            if data["rows"]:
                yield data["rows"]
            read += len(data["rows"])
            if not data["rows"] or read >= data["totalCount"]:
                return
            position = [("search_after[]", str(value)) for value in data["search_after"]]
