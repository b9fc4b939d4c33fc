"""What doing a window again changes in the warehouse, or would take from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class Changes:
    """What ``StagedWindow.replace`` did, in calls and rejected rows.

    ``left`` holds instants of other windows whose certificate does not hold any more: a call of theirs starts in this
    window now, or they have set a row aside for a call that is gone here. ``to_confirm`` holds the starts, in other
    windows, of calls of which this window has begun to serve an earlier row: they may have left there.
    """

    inserted: int
    updated: int
    restored: int
    vanished: int
    unchanged: int
    rejects_added: int
    rejects_removed: int
    left: tuple[datetime, ...] = ()
    to_confirm: tuple[datetime, ...] = ()

    def __add__(self, later: Changes) -> Changes:
        """Return what both did, one after the other; ``unchanged`` is the later one's."""
        summed = ("inserted", "updated", "restored", "vanished", "rejects_added", "rejects_removed")
        sums = {name: getattr(self, name) + getattr(later, name) for name in summed}
        return replace(later, **sums)

    @property
    def calls_changed(self) -> int:
        """How many calls are not as they were before."""
        return self.inserted + self.updated + self.restored + self.vanished


@dataclass(frozen=True)
class Losses:
    """What the warehouse would lose of a window by what was staged.

    ``live`` calls are in the window now, of which ``vanishing`` were not staged. ``unreadable`` ones were not staged
    either, but a rejected row has their id: they are still served. ``emptied`` says, by column, in how many calls a
    value would become null or unknown, where it is any. ``rows_without_id`` counts staged rejects that could be any
    call of the window.
    """

    live: int
    vanishing: int
    unreadable: int
    rows_without_id: int
    emptied: Mapping[str, int]
