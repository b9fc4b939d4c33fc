"""``concurrency_daily``: the most calls that were in progress at once, by local day."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.aggregates import CALL_DATE
from sinks.views.callers import DAY_MS, HOUR_MS
from sinks.views.declaration import Relations, View, whole
from sinks.views.portable import epoch_ms

_CLOCKS_MOVE_MS = 2 * HOUR_MS
"""As much as clocks are moved at once."""

COLUMNS = {
    "call_date": CALL_DATE,
    "peak_calls": "The most calls in progress at the instant at which one of the day's calls began, itself included.",
    "peak_at": "The first such instant.",
}


def view(relations: Relations) -> View:
    """Return the view with a row for each day that has calls.

    A call is in progress from its start to before its end. Each start of a day is a step up, each end
    a step down; they are summed in the order of time. A call that goes on into a later day is a step up in that day
    too, before all others.
    """
    facts = relations["call_facts"]
    calls, carried = _spans(facts), _carried(facts)
    lasting = calls.c.ended_ms > calls.c.started_ms
    no_instant = sa.cast(sa.null(), calls.c.started_at.type)
    steps = sa.union_all(
        sa.select(
            calls.c.call_date,
            calls.c.started_ms.label("at_ms"),
            sa.case((lasting, 1), else_=0).label("step"),
            # A call that ends as it begins is in progress at no instant, and yet counts itself.
            sa.case((lasting, 0), else_=1).label("itself"),
            calls.c.started_at,
        ),
        sa.select(calls.c.call_date, calls.c.ended_ms, sa.literal(-1), sa.literal(0), no_instant).where(lasting),
        sa.select(carried.c.call_date, carried.c.at_ms, carried.c.step, sa.literal(0), no_instant),
    ).subquery("steps")
    # Without a frame, all steps of one instant are summed before it is looked at.
    in_progress = sa.func.sum(steps.c.step).over(partition_by=steps.c.call_date, order_by=steps.c.at_ms)
    running = sa.select(
        steps.c.call_date, steps.c.started_at, (in_progress + steps.c.itself).label("in_progress")
    ).subquery("running")
    place = sa.func.row_number().over(
        partition_by=running.c.call_date, order_by=[running.c.in_progress.desc(), running.c.started_at]
    )
    ranked = sa.select(running, place.label("place")).where(running.c.started_at.is_not(None)).subquery("ranked")
    query = sa.select(
        ranked.c.call_date, whole(ranked.c.in_progress).label("peak_calls"), ranked.c.started_at.label("peak_at")
    ).where(ranked.c.place == 1)
    return View("concurrency_daily", "The most calls in progress at once, by local day.", query, COLUMNS)


def _spans(facts: sa.FromClause) -> sa.Subquery:
    """Return each call's day, start and end."""
    started_ms = epoch_ms(facts.c.started_at)
    ended_ms = sa.case(
        (facts.c.ended_at.is_not(None), epoch_ms(facts.c.ended_at)),
        (facts.c.duration_seconds.is_not(None), started_ms + whole(facts.c.duration_seconds) * 1000),
        else_=started_ms,
    )
    return sa.select(
        facts.c.call_date,
        facts.c.started_at,
        started_ms.label("started_ms"),
        ended_ms.label("ended_ms"),
        # The wall clock at the end; wrong by what the clocks were moved meanwhile.
        (epoch_ms(facts.c.started_at_local) + ended_ms - started_ms).label("ended_local_ms"),
    ).subquery("spans")


def _carried(facts: sa.FromClause) -> sa.Subquery:
    """Return a step up and a step down of each call that goes on into later days, for each such day.

    One that ends just before the day may be among them: it steps up and down before the day's first call.
    """
    days = sa.select(facts.c.call_date).distinct().subquery("days")
    spans = _spans(facts)
    lasts = spans.c.ended_local_ms + _CLOCKS_MOVE_MS
    crossing = sa.select(spans).where(lasts >= epoch_ms(spans.c.call_date) + DAY_MS).subquery("crossing")
    still_on = crossing.c.ended_local_ms + _CLOCKS_MOVE_MS >= epoch_ms(days.c.call_date)
    both = sa.union_all(sa.select(sa.literal(1).label("step")), sa.select(sa.literal(-1))).subquery("both")
    at_ms = sa.case((both.c.step == 1, crossing.c.started_ms), else_=crossing.c.ended_ms)
    return (
        sa.select(days.c.call_date, at_ms.label("at_ms"), both.c.step)
        .select_from(
            days.join(crossing, sa.and_(crossing.c.call_date < days.c.call_date, still_on)).join(both, sa.true())
        )
        .subquery("carried")
    )
