"""``call_facts``: one row per call, and the only place where a rule is applied to a call."""

from __future__ import annotations

from functools import partial

import sqlalchemy as sa

from sinks.views.declaration import Relations, View, parameter_value
from transforms.metrics import FACTS, CallRow
from transforms.schema import CALLS

ONE_OR_ZERO = "1 or 0."
HANDLE_SECONDS = (
    "For an answered call of any direction: talk and after-call work (null as 0), and hold too where "
    "talk_includes_hold is 0; else null."
)


def view(relations: Relations) -> View:
    """Return the view over ``calls`` and ``metric_parameters``."""
    calls = relations["calls"]

    parameter = partial(parameter_value, relations)
    row = CallRow(dict(calls.c.items()), parameter)
    facts = [sa.case((fact.rule(row), 1), else_=0).label(fact.name) for fact in FACTS]
    hold = sa.case((parameter("talk_includes_hold") == 0, sa.func.coalesce(calls.c.hold_seconds, 0)), else_=0)
    handle = sa.func.coalesce(calls.c.talk_seconds, 0) + sa.func.coalesce(calls.c.acw_seconds, 0) + hold
    query = sa.select(
        *(calls.c[name] for name in CALLS.value_columns),
        *facts,
        sa.case((calls.c.status == "answered", handle)).label("handle_seconds"),
    ).where(calls.c.deleted_at.is_(None))
    columns = {name: CALLS[name].description for name in CALLS.value_columns}
    columns |= {fact.name: f"{ONE_OR_ZERO} {fact.description}" for fact in FACTS}
    description = "One row per call that was not deleted: what each call counts as, 0 or 1, to be summed."
    return View("call_facts", description, query, columns | {"handle_seconds": HANDLE_SECONDS})
