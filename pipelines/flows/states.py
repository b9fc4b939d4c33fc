"""How flows end: names and states of runs, and the error of a run that left something undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Failed

from transforms.errors import CallHistoryError

TAG = "callhistory"
INCOMPLETE = "Incomplete"


class IncompleteRunError(CallHistoryError):
    """A flow run that did what it could and left something undone; ``summary`` is what a complete run returns."""

    def __init__(self, message: str, summary: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.summary = dict(summary)


def failed(error: CallHistoryError) -> State[Any]:
    """Return the state that stands for an error: raised, it would be logged with its traceback and stored."""
    return Failed(name=INCOMPLETE if isinstance(error, IncompleteRunError) else None, message=str(error), data=error)


def named(what: str) -> Callable[[], str]:
    """Return what names a flow run: ``what`` it does, and the minute."""
    return lambda: f"{what} {datetime.now(UTC):%Y-%m-%dT%H:%MZ}"
