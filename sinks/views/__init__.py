"""The views of the warehouse, declared once for all databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import sqlalchemy as sa

from sinks.views import (
    agents,
    aggregates,
    call_facts,
    callers,
    calls_with_live,
    completeness,
    concurrency,
    dates,
    late_changes_by_age,
    missed_calls,
)
from sinks.views.declaration import Relations, View
from sinks.views.masked import MASKED, SUFFIX, masked_views

__all__ = ["MASKED_NAMES", "VIEWS", "View", "all_relations", "views"]

VIEWS: Mapping[str, Callable[[Relations], View]] = {
    "calls_with_live": calls_with_live.view,
    "completeness": completeness.view,
    "late_changes_by_age": late_changes_by_age.view,
    "call_facts": call_facts.view,
    "dates": dates.view,
    "daily_metrics": aggregates.daily_metrics,
    "hourly_metrics": aggregates.hourly_metrics,
    "interval_metrics": aggregates.interval_metrics,
    "number_daily": aggregates.number_daily,
    "campaign_daily": aggregates.campaign_daily,
    "agent_daily": agents.agent_daily,
    "agents": agents.agents,
    "repeat_calls": callers.repeat_calls,
    "missed_call_recovery": missed_calls.missed_call_recovery,
    "missed_calls_to_recover": missed_calls.missed_calls_to_recover,
    "first_contact_resolution": callers.first_contact_resolution,
    "concurrency_daily": concurrency.view,
}
"""What makes each view, by its name; one may select from those before it."""

MASKED_NAMES = tuple(name + SUFFIX for name in MASKED)
"""Further views, of a database that is a server: a file is read as a whole by whoever can open it."""


def views(tables: Mapping[str, sa.Table], schema: str | None = None, *, masked: bool = False) -> list[View]:
    """Return every view over the warehouse's ``tables``, which are in ``schema``, in the order to create them in.

    With ``masked``, those follow that a server has besides.
    """
    relations: dict[str, sa.FromClause] = dict(tables)
    declared = []
    for name, declare in VIEWS.items():
        view = declare(relations)
        relations[name] = view.relation(schema)
        declared.append(view)
    return declared + masked_views(relations, {view.name: view for view in declared}) if masked else declared


def all_relations(
    tables: Mapping[str, sa.Table], declared: Iterable[View], schema: str | None = None
) -> dict[str, sa.FromClause]:
    """Return every table and every view by its name, as something to select from."""
    return {**tables, **{view.name: view.relation(schema) for view in declared}}
