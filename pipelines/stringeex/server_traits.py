"""What a server was found to be able to do, so that it is found out once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Self

LARGEST_LIMIT = 1000
"""Rows to ask for per page while nothing is known: the largest ``limit`` is not published."""
SAFE_LIMIT = 100
"""Rows per page that the provider's sister API is documented to allow."""
DEFAULT_LIMIT = 10
"""Rows per page that the API documents for a request without ``limit``."""

_KINDS: dict[str, type] = {
    "refused_limit": int,
    "page_size": int,
    "version_2": bool,
    "ascending": bool,
    "keyset_capped": bool,
    "result_cap": int,
}


class ServerTraits:
    """What is known of one server; None where nothing is yet. For all threads; `to_dict` is what to keep between runs.

    ``refused_limit`` is a page size that the server refuses, or answers with its default one; ``page_size`` the most
    rows seen on a page that was not the last one. ``version_2`` says whether it reads by ``search_after``,
    ``ascending`` whether it takes ``sort_order=asc``, ``keyset_capped`` whether reading by ``search_after`` stops at
    the result cap, ``result_cap`` after how many rows of one query it refuses to go on.
    """

    def __init__(self) -> None:
        self.refused_limit: int | None = None
        self.page_size: int | None = None
        self.version_2: bool | None = None
        self.ascending: bool | None = None
        self.keyset_capped: bool | None = None
        self.result_cap: int | None = None
        self._lock = threading.Lock()
        self._finding_out = threading.Lock()

    def to_dict(self) -> dict[str, int | bool]:
        """Return what is known as a JSON-able mapping."""
        return {name: value for name in _KINDS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Self:
        """Take up what `to_dict` gave; an unknown or unusable entry is found out anew."""
        traits = cls()
        for name, kind in _KINDS.items():
            value = values.get(name)
            if type(value) is kind and (kind is bool or (isinstance(value, int) and value > 0)):
                setattr(traits, name, value)
        return traits

    def remember(self, **found: int | bool) -> None:
        """Take note of one or more of the traits."""
        with self._lock:
            for name, value in found.items():
                setattr(self, name, _KINDS[name](value))

    def cap(self, configured: int) -> int:
        """Return after how many rows a query is to be split: as configured, or less if it was seen; 0 for never."""
        return min(filter(None, (configured, self.result_cap)), default=0)

    def saw_full_page(self, rows: int) -> None:
        """Take note of a page of ``rows`` rows after which more were to come."""
        with self._lock:
            self.page_size = max(rows, self.page_size or 0)

    def limit_to_ask(self, wanted: int | None) -> int:
        """Return the page size to ask for: ``wanted`` or else the largest, unless the server is known to refuse it."""
        limit = wanted or LARGEST_LIMIT
        return limit if self.refused_limit is None or limit < self.refused_limit else min(limit, SAFE_LIMIT)

    @contextlib.contextmanager
    def finding_out(self) -> Iterator[None]:
        """Keep other threads from asking the server the same questions at the same time, until they are answered."""
        if self.version_2 is None:
            with self._finding_out:
                if self.version_2 is None:
                    yield
                    return
        yield
