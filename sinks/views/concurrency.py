"""``concurrency_daily``: the most calls that were in progress at once, by local day."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.aggregates import CALL_DATE
from sinks.views.declaration import Relations, View, whole
from sinks.views.portable import epoch_ms

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
    started_ms = epoch_ms(facts.c.started_at)
    ended_ms = sa.case(
        (facts.c.ended_at.is_not(None), epoch_ms(facts.c.ended_at)),
        (
            facts.c.duration_seconds.is_not(None),
            started_ms + facts.c.duration_seconds * sa.literal(1000, sa.BigInteger),
        ),
        else_=started_ms,
    )
    calls = sa.select(
        facts.c.call_date, facts.c.started_at, started_ms.label("started_ms"), ended_ms.label("ended_ms")
    ).cte("spans")
    lasting = calls.c.ended_ms > calls.c.started_ms
    days = (
        sa.select(calls.c.call_date, sa.func.min(calls.c.started_ms).label("first_ms"))
        .group_by(calls.c.call_date)
        .cte("days")
    )
    next_days = sa.select(
        days.c.call_date, sa.func.lead(days.c.first_ms).over(order_by=days.c.call_date).label("next_first_ms")
    ).cte("next_days")
    crossing = (
        sa.select(calls)
        .join(next_days, next_days.c.call_date == calls.c.call_date)
        .where(calls.c.ended_ms > next_days.c.next_first_ms)
        .cte("crossing")
    )
    carried = (
        sa.select(days.c.call_date, crossing.c.started_ms, crossing.c.ended_ms)
        .join(crossing, sa.and_(crossing.c.call_date < days.c.call_date, crossing.c.ended_ms > days.c.first_ms))
        .cte("carried")
    )
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
        sa.select(carried.c.call_date, carried.c.started_ms, sa.literal(1), sa.literal(0), no_instant),
        sa.select(carried.c.call_date, carried.c.ended_ms, sa.literal(-1), sa.literal(0), no_instant),
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
