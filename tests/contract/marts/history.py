"""Thirty days of every kind of call, in a warehouse, for the tests of the marts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import sqlalchemy as sa

from sinks.metric_parameters import keep_metric_parameters
from sinks.warehouse import Warehouse
from tests.contract.marts.reference import DEFAULTS, Row
from tests.contract.windows import call, publish

ZONE = ZoneInfo("Europe/Berlin")
"""Its summer time begins on 31 March 2024, within the days; so is the end of a month."""
FIRST = date(2024, 3, 15)
DAYS = 30
EMPTY_DAY, LONELY_DAY = FIRST + timedelta(days=15), FIRST + timedelta(days=16)
CALLS_PER_DAY = 35

MILLISECOND, HOUR, DAY = timedelta(milliseconds=1), timedelta(hours=1), timedelta(days=1)


def midnight(day: date) -> datetime:
    """The instant at which a local day begins."""
    return datetime(day.year, day.month, day.day, tzinfo=ZONE).astimezone(UTC)


def a_call(call_id: str, started_at: datetime, **values: Any) -> Row:
    """A call as the export would stage it, with its local day, hour and wall clock."""
    local = started_at.astimezone(ZONE).replace(tzinfo=None)
    of_start = {"call_date": local.date(), "call_hour": local.hour, "started_at_local": local}
    return call(call_id, started_at, **{**of_start, **values})


def any_call(rng: random.Random, call_id: str, started_at: datetime, **values: Any) -> Row:
    """A call of any kind: each value that may be null is, at times."""

    def maybe(*choices: Any) -> Any:
        return rng.choice([None, *choices])

    duration = maybe(0, 1, 45, 600, 3_600)
    number = rng.choice([None, *(f"+8490000{n:04d}" for n in range(60))])
    agent = maybe("agent-1", "agent-2", "Agent-2", "agent-10")
    made = {
        "direction": rng.choice(["inbound"] * 5 + ["outbound"] * 3 + ["internal", "unknown"]),
        "status": rng.choice(
            ["answered"] * 4 + ["missed"] * 4 + ["stopped_at_ivr", "stopped_at_survey_ivr", "unknown"]
        ),
        "ended_at": rng.choice([None, started_at, started_at + timedelta(seconds=rng.choice([1, 90, 5_000]))]),
        "duration_seconds": duration,
        "queue_seconds": maybe(0, 1, 4, 5, 19, 20, 21, 60),
        "talk_seconds": maybe(0, 30, 61, 600),
        "hold_seconds": maybe(0, 7, 100),
        "acw_seconds": maybe(0, 15, 90),
        "customer_number": number,
        "customer_number_e164": number,
        "contact_name": maybe("Nguyễn Thị Ánh", "Lê Văn Ba"),
        "stringee_number": maybe("+842471000001", "user_2"),
        "campaign_name": maybe("Tết", "tết"),
        "agent_id": agent,
        "agent_name": agent and maybe(f"Name of {agent}", f"New name of {agent}"),
        "agent_email": agent and maybe(f"{agent}@example.com"),
        "has_voicemail": maybe(True, False),
        "is_recorded": maybe(True, False),
    }
    return a_call(call_id, started_at, **{**made, **values})


def history(seed: int = 7) -> list[Row]:
    """All calls: random ones, and the edges of every span of time that a definition names."""
    rng = random.Random(seed)
    calls: list[Row] = []

    def add(started_at: datetime, **values: Any) -> None:
        calls.append(any_call(rng, f"call-{len(calls):04d}", started_at, **values))

    for day in (FIRST + timedelta(days=n) for n in range(DAYS)):
        start, end = midnight(day), midnight(day + DAY)
        if day == EMPTY_DAY:
            continue
        for _ in range(1 if day == LONELY_DAY else CALLS_PER_DAY):
            add(start + rng.random() * (end - start) // MILLISECOND * MILLISECOND)
        if day != LONELY_DAY:
            add(start)
            add(end - MILLISECOND, ended_at=end + 2 * HOUR)
    # Ends after many midnights, and after a day without calls.
    add(midnight(EMPTY_DAY - DAY) + HOUR, ended_at=midnight(EMPTY_DAY) + 3 * DAY)
    for number, span in enumerate((20 * HOUR, 24 * HOUR, 7 * DAY, 3 * DAY)):
        for step, off in enumerate((-MILLISECOND, timedelta(0), MILLISECOND)):
            at = midnight(FIRST + 2 * DAY) + timedelta(hours=9, minutes=number)
            who = {"customer_number_e164": f"+849100{number}{step:03d}"}
            add(at, direction="inbound", status="missed", queue_seconds=9, **who)
            add(at, direction="inbound", status="answered", **who)
            add(at + span + off, direction=("inbound", "outbound")[step % 2], status="answered", **who)
            add(at + span + off, direction="outbound", status="missed", **who)
    # Two calls of one number at one instant, before and after a third.
    twins = {"customer_number_e164": "+849199999", "direction": "inbound", "agent_id": "agent-1"}
    for hours, status in (
        (1, "missed"),
        (1, "answered"),
        (3, "missed"),
        (5, "answered"),
        (5, "answered"),
        (6, "missed"),
    ):
        add(midnight(FIRST + 20 * DAY) + hours * HOUR, status=status, contact_name=f"Twin {len(calls)}", **twins)
    return calls


LEDGER = {
    **{FIRST + timedelta(days=n): (n % 3 != 2, n % 3 == 0) for n in range(DAYS - 2)},
    FIRST - DAY: (True, True),
}
"""Days that the ledger has: whether each is complete, and settled. It lacks two with calls, and has one without."""


def fill(warehouse: Warehouse, calls: list[Row], parameters: Mapping[str, int] | None = None) -> None:
    """Publish the calls, and others that are deleted again; write a ledger of whole days, and the parameters."""
    gone = [a_call(f"gone-{n}", midnight(FIRST) + n * HOUR, customer_number_e164="+849000") for n in range(5)]
    window = (midnight(FIRST - DAY), midnight(FIRST + timedelta(days=DAYS + 1)))
    publish(warehouse, [*calls, *gone], window=window)
    publish(warehouse, calls, window=window)
    ledger = warehouse.tables["export_windows"]
    with warehouse.transaction() as connection:
        for day, (complete, settled) in LEDGER.items():
            row = dict.fromkeys(("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows"), 0)
            row |= {"window_start": midnight(day), "window_end": midnight(day + DAY), "call_date": day}
            row |= {"status": "complete" if complete else "failed", "completed_at": midnight(day + 2 * DAY)}
            row |= {"content_hash": "0", "warehouse_content_hash": "0", "late_changes": 0, "attempts": 1}
            connection.execute(sa.insert(ledger).values(row | {"settled": settled, "ends_day": True}))
    keep_metric_parameters(warehouse, {**DEFAULTS, **(parameters or {})})
