"""The content hash of a window: what lake and warehouse are compared by."""

from __future__ import annotations

from collections.abc import Iterable

_MODULUS = 1 << 128


def content_hash(row_hashes: Iterable[str]) -> str:
    """Return 32 hex digits that stand for a multiset of 128-bit ``row_hashes`` (hex), whatever their order.

    The sum modulo 2^128: it needs no sorting and no memory, and unlike XOR it tells a row held twice from one
    that is not there (Bellare and Micciancio 1997, "A New Paradigm for Collision-Free Hashing", AdHash). It guards
    against mistakes, not against somebody who picks the rows. Raises ``ValueError`` on a hash that is not hex.
    """
    return f"{sum(int(row_hash, 16) for row_hash in row_hashes) % _MODULUS:032x}"
