"""Faults of the JSON that rows are served as: well formed, but not what a parser gives back of its own accord.

Another fault that changes the same row reads it as such a parser does: one of these is the only one of its row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipelines.simulator.data_faults import RowFault
from pipelines.simulator.rows import Row

_PLACE_OF_NUMBER = "(a number)"


class _AnotherKey(str):
    """A key that is written like another one and yet is not the same."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


@dataclass(kw_only=True)
class RepeatKey(RowFault):
    """A row holds a field twice: first with the value ``earlier``, then as it is."""

    field: str
    earlier: Any = "another value"

    def change(self, row: Row) -> None:  # noqa: D102
        served = dict(row)
        row.clear()
        row[_AnotherKey(self.field)] = self.earlier
        row.update(served)


@dataclass(kw_only=True)
class LongNumber(RowFault):
    """A field is served as the number ``text``, whose digits no double can hold."""

    field: str
    text: str = "0.1234567890123456789"

    def change(self, row: Row) -> None:  # noqa: D102
        row[self.field] = _PLACE_OF_NUMBER

    def _changed(self, served: bytes) -> bytes:
        return super()._changed(served).replace(f'"{_PLACE_OF_NUMBER}"'.encode(), self.text.encode())
