"""A simulated portal for its own tests, and how they ask it."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import jwt

from pipelines.simulator import (
    CREDENTIALS,
    NO_LIMITS,
    Clock,
    Fault,
    OddRows,
    Portal,
    PortalOptions,
    SimulatedPortal,
    generate,
)

HISTORY = "/v1/call/history"
DAY = 86_400_000
FIRST = int(datetime(2026, 1, 5, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh")).timestamp() * 1000)
LAST = FIRST + 3 * DAY - 1
LATER = datetime(2026, 3, 1, tzinfo=UTC)


def token(
    secret: str = CREDENTIALS.api_key_secret, algorithm: str = "HS256", cty: str | None = None, **claims: Any
) -> str:
    claims = {"jti": "a", "iss": CREDENTIALS.api_key_sid, "exp": int(time.time()) + 600, "rest_api": True} | claims
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret, algorithm, headers={"cty": cty or "stringee-api;v=1"})


def make(
    calls: int = 600,
    *,
    odd_rows: OddRows | None = None,
    faults: list[Fault] | None = None,
    ties: int = 1,
    **options: Any,
) -> Portal:
    return Portal(
        generate(1, "2026-01-05", 3, calls, ties=ties),
        PortalOptions(**{"rate_limits": NO_LIMITS} | options),
        odd_rows=odd_rows,
        faults=faults or [],
        clock=Clock(LATER),
    )


NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # plain HTTP: nothing worth loading for every client


@contextmanager
def serving(portal: Portal, headers: dict[str, str] | None = None, timeout: float = 10) -> Iterator[httpx.Client]:
    headers = {"X-STRINGEE-AUTH": token()} if headers is None else headers
    with SimulatedPortal(portal) as server:
        with httpx.Client(base_url=server.base_url, headers=headers, timeout=timeout, verify=NO_CERTIFICATES) as http:
            yield http
        assert server.errors == []


def ask(http: httpx.Client, **parameters: Any) -> dict[str, Any]:
    window = {"time": f"{FIRST}-{LAST}", "version": 2, "limit": 100, "sort_order": "asc"}
    parameters = {
        name.replace("search_after", "search_after[]"): value for name, value in (window | parameters).items()
    }
    answer: dict[str, Any] = json.loads(http.get(HISTORY, params=parameters).content)
    return answer


def read_keyset(http: httpx.Client, **parameters: Any) -> Iterator[list[dict[str, Any]]]:
    data = ask(http, **parameters)["data"]
    while data["rows"]:
        yield data["rows"]
        data = ask(http, search_after=data["search_after"], **parameters)["data"]


def read_all(http: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    return [row for page in read_keyset(http, **parameters) for row in page]
