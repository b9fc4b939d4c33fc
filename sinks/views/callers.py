"""The views of customers who call again: repeat callers, and first-contact resolution."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sinks.views.aggregates import CALL_DATE
from sinks.views.declaration import Relations, View, is_so, parameter_value, total, whole
from sinks.views.portable import by_bytes, days_before, epoch_ms, thousandth
from transforms.schema import CALLS

DAY_MS, HOUR_MS = 86_400_000, 3_600_000


def follows_within(
    later: sa.FromClause, earlier: sa.FromClause, milliseconds: sa.ColumnElement[int]
) -> sa.ColumnElement[bool]:
    """Whether ``later`` is a call with the same number that began after ``earlier``, and at most so long after it."""
    return sa.and_(
        later.c.customer_number_e164 == earlier.c.customer_number_e164,
        later.c.started_at > earlier.c.started_at,
        epoch_ms(later.c.started_at) - epoch_ms(earlier.c.started_at) <= milliseconds,
    )


def whole_seconds_between(earlier: sa.ColumnElement[Any], later: sa.ColumnElement[Any]) -> sa.ColumnElement[int]:
    """Return the whole seconds from one instant to another; what is smaller is cut off."""
    return thousandth((epoch_ms(later) - epoch_ms(earlier)).self_group())


def repeat_calls(relations: Relations) -> View:
    """Return the view with a row for each inbound call whose number had called in shortly before."""
    facts = relations["call_facts"]
    call, other, twin, before = (facts.alias(name) for name in ("c", "o", "t", "p"))
    names = ("call_id", "call_date", "started_at", "customer_number_e164", "agent_id")
    milliseconds = parameter_value(relations, "repeat_days") * DAY_MS
    # Joined and grouped, by the day too: a condition on it reaches the calls, and no database compares each with all.
    nearest = (
        sa.select(*(call.c[name] for name in names), sa.func.max(other.c.started_at).label("previous_started_at"))
        .select_from(call.join(other, sa.and_(other.c.inbound == 1, follows_within(call, other, milliseconds))))
        .where(call.c.inbound == 1)
        .group_by(*(call.c[name] for name in names))
        .subquery("nearest")
    )
    at_that_start = sa.and_(
        twin.c.inbound == 1,
        twin.c.customer_number_e164 == nearest.c.customer_number_e164,
        twin.c.started_at == nearest.c.previous_started_at,
    )
    found = (
        sa.select(*nearest.c, sa.func.max(by_bytes(twin.c.call_id)).label("previous_call_id"))
        .select_from(nearest.join(twin, at_that_start))
        .group_by(*nearest.c)
        .subquery("found")
    )
    values = {
        **{name: found.c[name] for name in names},
        "previous_call_id": found.c.previous_call_id,
        "previous_started_at": found.c.previous_started_at,
        "previous_status": before.c.status,
        "seconds_since_previous": whole_seconds_between(found.c.previous_started_at, found.c.started_at),
    }
    query = sa.select(*(column.label(name) for name, column in values.items())).select_from(
        found.join(before, before.c.call_id == found.c.previous_call_id)
    )
    columns = {
        **{name: CALLS[name].description for name in list(values)[:5]},
        "previous_call_id": "The nearest inbound call of the number before this one.",
        "previous_started_at": "When that one started.",
        "previous_status": "Its status.",
        "seconds_since_previous": "From its start to this one's.",
    }
    description = "Inbound calls whose number had called in within repeat_days before."
    return View("repeat_calls", description, query, columns)


def first_contact_resolution(relations: Relations) -> View:
    """Return the view with a row for each day that has answered inbound calls of known numbers."""
    facts = relations["call_facts"]
    call, later, any_call = facts.alias("c"), facts.alias("l"), facts.alias("a")
    milliseconds = parameter_value(relations, "fcr_days") * DAY_MS
    again = sa.exists().where(later.c.inbound == 1, follows_within(later, call, milliseconds)).correlate(call)
    rows = (
        sa.select(call.c.call_date, sa.case((again, 1), else_=0).label("is_followed_up"))
        .where(call.c.answered == 1, call.c.customer_number_e164.is_not(None))
        .subquery("answered_rows")
    )
    counted = (
        sa.select(
            rows.c.call_date,
            whole(sa.func.count()).label("answered_calls"),
            total(rows.c.is_followed_up).label("followed_up"),
        )
        .group_by(rows.c.call_date)
        .subquery("counted")
    )
    newest = sa.select(sa.func.max(any_call.c.call_date)).scalar_subquery()
    resolved = counted.c.answered_calls - counted.c.followed_up
    values = {
        "call_date": counted.c.call_date,
        "answered_calls": counted.c.answered_calls,
        "followed_up": counted.c.followed_up,
        "resolved": resolved,
        "resolution_rate": sa.cast(resolved, sa.Double)
        / sa.func.nullif(sa.cast(counted.c.answered_calls, sa.Double), 0),
        "is_mature": is_so(counted.c.call_date < days_before(newest, parameter_value(relations, "fcr_days"))),
    }
    columns = {
        "call_date": CALL_DATE,
        "answered_calls": "Answered inbound calls of known numbers.",
        "followed_up": "Those after which the number called in again within fcr_days.",
        "resolved": "The others.",
        "resolution_rate": "resolved / answered_calls. A proxy: it does not say whether the customer was content.",
        "is_mature": "Whether the newest local day is more than fcr_days later, so that the figures stay.",
    }
    query = sa.select(*(column.label(name) for name, column in values.items()))
    description = "First-contact resolution (proxy): answered callers who did not call in again, by local day."
    return View("first_contact_resolution", description, query, columns)
