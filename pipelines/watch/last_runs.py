"""How runs of each kind end: what is wrong with one, and how the last one ended, kept in the warehouse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sinks.state import State
from transforms.json_text import JsonValue


class RunKind(StrEnum):
    """The kinds of runs whose end is kept."""

    EXPORT = "export"
    EXPORT_RECENT = "export_recent"
    BACKFILL = "backfill"
    ARCHIVE = "archive"
    VERIFY = "verify"
    REPORT = "report"

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


def problem_of(kind: RunKind, summary: Mapping[str, Any]) -> str | None:
    """Return in a line what a run of that kind has left undone, or found wrong; null when nothing."""
    match kind:
        case RunKind.VERIFY:
            wrong = sum(not day["ok"] for day in summary["days"])
            return f"{wrong} of {len(summary['days'])} local days differ" if wrong else None
        case RunKind.REPORT:
            return "the report is written, but could be sent to nobody" if summary["sent"] is False else None
        case RunKind.ARCHIVE:
            if summary["complete"]:
                return None
            return f"{summary['missing']} recordings missing, {summary['recordings']['failed']} failed"
    windows = summary["windows"]
    problems = {
        "failed": "failed; they are due again",
        "held": "are held: nothing of them was published, callhistory status says why and what to do",
        "disputed": "are disputed: what was served is published, and they are due again",
        "claimed_elsewhere": "are left to another run, still at work",
    }
    found = [f"{windows[o]} of {sum(windows.values())} windows {what}" for o, what in problems.items() if windows[o]]
    return ", and ".join(found) or None


def lasts(kind: RunKind, summary: Mapping[str, Any]) -> bool:
    """Return whether what is wrong with a run is so until a run ends well, and not told once and over with the telling.

    A recording that has turned out to be missing stays missing: the next run can neither mend it nor say more.
    """
    return kind is not RunKind.ARCHIVE or bool(summary["recordings"]["failed"])


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
