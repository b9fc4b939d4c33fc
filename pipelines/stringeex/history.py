"""Reading a window of the call history, whole or not at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipelines.stringeex.client import StringeeXClient

JsonValue = None | bool | int | float | str | list[Any] | dict[str, Any]


@dataclass
class ServerTraits:
    """What was found out about the server: worth remembering, so that it is found out once. Thread-safe."""

    page_size: int | None = None
    honours_version_2: bool | None = None
    honours_ascending: bool | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def to_dict(self) -> dict[str, int | bool | None]:
        """Return the traits as a JSON-able mapping."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> ServerTraits:
        """Take up what `to_dict` gave; unknown or unusable entries are found out anew."""
        raise NotImplementedError


@dataclass(frozen=True)
class HistoryPage:
    """Rows as served, new ones only, in ascending time order; ``supersedes`` holds the ids (as served) seen before."""

    rows: list[JsonValue]
    supersedes: frozenset[str]


class WindowRead:
    """One read of one window: iterate it for its pages; the numbers are final when it is exhausted."""

    api_total: int
    distinct_rows: int
    served_rows: int
    repeated_rows: int
    outside_rows: int
    requests: int
    parts: int

    def __iter__(self) -> Iterator[HistoryPage]:
        raise NotImplementedError


class HistoryReader:
    """Reads windows of the call history through ``client``."""

    def __init__(self, client: StringeeXClient, *, traits: ServerTraits | None = None) -> None:
        raise NotImplementedError

    def read(self, window_start: datetime, window_end: datetime) -> WindowRead:
        """Begin a read of the half-open window; nothing is requested before the first page is asked for."""
        raise NotImplementedError
