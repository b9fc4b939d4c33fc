"""One hash for a set of rows, whatever their order: what lets two copies of a window be compared call for call."""

from __future__ import annotations

from collections.abc import Iterable

_MODULUS = 1 << 128


class MultisetHash:
    """The sum of 128-bit row hashes modulo 2^128: independent of order, and of how rows were split into batches.

    An addition of secure hashes is enough to find accidents, and rows counted twice, which an exclusive-or would
    not; it is no defence against somebody who computes colliding rows on purpose.
    """

    def __init__(self) -> None:
        self._sum = 0

    def add(self, row_hash: int) -> None:
        """Count one more row."""
        self._sum = (self._sum + row_hash) % _MODULUS

    def hexdigest(self) -> str:
        """Return 32 hexadecimal digits; an empty set has all zeros."""
        return f"{self._sum:032x}"


def content_hash(row_hashes: Iterable[str]) -> str:
    """Return the hash of the rows whose ``row_hash`` (32 hexadecimal digits) are given."""
    total = MultisetHash()
    for row_hash in row_hashes:
        total.add(int(row_hash, 16))
    return total.hexdigest()
