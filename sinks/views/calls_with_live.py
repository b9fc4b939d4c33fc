"""``calls_with_live``: the history, and after it the calls that are in progress and not yet part of it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sinks.views.declaration import Relations, View
from transforms.schema import CALLS, LIVE_CALLS

IN_PROGRESS = "in_progress"


def view(relations: Relations) -> View:
    """Return the view over ``calls`` and ``live_calls``."""
    calls, live_calls = relations["calls"], relations["live_calls"]
    return View(
        "calls_with_live",
        "The calls of the history that were not deleted, and those in progress that are not yet part of it.",
        _query(calls, live_calls),
        {name: CALLS[name].description for name in CALLS.value_columns}
        | {
            "is_provisional": "Whether the call is in progress, and known from a snapshot only.",
            "snapshot_at": "When that snapshot was taken; null for a call of the history.",
        },
    )


def _query(calls: sa.FromClause, live_calls: sa.FromClause) -> sa.CompoundSelect[Any]:
    """Return the calls that were not deleted, and those of the newest snapshot, marked ``is_provisional``.

    A call in progress has the columns that its snapshot knows, the status ``in_progress``, and null for the rest;
    ``snapshot_at`` says how old that knowledge is. Once the call is in the history, only that row is shown.
    """
    names = CALLS.value_columns
    history = sa.select(
        *(calls.c[name] for name in names),
        sa.false().label("is_provisional"),
        sa.null().label("snapshot_at"),
    ).where(calls.c.deleted_at.is_(None))
    known = {name: live_calls.c[name] for name in names if name in LIVE_CALLS.column_names}
    known_or_null = {name: known.get(name, sa.null().label(name)) for name in names}
    in_history = sa.exists().where(calls.c.call_id == live_calls.c.call_id)
    in_progress = sa.select(
        *({**known_or_null, "status": sa.literal(IN_PROGRESS).label("status")}[name] for name in names),
        sa.true().label("is_provisional"),
        live_calls.c.snapshot_at,
    ).where(live_calls.c.superseded_at.is_(None), ~in_history)
    return sa.union_all(history, in_progress)
