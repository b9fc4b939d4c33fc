"""The content hash of a set of rows: what two copies of a window are compared by."""

from __future__ import annotations

from collections.abc import Iterable

_MODULUS = 1 << 128


class MultisetHash:
    """A running hash of 128-bit row hashes, independent of their order and of how they came in batches.

    The sum modulo 2^128: it needs no sorting and no memory, and unlike XOR it tells a row held twice from one
    that is not there (Bellare and Micciancio 1997, "A New Paradigm for Collision-Free Hashing", AdHash). It guards
    against mistakes, not against somebody who picks the rows.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, row_hash: int) -> None:
        """Count one more row."""
        self._sum = (self._sum + row_hash) % _MODULUS

    def hexdigest(self) -> str:
        """Return 32 hex digits; an empty set has all zeros."""
        return f"{self._sum:032x}"


def content_hash(row_hashes: Iterable[str]) -> str:
    """Return the hash of the rows whose ``row_hash`` is given in hex. Raises ``ValueError`` on one that is not hex."""
    total = MultisetHash()
    for row_hash in row_hashes:
        total.add(int(row_hash, 16))
    return total.hexdigest()


def sum_of_hashes(content_hashes: Iterable[str]) -> str:
    """Return the hash of all rows of several sets, given the hash of each."""
    return content_hash(content_hashes)
