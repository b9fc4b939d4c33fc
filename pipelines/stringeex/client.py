"""The client: one request at a time, through the budget, with retries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import httpx

from pipelines.settings import Settings


class StringeeXClient:
    """A pooled, thread-safe connection to one account."""

    def __init__(
        self,
        settings: Settings,
        *,
        budget: object = None,
        transport: httpx.BaseTransport | None = None,
        retry: object = None,
    ) -> None:
        raise NotImplementedError

    def __enter__(self) -> StringeeXClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; whoever waits for the budget is let go with an error."""

    def request(
        self,
        operation: str,
        *,
        params: Sequence[tuple[str, str]] | Mapping[str, str] | None = None,
        json: object = None,
        files: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        path_values: Mapping[str, str] | None = None,
    ) -> Any:
        """Carry out an operation and return the whole envelope (``data`` of it is in key ``data``)."""
        raise NotImplementedError

    def stream(
        self,
        operation: str,
        *,
        path_values: Mapping[str, str] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[httpx.Response]:
        """Open an answer that is no envelope (audio), unread, one attempt."""
        raise NotImplementedError
