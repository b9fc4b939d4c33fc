"""The views of agents: each one's day, and all of them."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.aggregates import CALL_DATE
from sinks.views.declaration import Relations, View, total, whole
from sinks.views.portable import by_bytes
from transforms.schema import CALLS

_NAMES = ("agent_name", "agent_email")
_AGENT_ID = CALLS["agent_id"].description
_DAY_COLUMNS = {
    "call_date": CALL_DATE,
    "agent_id": _AGENT_ID,
    "agent_name": "The agent's name, in the day's last call that has one.",
    "agent_email": "The agent's e-mail address, in the day's last call that has one.",
    "calls": "Calls of any direction.",
    "answered": "Inbound calls that were answered.",
    "missed": "Inbound calls that were missed, where the portal names an agent.",
    "outbound": "Calls to outside.",
    "outbound_answered": "Outbound calls that were answered.",
    "internal": "Calls between agents.",
    "talk_seconds": "Talk time of all answered calls.",
    "hold_seconds": "Hold time of all answered calls.",
    "acw_seconds": "After-call work of all answered calls.",
    "handle_seconds": "Handle time of all answered calls.",
    "aht_seconds": "Average handle time: handle_seconds / calls that were answered; null where there is none.",
    "longest_talk_seconds": "Longest talk time of an answered call; null where there is none.",
}
_COLUMNS = {
    "agent_id": _AGENT_ID,
    "agent_name": "The agent's name, in the last call that has one.",
    "agent_email": "The agent's e-mail address, in the last call that has one.",
    "first_call_date": "Local day of the first call.",
    "last_call_date": "Local day of the last call.",
    "calls": "Calls of any direction.",
}


def _with_last_names(facts: sa.FromClause, *grain: str) -> sa.Subquery:
    """Return the calls of agents, each with the names that the last call of its group has."""

    def last(name: str) -> sa.ColumnElement[str]:
        order = [sa.case((facts.c[name].is_(None), 1), else_=0), facts.c.started_at.desc()]
        return sa.func.first_value(facts.c[name]).over(
            partition_by=[facts.c[column] for column in grain], order_by=[*order, by_bytes(facts.c.call_id).desc()]
        )

    others = [column for column in facts.c if column.name not in _NAMES]
    names = [last(name).label(name) for name in _NAMES]
    return sa.select(*others, *names).where(facts.c.agent_id.is_not(None)).subquery("call_rows")


def agent_daily(relations: Relations) -> View:
    """Return the view with a row for each day and agent."""
    rows = _with_last_names(relations["call_facts"], "call_date", "agent_id")
    is_answered = rows.c.status == "answered"

    def of_answered(name: str) -> sa.ColumnElement[int]:
        return total(sa.case((is_answered, rows.c[name]), else_=0))

    answered_calls = total(sa.case((is_answered, 1), else_=0))
    handle_seconds = of_answered("handle_seconds")
    values = {
        "call_date": rows.c.call_date,
        "agent_id": rows.c.agent_id,
        **{name: sa.func.max(rows.c[name]) for name in _NAMES},
        "calls": whole(sa.func.count()),
        **{name: total(rows.c[name]) for name in ("answered", "missed", "outbound", "outbound_answered", "internal")},
        **{name: of_answered(name) for name in ("talk_seconds", "hold_seconds", "acw_seconds")},
        "handle_seconds": handle_seconds,
        "aht_seconds": sa.cast(handle_seconds, sa.Double) / sa.func.nullif(sa.cast(answered_calls, sa.Double), 0),
        "longest_talk_seconds": sa.func.max(sa.case((is_answered, rows.c.talk_seconds))),
    }
    query = sa.select(*(values[name].label(name) for name in _DAY_COLUMNS)).group_by(rows.c.call_date, rows.c.agent_id)
    return View("agent_daily", "What each agent did on each local day.", query, _DAY_COLUMNS)


def agents(relations: Relations) -> View:
    """Return the view with a row for each agent."""
    rows = _with_last_names(relations["call_facts"], "agent_id")
    values = {
        "agent_id": rows.c.agent_id,
        **{name: sa.func.max(rows.c[name]) for name in _NAMES},
        "first_call_date": sa.func.min(rows.c.call_date),
        "last_call_date": sa.func.max(rows.c.call_date),
        "calls": whole(sa.func.count()),
    }
    query = sa.select(*(values[name].label(name) for name in _COLUMNS)).group_by(rows.c.agent_id)
    return View("agents", "Each agent that a call names.", query, _COLUMNS)
