"""The views of missed calls: whether each was recovered, and the numbers that nobody has called back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from sinks.views.callers import HOUR_MS, follows_within, whole_seconds_between
from sinks.views.declaration import Relations, View, parameter_value, whole
from sinks.views.portable import by_bytes, days_before
from transforms.schema import CALLS

_OF_CALL = (
    "call_id",
    "call_date",
    "started_at",
    "started_at_local",
    "customer_number_e164",
    "contact_name",
    "stringee_number",
    "queue_seconds",
    "has_voicemail",
)


def _reached(row: sa.FromClause) -> sa.ColumnElement[bool]:
    """Whether the customer was spoken to: an answered call, inbound or outbound."""
    return sa.or_(row.c.answered == 1, row.c.outbound_answered == 1)


def missed_call_recovery(relations: Relations) -> View:
    """Return the view with a row for each missed inbound call of a known number."""
    facts = relations["call_facts"]
    missed, reached, twin, attempt = (facts.alias(name) for name in ("m", "r", "t", "o"))
    milliseconds = parameter_value(relations, "recovery_hours") * HOUR_MS
    recovered_at = (
        sa.select(sa.func.min(reached.c.started_at))
        .where(_reached(reached), follows_within(reached, missed, milliseconds))
        .correlate(missed)
        .scalar_subquery()
    )
    attempts = (
        sa.select(whole(sa.func.count()))
        .select_from(attempt)
        .where(attempt.c.outbound == 1, follows_within(attempt, missed, milliseconds))
        .correlate(missed)
        .scalar_subquery()
    )
    found = (
        sa.select(
            *(missed.c[name] for name in _OF_CALL),
            recovered_at.label("recovered_at"),
            attempts.label("callback_attempts"),
        )
        .where(missed.c.missed == 1, missed.c.customer_number_e164.is_not(None))
        .subquery("found")
    )
    recovered_by = (
        sa.select(sa.func.min(by_bytes(twin.c.call_id)))
        .where(
            _reached(twin),
            twin.c.customer_number_e164 == found.c.customer_number_e164,
            twin.c.started_at == found.c.recovered_at,
        )
        .correlate(found)
        .scalar_subquery()
    )
    values: dict[str, sa.ColumnElement[Any]] = {
        **{name: found.c[name] for name in _OF_CALL},
        "recovered": sa.case((found.c.recovered_at.is_not(None), 1), else_=0),
        "recovered_by_call_id": recovered_by,
        "recovered_at": found.c.recovered_at,
        "recovery_seconds": whole_seconds_between(found.c.started_at, found.c.recovered_at),
        "callback_attempts": found.c.callback_attempts,
    }
    columns = {
        **{name: CALLS[name].description for name in _OF_CALL},
        "recovered": "1 when an answered call with the number, in or out, began after it within recovery_hours, or 0.",
        "recovered_by_call_id": "The first such call.",
        "recovered_at": "When that one started.",
        "recovery_seconds": "From the missed call's start to its start.",
        "callback_attempts": "Outbound calls to the number that began after it, within recovery_hours.",
    }
    query = sa.select(*(column.label(name) for name, column in values.items()))
    return View("missed_call_recovery", "Missed inbound calls of known numbers, and what came of each.", query, columns)


def missed_calls_to_recover(relations: Relations) -> View:
    """Return the view with a row for each number that called in vain, and was not spoken to since."""
    facts = relations["call_facts"]
    missed, newest, reached, named, last, attempt = (facts.alias(name) for name in ("m", "n", "r", "k", "l", "o"))
    newest_date = sa.select(sa.func.max(newest.c.call_date)).scalar_subquery()
    first_date = days_before(newest_date, parameter_value(relations, "recovery_list_days"))
    number = missed.c.customer_number_e164
    waiting = (
        sa.select(
            number.label("number"),
            whole(sa.func.count()).label("missed_calls"),
            sa.func.min(missed.c.started_at).label("first_missed_at"),
            sa.func.max(missed.c.started_at).label("last_missed_at"),
        )
        .where(missed.c.missed == 1, number.is_not(None), missed.c.call_date > first_date)
        .group_by(number)
        .subquery("waiting")
    )
    w = waiting.c
    spoken_to = (
        sa.exists()
        .where(_reached(reached), reached.c.customer_number_e164 == w.number, reached.c.started_at > w.last_missed_at)
        .correlate(waiting)
    )
    contact_name = (
        sa.select(named.c.contact_name)
        .where(named.c.customer_number_e164 == w.number, named.c.contact_name.is_not(None))
        .order_by(named.c.started_at.desc(), by_bytes(named.c.call_id).desc())
        .limit(1)
        .correlate(waiting)
        .scalar_subquery()
    )

    def of_last_missed(name: str) -> sa.ScalarSelect[Any]:
        return (
            sa.select(last.c[name])
            .where(
                last.c.missed == 1,
                last.c.customer_number_e164 == w.number,
                last.c.started_at == w.last_missed_at,
            )
            .order_by(by_bytes(last.c.call_id).desc())
            .limit(1)
            .correlate(waiting)
            .scalar_subquery()
        )

    attempts = (
        sa.select(whole(sa.func.count()))
        .select_from(attempt)
        .where(
            attempt.c.outbound == 1,
            attempt.c.customer_number_e164 == w.number,
            attempt.c.started_at > w.first_missed_at,
        )
        .correlate(waiting)
        .scalar_subquery()
    )
    values: dict[str, sa.ColumnElement[Any]] = {
        "customer_number_e164": w.number,
        "contact_name": contact_name,
        "stringee_number": of_last_missed("stringee_number"),
        "missed_calls": w.missed_calls,
        "first_missed_at": w.first_missed_at,
        "last_missed_at": w.last_missed_at,
        "last_missed_at_local": of_last_missed("started_at_local"),
        "callback_attempts": attempts,
    }
    columns = {
        "customer_number_e164": CALLS["customer_number_e164"].description,
        "contact_name": "The customer's name, in the last call with the number that has one.",
        "stringee_number": "Our side's number in the last missed call.",
        "missed_calls": "Missed inbound calls of the last recovery_list_days days.",
        "first_missed_at": "When the first of these started.",
        "last_missed_at": "When the last of these started.",
        "last_missed_at_local": "The wall clock then.",
        "callback_attempts": "Outbound calls to the number, answered or not, that began after the first missed one.",
    }
    query = sa.select(*(column.label(name) for name, column in values.items())).where(~spoken_to)
    description = "A work list: numbers that called in vain lately, and that nobody has spoken to since."
    return View("missed_calls_to_recover", description, query, columns)
