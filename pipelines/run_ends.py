"""How the last run of each kind ended, kept in the warehouse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sinks.state import State
from transforms.json_text import JsonValue


class RunKind(StrEnum):
    """The kinds of runs whose end is kept."""

    EXPORT = "export"
    EXPORT_RECENT = "export_recent"
    BACKFILL = "backfill"
    ARCHIVE = "archive"
    VERIFY = "verify"

    @property
    def is_scheduled(self) -> bool:
        """Whether the same work is done again and again, so that a failure lasts until a run ends well."""
        return self is not RunKind.BACKFILL


@dataclass(frozen=True)
class RunEnd:
    """When a run ended, and what was wrong with it (null: nothing).

    ``is_told`` is whether people know of a problem, of this run or one before, and have not been told of its end.
    """

    ended_at: datetime
    problem: str | None = None
    is_told: bool = False


def read_run_end(state: State, kind: RunKind) -> RunEnd | None:
    """Return how the last run of a kind ended; null when none is known."""
    match state.get(_name(kind)):
        case {"ended_at": str(ended_at), "problem": None | str() as problem, "is_told": bool(is_told)}:
            return RunEnd(datetime.fromisoformat(ended_at), problem, is_told)
    return None


def keep_run_end(state: State, kind: RunKind, end: RunEnd) -> None:
    """Remember how a run ended."""
    values: dict[str, JsonValue] = {
        "ended_at": end.ended_at.isoformat(),
        "problem": end.problem,
        "is_told": end.is_told,
    }
    state.set(_name(kind), values)


def _name(kind: RunKind) -> str:
    return f"run_end {kind.value}"
