"""Instants as the API writes them: whole milliseconds since 1970-01-01 00:00 UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def epoch_ms(instant: datetime) -> int:
    """Return an aware ``instant`` as epoch milliseconds; what is smaller is cut off."""
    return (instant - EPOCH) // _MILLISECOND


def instant_at(milliseconds: int) -> datetime:
    """Return the UTC instant at these epoch milliseconds. Raises ``OverflowError`` beyond the year 9999."""
    return EPOCH + milliseconds * _MILLISECOND
