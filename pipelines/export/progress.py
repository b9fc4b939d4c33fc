"""The steps of a window on its way, which whoever listens to a run is told of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pipelines.windows import Window


class Step(StrEnum):
    """The steps of a window, in order; each is told when it is done."""

    CLAIMED = "claimed"
    BEGUN = "begun"
    PAGE_READ = "page_read"
    FETCHED = "fetched"
    STAGED = "staged"
    RAW_PUBLISHED = "raw_published"
    MERGED = "merged"
    LAKE_CALLS_PUBLISHED = "lake_calls_published"
    LAKE_PARTICIPANTS_PUBLISHED = "lake_participants_published"
    CERTIFIED = "certified"
    COMMITTED = "committed"
    HELD = "held"
    FAILED = "failed"


@dataclass(frozen=True)
class Event:
    """A step done: of which window, and how many of its calls have been read of how many (null: not known yet)."""

    step: Step
    window: Window
    rows_read: int = 0
    rows_expected: int | None = None


OnEvent = Callable[[Event], None]
