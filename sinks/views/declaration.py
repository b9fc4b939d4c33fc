"""What a view is: its query, and what its readers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True)
class View:
    """A view of the warehouse; ``columns`` says what its columns hold, where their table does not."""

    name: str
    description: str
    query: sa.SelectBase
    columns: Mapping[str, str] = field(default_factory=dict)


def whole(number: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a sum or a count as a 64-bit integer: databases widen sums to decimals."""
    return sa.cast(number, sa.BigInteger)


def how_many(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    """Return the number of rows of the group that meet ``condition``."""
    return whole(sa.func.sum(sa.case((condition, 1), else_=0)))
