"""The portal's calls: an index sorted by (start time, id), and every row serialised once.

Generated calls stay compact columns and are rendered a block at a time; calls that a test adds or changes lie over
them as single rows. A call is known inside by its position: below ``len(generated)`` a generated one, above an own one.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.simulator.generator import GeneratedCalls, generate
from pipelines.simulator.oddities import OddRows
from pipelines.simulator.rows import Row, render, to_json

NEVER = 2**62
_BLOCK_ROWS = 1_000
_CACHED_BLOCKS = 400

Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class _OwnCall:
    start_ms: int
    call_id: str
    visible_from_ms: int
    row: Row


@dataclass(frozen=True, slots=True)
class _Block:
    rows: list[bytes]
    made_ms: int
    valid_until_ms: int


class CallStore:
    """Answers which calls a window shows at an instant, in order, and what each row looks like.

    Not thread-safe: the portal holds its lock around every use. ``revision`` grows with every change.
    """

    def __init__(self, generated: GeneratedCalls | None = None, odd_rows: OddRows | None = None) -> None:
        self._base = generated if generated is not None else generate(calls_total=0, days=1)
        self._odd_rows = odd_rows
        self._count = len(self._base)
        self._own: list[_OwnCall | None] = []
        self._by_id: OrderedDict[bytes, int] | None = None
        self._own_by_id: dict[str, int] = {}
        self._blocks: OrderedDict[tuple[int, int], _Block] = OrderedDict()
        self.revision = 0

    def key(self, position: int) -> Key:
        """Return (start in ms, call id): the order of the index."""
        if position < self._count:
            return int(self._base.start_ms[position]), self._base.call_ids[position].decode()
        call = self._own[position - self._count]
        assert call is not None, "positions of removed calls are not handed out"
        return call.start_ms, call.call_id

    def select(self, start_ms: int, end_ms: int, now_ms: int) -> tuple[Sequence[int], int]:
        """Return the positions visible in a window (both ends inclusive), ascending, and until when that holds."""
        starts = self._base.start_ms
        first, last = np.searchsorted(starts, start_ms, "left"), np.searchsorted(starts, end_ms, "right")
        visible_from = self._base.visible_from_ms[first:last]
        visible = visible_from <= now_ms
        positions: Sequence[int] = range(int(first), int(last))
        valid_until = NEVER
        if not visible.all():
            positions = (np.flatnonzero(visible) + first).tolist()
            valid_until = int(visible_from[~visible].min())
        own = [
            (position, call)
            for position, call in enumerate(self._own, self._count)
            if call is not None and start_ms <= call.start_ms <= end_ms
        ]
        hidden = [call.visible_from_ms for _, call in own if call.visible_from_ms > now_ms]
        shown = [position for position, call in own if call.visible_from_ms <= now_ms]
        if shown:
            positions = sorted([*positions, *shown], key=self.key)
        return positions, min([valid_until, *hidden])

    def span(self) -> tuple[int, int, int] | None:
        """Return how many calls there are, shown by now or not, and the first and the last start in ms."""
        own = [call.start_ms for call in self._own if call is not None]
        generated = self._base.start_ms[self._base.visible_from_ms != NEVER]
        starts = [*own, *(int(start) for start in (generated[:1], generated[-1:]) for start in start)]
        return (len(own) + len(generated), min(starts), max(starts)) if starts else None

    def find(self, call_id: str, now_ms: int) -> int | None:
        """Return the position of a visible call, or None."""
        position = self._position(call_id)
        return position if position is not None and self.visible_from_ms(position) <= now_ms else None

    def visible_from_ms(self, position: int) -> int:
        """Return the instant from which a call is in the history; ``NEVER`` once it is removed."""
        if position < self._count:
            return int(self._base.visible_from_ms[position])
        call = self._own[position - self._count]
        return NEVER if call is None else call.visible_from_ms

    def row_json(self, position: int, version: int, now_ms: int) -> bytes:
        """Return a row, serialised, as answers of ``version`` show it at an instant."""
        if position < self._count:
            return self._block(position // _BLOCK_ROWS, version, now_ms).rows[position % _BLOCK_ROWS]
        call = self._own[position - self._count]
        assert call is not None, "positions of removed calls are not handed out"
        return to_json(call.row)

    def row(self, position: int, version: int, now_ms: int) -> Row:
        """Return a row as a client reads it."""
        row: Row = json.loads(self.row_json(position, version, now_ms))
        return row

    def row_as_generated(self, position: int, now_ms: int) -> Row:
        """Return a row before it was made odd."""
        if position < self._count:
            return render(self._base, position, position + 1, 2, now_ms)[0]
        return self.row(position, 2, now_ms)

    def in_progress(self, now_ms: int) -> Iterable[Row]:
        """Yield generated calls that have started and not ended, as history rows."""
        base = self._base
        last = int(np.searchsorted(base.start_ms, now_ms, "right"))
        first = int(np.searchsorted(base.start_ms, now_ms - 4 * 3_600_000, "left"))
        for position in np.flatnonzero(base.end_ms[first:last] > now_ms) + first:
            if base.visible_from_ms[position] != NEVER:
                yield render(base, int(position), int(position) + 1, 2, now_ms)[0]

    def add(self, row: Row, start_ms: int, call_id: str, visible_from_ms: int) -> None:
        """Add a call under its index key; raises ValueError when the id is taken."""
        if self._position(call_id) is not None:
            raise ValueError(f"the portal already has a call {call_id!r}")
        self._own_by_id[call_id] = self._count + len(self._own)
        self._own.append(_OwnCall(start_ms, call_id, visible_from_ms, row))
        self.revision += 1

    def update(self, call_id: str, fields: dict[str, Any], now_ms: int) -> None:
        """Change fields of a call's row; a new integer ``start_time`` moves it in the index. Raises KeyError."""
        position = self._position(call_id)
        if position is None:
            raise KeyError(f"the portal has no call {call_id!r}")
        start_ms, _ = self.key(position)
        visible_from_ms = self.visible_from_ms(position)
        row = self.row(position, 2, now_ms) | fields
        moved = fields.get("start_time")
        self.remove(call_id)
        self.add(row, moved if isinstance(moved, int) else start_ms, call_id, visible_from_ms)

    def remove(self, call_id: str) -> None:
        """Take a call out of the history; raises KeyError when there is none."""
        position = self._position(call_id)
        if position is None:
            raise KeyError(f"the portal has no call {call_id!r}")
        if position < self._count:
            self._base.visible_from_ms[position] = NEVER
        else:
            self._own[position - self._count] = None
            del self._own_by_id[call_id]
        self.revision += 1

    def warm(self, version: int, now_ms: int) -> None:
        """Serialise the blocks ahead of the first request, as many as are kept."""
        for block in range(min(-(-self._count // _BLOCK_ROWS), _CACHED_BLOCKS)):
            self._block(block, version, now_ms)

    def _block(self, number: int, version: int, now_ms: int) -> _Block:
        block = self._blocks.get((number, version))
        if block is None or not block.made_ms <= now_ms < block.valid_until_ms:
            first = number * _BLOCK_ROWS
            last = min(first + _BLOCK_ROWS, self._count)
            rows = render(self._base, first, last, version, now_ms)
            if self._odd_rows is not None:
                rows = [self._odd_rows.apply(row) for row in rows]
            changes = self._base.settled_from_ms[first:last]
            still_open = changes[changes > now_ms]
            made_ms = now_ms if len(still_open) else int(changes.max())
            valid_until_ms = int(still_open.min()) if len(still_open) else NEVER
            block = _Block([to_json(row) for row in rows], made_ms, valid_until_ms)
            self._blocks[number, version] = block
            if len(self._blocks) > _CACHED_BLOCKS:
                self._blocks.popitem(last=False)
        return block

    def _position(self, call_id: str) -> int | None:
        own = self._own_by_id.get(call_id)
        if own is not None:
            return own
        if self._by_id is None:
            self._by_id = OrderedDict(
                (call_id, position) for position, call_id in enumerate(self._base.call_ids.tolist())
            )
        position = self._by_id.get(call_id.encode())
        return position if position is not None and self._base.visible_from_ms[position] != NEVER else None


def after(positions: Sequence[int], keys: Any, key: Any, descending: bool) -> Sequence[int]:
    """Return the positions past ``key`` in ascending ``positions``, in the asked order (keyset paging)."""
    if descending:
        return positions[: bisect_left(positions, key, key=keys)][::-1]
    return positions[bisect_right(positions, key, key=keys) :]
