"""``dates``: the local days that there is anything to say of, and what a calendar says of them."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.declaration import Relations, View, is_so
from sinks.views.portable import iso_week, iso_year, weekday

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
COLUMNS = {
    "call_date": "The local day.",
    "weekday": "Day of the week, 1 (Monday) to 7.",
    "weekday_name": "Its English name.",
    "is_weekend": "Whether it is a Saturday or a Sunday.",
    "iso_year": "Year that its week belongs to, by ISO 8601.",
    "iso_week": "Week of that year, 1 to 53, by ISO 8601.",
    "year": "Year.",
    "quarter": "Quarter, 1 to 4.",
    "month": "Month, 1 to 12.",
    "day": "Day of the month.",
    "is_complete": "Whether the day is proven complete; false where the ledger does not have it.",
    "is_settled": "Whether it is complete, and will not be read again.",
}


def view(relations: Relations) -> View:
    """Return the view over the days of the ledger and of the calls."""
    facts, completeness = relations["call_facts"], relations["completeness"]
    days = sa.union(sa.select(facts.c.call_date), sa.select(completeness.c.call_date)).subquery("days")
    day = days.c.call_date
    of_week = sa.select(day, weekday(day).label("weekday"), sa.extract("month", day).label("month")).subquery("d")
    d = of_week.c
    values = {
        "call_date": d.call_date,
        "weekday": d.weekday,
        "weekday_name": sa.case(*((d.weekday == n, name) for n, name in enumerate(_WEEKDAYS, start=1))),
        "is_weekend": is_so(d.weekday >= 6),
        "iso_year": iso_year(d.call_date),
        "iso_week": iso_week(d.call_date),
        "year": sa.cast(sa.extract("year", d.call_date), sa.Integer),
        "quarter": sa.case((d.month <= 3, 1), (d.month <= 6, 2), (d.month <= 9, 3), else_=4),
        "month": sa.cast(d.month, sa.Integer),
        "day": sa.cast(sa.extract("day", d.call_date), sa.Integer),
        "is_complete": is_so(completeness.c.is_complete.is_(sa.true())),
        "is_settled": is_so(completeness.c.is_settled.is_(sa.true())),
    }
    query = sa.select(*(values[name].label(name) for name in COLUMNS)).select_from(
        of_week.outerjoin(completeness, completeness.c.call_date == d.call_date)
    )
    return View("dates", "Each local day that the ledger or a call has.", query, COLUMNS)
