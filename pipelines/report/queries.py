"""The queries that the report is made of: each of its figures is a value of one, and the dictionary prints them all.

They sum what the views count, and apply no rule of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from sinks.views import all_relations, views
from sinks.views.aggregates import with_ratios
from sinks.views.declaration import Relations, total, whole
from transforms.metrics import COUNTS
from transforms.schema import TABLES

FIRST_DATE, LAST_DATE = "first_date", "last_date"
"""The parameters of the queries: the first and the last local day, both included."""

_FIRST, _LAST = (sa.bindparam(name, type_=sa.Date()) for name in (FIRST_DATE, LAST_DATE))


@dataclass(frozen=True)
class ReportQuery:
    """A query over the views, and the question that it answers."""

    name: str
    question: str
    select: Callable[[Relations], sa.Select[Any]]


def _in_range(relation: sa.FromClause) -> sa.ColumnElement[bool]:
    return relation.c.call_date.between(_FIRST, _LAST)


def _summed(relation: sa.FromClause, *grain: str) -> sa.Select[Any]:
    """Return counts and ratios of the range by ``grain``: the counts are sums, each ratio is made of two of them."""
    sums = (total(relation.c[name]).label(name) for name in COUNTS)
    counted = sa.select(*(relation.c[name] for name in grain), *sums).where(_in_range(relation))
    summed = counted.group_by(*(relation.c[name] for name in grain)).subquery("summed")
    return with_ratios(grain, summed).order_by(*(summed.c[name] for name in grain))


def _summary(relations: Relations) -> sa.Select[Any]:
    return _summed(relations["daily_metrics"])


def _customers(relations: Relations) -> sa.Select[Any]:
    facts = relations["call_facts"]
    number = sa.func.count(sa.distinct(facts.c.customer_number_e164))
    return sa.select(whole(number).label("customers")).where(_in_range(facts), facts.c.inbound == 1)


def _days(relations: Relations) -> sa.Select[Any]:
    days = relations["daily_metrics"]
    return sa.select(*days.c).where(_in_range(days)).order_by(days.c.call_date)


def _hours(relations: Relations) -> sa.Select[Any]:
    return _summed(relations["hourly_metrics"], "call_hour")


def _weekday_hours(relations: Relations) -> sa.Select[Any]:
    return _summed(relations["hourly_metrics"], "weekday", "call_hour")


def _agents(relations: Relations) -> sa.Select[Any]:
    facts, days = relations["call_facts"], relations["agent_daily"]
    is_answered = facts.c.handle_seconds.is_not(None)
    counted = (
        sa.select(
            facts.c.agent_id,
            whole(sa.func.count()).label("calls"),
            *(
                total(facts.c[name]).label(name)
                for name in ("answered", "missed", "outbound", "outbound_answered", "internal")
            ),
            whole(sa.func.count(facts.c.handle_seconds)).label("all_answered"),
            *(
                total(sa.case((is_answered, facts.c[name]), else_=0)).label(name)
                for name in ("talk_seconds", "hold_seconds", "acw_seconds", "handle_seconds")
            ),
        )
        .where(_in_range(facts), facts.c.agent_id.is_not(None))
        .group_by(facts.c.agent_id)
        .subquery("counted")
    )
    last_named = (
        sa.select(days.c.agent_id, sa.func.max(days.c.call_date).label("call_date"))
        .where(_in_range(days), days.c.agent_name.is_not(None))
        .group_by(days.c.agent_id)
        .subquery("last_named")
    )
    on_that_day = sa.and_(days.c.agent_id == last_named.c.agent_id, days.c.call_date == last_named.c.call_date)
    names = (
        sa.select(days.c.agent_id, days.c.agent_name)
        .select_from(last_named.join(days, on_that_day))
        .subquery("agent_names")
    )
    own = [column for column in counted.c if column.name != "agent_id"]
    aht = sa.cast(counted.c.handle_seconds, sa.Double) / sa.func.nullif(sa.cast(counted.c.all_answered, sa.Double), 0)
    return (
        sa.select(counted.c.agent_id, names.c.agent_name, *own, aht.label("aht_seconds"))
        .select_from(counted.outerjoin(names, names.c.agent_id == counted.c.agent_id))
        .order_by(counted.c.calls.desc(), counted.c.agent_id)
    )


def _numbers(relations: Relations) -> sa.Select[Any]:
    return _most_calls_first(_summed(relations["number_daily"], "stringee_number"))


def _campaigns(relations: Relations) -> sa.Select[Any]:
    return _most_calls_first(_summed(relations["campaign_daily"], "campaign_name"))


def _most_calls_first(query: sa.Select[Any]) -> sa.Select[Any]:
    grain, calls = query.selected_columns[0], query.selected_columns["calls"]
    return query.order_by(None).order_by(calls.desc(), grain)


def _recovery(relations: Relations) -> sa.Select[Any]:
    recovery = relations["missed_call_recovery"]
    was_tried = sa.case((recovery.c.callback_attempts > 0, 1), else_=0)
    counted = (
        sa.select(
            whole(sa.func.count()).label("missed_calls"),
            total(recovery.c.recovered).label("recovered"),
            total(was_tried).label("called_back"),
            total(recovery.c.recovery_seconds).label("recovery_seconds"),
        )
        .where(_in_range(recovery))
        .subquery("counted")
    )
    c = counted.c
    return sa.select(
        *c,
        _ratio(c.recovered, c.missed_calls).label("recovery_rate"),
        _ratio(c.recovery_seconds, c.recovered).label("average_recovery_seconds"),
    )


def _to_recover(relations: Relations) -> sa.Select[Any]:
    numbers = relations["missed_calls_to_recover"]
    return sa.select(*numbers.c).order_by(numbers.c.last_missed_at.desc(), numbers.c.customer_number_e164)


def _repeat_calls(relations: Relations) -> sa.Select[Any]:
    repeats = relations["repeat_calls"]
    numbers = sa.func.count(sa.distinct(repeats.c.customer_number_e164))
    return sa.select(whole(sa.func.count()).label("repeat_calls"), whole(numbers).label("repeat_customers")).where(
        _in_range(repeats)
    )


def _repeat_callers(relations: Relations) -> sa.Select[Any]:
    repeats = relations["repeat_calls"]
    calls = whole(sa.func.count()).label("repeat_calls")
    latest = sa.func.max(repeats.c.call_date).label("last_call_date")
    return (
        sa.select(repeats.c.customer_number_e164, calls, latest)
        .where(_in_range(repeats))
        .group_by(repeats.c.customer_number_e164)
        .order_by(calls.desc(), latest.desc(), repeats.c.customer_number_e164)
    )


def _resolution(relations: Relations) -> sa.Select[Any]:
    days = relations["first_contact_resolution"]
    is_mature = days.c.is_mature.is_(sa.true())
    counted = (
        sa.select(
            *(total(days.c[name]).label(name) for name in ("answered_calls", "followed_up", "resolved")),
            total(sa.case((is_mature, 0), else_=1)).label("young_days"),
        )
        .where(_in_range(days))
        .subquery("counted")
    )
    c = counted.c
    return sa.select(*c, _ratio(c.resolved, c.answered_calls).label("resolution_rate"))


def _concurrency(relations: Relations) -> sa.Select[Any]:
    days = relations["concurrency_daily"]
    return sa.select(*days.c).where(_in_range(days)).order_by(days.c.call_date)


def _recordings(relations: Relations) -> sa.Select[Any]:
    calls, recordings = relations["calls"], relations["recordings"]
    return (
        sa.select(recordings.c.status, whole(sa.func.count()).label("recordings"))
        .select_from(recordings.join(calls, calls.c.call_id == recordings.c.call_id))
        .where(_in_range(calls), calls.c.deleted_at.is_(None))
        .group_by(recordings.c.status)
        .order_by(recordings.c.status)
    )


def _parameters(relations: Relations) -> sa.Select[Any]:
    parameters = relations["metric_parameters"]
    return sa.select(parameters.c.name, parameters.c.value).order_by(parameters.c.name)


def _ratio(numerator: sa.ColumnElement[Any], denominator: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.cast(numerator, sa.Double) / sa.func.nullif(sa.cast(denominator, sa.Double), 0)


QUERIES: Mapping[str, ReportQuery] = {
    query.name: query
    for query in (
        ReportQuery("summary", "All counts and ratios of the days together; each ratio is made of the sums.", _summary),
        ReportQuery("customers", "Different numbers that called in on these days.", _customers),
        ReportQuery("days", "Counts and ratios of each day, and whether it is proven complete.", _days),
        ReportQuery("hours", "Counts and ratios by local hour, of the days together.", _hours),
        ReportQuery("weekday_hours", "Counts and ratios by day of the week and local hour.", _weekday_hours),
        ReportQuery("agents", "What each agent did; the name is that of the last day that has one.", _agents),
        ReportQuery("numbers", "Counts and ratios of each number of ours, the busiest first.", _numbers),
        ReportQuery("campaigns", "Counts and ratios of each campaign, the busiest first.", _campaigns),
        ReportQuery(
            "recovery", "Missed calls of known numbers: how many were recovered, called back, and when.", _recovery
        ),
        ReportQuery(
            "to_recover",
            "Numbers that nobody spoke with since their last missed call, as of now.",
            _to_recover,
        ),
        ReportQuery("repeat_calls", "Calls of numbers that had called in shortly before.", _repeat_calls),
        ReportQuery("repeat_callers", "The numbers of those calls, the most frequent first.", _repeat_callers),
        ReportQuery(
            "resolution",
            "First-contact resolution (a proxy), and of how many days it may still change.",
            _resolution,
        ),
        ReportQuery("concurrency", "The most calls in progress at once, by day.", _concurrency),
        ReportQuery("recordings", "Recordings of the days' calls, by what has become of them.", _recordings),
        ReportQuery("parameters", "The numbers that the definitions depend on.", _parameters),
    )
}
"""Every query of the report, by its name."""


@dataclass(frozen=True)
class PrintedQuery:
    """A query as SQL that DuckDB and PostgreSQL read, with ``:first_date`` and ``:last_date`` in it."""

    name: str
    question: str
    sql: str


@cache
def printed_queries() -> tuple[PrintedQuery, ...]:
    """Return every query of the report, in order."""
    metadata = sa.MetaData()
    tables = {table.name: table.sql_table(metadata) for table in TABLES}
    relations = all_relations(tables, views(tables))
    return tuple(
        PrintedQuery(query.name, query.question, _printed(query.select(relations))) for query in QUERIES.values()
    )


def _printed(query: sa.Select[Any]) -> str:
    compiled = query.compile(dialect=postgresql.dialect(paramstyle="named"))  # type: ignore[no-untyped-call]
    numbers = {name: str(value) for name, value in compiled.params.items() if name not in (FIRST_DATE, LAST_DATE)}
    text = re.sub(r":(\w+)", lambda found: numbers.get(found[1], found[0]), str(compiled))
    return "\n".join(line.rstrip() for line in text.splitlines())
