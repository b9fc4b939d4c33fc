"""The queries of the report against sums in plain Python, on every database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.report.queries import QUERIES, printed_queries
from sinks.warehouse import Warehouse
from tests.contract.marts.comparison import assert_equal
from tests.contract.marts.history import EMPTY_DAY, FIRST, LEDGER, LONELY_DAY
from tests.contract.marts.reference import Reference, Row

RANGE = (FIRST + timedelta(days=5), FIRST + timedelta(days=20))
"""Over a day without calls and one with a single call; before it and after it are others."""
GRAIN = {
    "summary": (),
    "customers": (),
    "days": ("call_date",),
    "hours": ("call_hour",),
    "weekday_hours": ("weekday", "call_hour"),
    "agents": ("agent_id",),
    "numbers": ("stringee_number",),
    "campaigns": ("campaign_name",),
    "recovery": (),
    "to_recover": ("customer_number_e164",),
    "repeat_calls": (),
    "repeat_callers": ("customer_number_e164",),
    "resolution": (),
    "concurrency": ("call_date",),
    "recordings": ("status",),
    "parameters": ("name",),
}


def expected(reference: Reference) -> dict[str, list[Row]]:
    views = {name: list(filter(in_range, rows)) for name, rows in reference.views().items() if name != "agents"}
    facts = list(filter(in_range, reference.facts))
    recovery, repeats = views["missed_call_recovery"], views["repeat_calls"]
    recovered = [row["recovery_seconds"] for row in recovery if row["recovered"]]
    days = views["first_contact_resolution"]
    sums = {name: sum(day[name] for day in days) for name in ("answered_calls", "followed_up", "resolved")}
    return {
        "summary": [reference.metrics(facts)],
        "customers": [{"customers": len({f["customer_number_e164"] for f in facts if f["inbound"]} - {None})}],
        "days": views["daily_metrics"],
        "hours": by(facts, ("call_hour",), reference.metrics),
        "weekday_hours": by(
            [{"weekday": f["call_date"].isoweekday(), **f} for f in facts], ("weekday", "call_hour"), reference.metrics
        ),
        "agents": by([f for f in facts if f["agent_id"] is not None], ("agent_id",), agent),
        "numbers": by(facts, ("stringee_number",), reference.metrics),
        "campaigns": by([f for f in facts if f["campaign_name"] is not None], ("campaign_name",), reference.metrics),
        "recovery": [
            {
                "missed_calls": len(recovery),
                "recovered": len(recovered),
                "called_back": sum(row["callback_attempts"] > 0 for row in recovery),
                "recovery_seconds": sum(recovered),
                "recovery_rate": len(recovered) / len(recovery),
                "average_recovery_seconds": sum(recovered) / len(recovered),
            }
        ],
        "to_recover": reference.views()["missed_calls_to_recover"],
        "repeat_calls": [
            {"repeat_calls": len(repeats), "repeat_customers": len({row["customer_number_e164"] for row in repeats})}
        ],
        "repeat_callers": by(
            repeats,
            ("customer_number_e164",),
            lambda rows: {"repeat_calls": len(rows), "last_call_date": max(row["call_date"] for row in rows)},
        ),
        "resolution": [
            {
                **sums,
                "young_days": sum(not day["is_mature"] for day in days),
                "resolution_rate": sums["resolved"] / sums["answered_calls"],
            }
        ],
        "concurrency": views["concurrency_daily"],
        "recordings": [{"status": "archived", "recordings": 2}, {"status": "missing", "recordings": 1}],
        "parameters": [{"name": name, "value": value} for name, value in reference.parameters.items()],
    }


def in_range(row: Row) -> bool:
    day: date | None = row.get("call_date")
    return day is None or RANGE[0] <= day <= RANGE[1]


def by(rows: Iterable[Row], grain: tuple[str, ...], summed: Callable[[list[Row]], Row]) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in grain), []).append(row)
    return [dict(zip(grain, key, strict=True)) | summed(group) for key, group in groups.items()]


def agent(facts: list[Row]) -> Row:
    done = [fact for fact in facts if fact["status"] == "answered"]
    named = [fact for fact in facts if fact["agent_name"] is not None]
    sums = {
        f"{what}_seconds": sum(f[f"{what}_seconds"] or 0 for f in done) for what in ("talk", "hold", "acw", "handle")
    }
    return {
        "agent_name": named[-1]["agent_name"] if named else None,
        "calls": len(facts),
        **{
            name: sum(fact[name] for fact in facts)
            for name in ("answered", "missed", "outbound", "outbound_answered", "internal")
        },
        "all_answered": len(done),
        **sums,
        "aht_seconds": sums["handle_seconds"] / len(done) if done else None,
    }


def rows_of(warehouse: Warehouse, name: str, first: date, last: date) -> list[Row]:
    query = QUERIES[name].select(warehouse.relations())
    with warehouse.reading() as connection:
        result = connection.execute(query, {"first_date": first, "last_date": last})
        return [dict(row) for row in result.mappings()]


def add_recordings(warehouse: Warehouse, calls: list[Row]) -> None:
    """Recordings of three calls in the range, and of one before it."""
    recordings = warehouse.tables["recordings"]
    inside = [call["call_id"] for call in calls if in_range(call)][:3]
    outside = next(call["call_id"] for call in calls if not in_range(call))
    statuses = zip([*inside, outside], ["archived", "archived", "missing", "archived"], strict=True)
    with warehouse.transaction() as connection:
        for call_id, status in statuses:
            values = {"call_id": call_id, "status": status, "attempts": 1, "legal_hold": False, "call_date": FIRST}
            known = {name: value for name, value in values.items() if name in recordings.c}
            connection.execute(sa.insert(recordings).values(known))


def test_every_query_sums_what_it_says(filled: Warehouse, calls: list[Row], parameters: dict[str, int]) -> None:
    add_recordings(filled, calls)
    wanted = expected(Reference(calls, LEDGER, parameters))
    assert wanted.keys() == GRAIN.keys() == QUERIES.keys()
    for name, rows in wanted.items():
        assert_equal(rows_of(filled, name, *RANGE), rows, GRAIN[name])


def test_the_busiest_and_the_newest_come_first(filled: Warehouse) -> None:
    for name, by_what in (("agents", "calls"), ("numbers", "calls"), ("campaigns", "calls")):
        shown = [row[by_what] for row in rows_of(filled, name, *RANGE)]
        assert shown == sorted(shown, reverse=True)
        assert len(shown) > 1
    repeats = [row["repeat_calls"] for row in rows_of(filled, "repeat_callers", *RANGE)]
    assert repeats == sorted(repeats, reverse=True)
    missed = [str(row["last_missed_at"]) for row in rows_of(filled, "to_recover", *RANGE)]
    assert missed == sorted(missed, reverse=True)


@pytest.mark.parametrize("parameters", ["defaults"], indirect=True)
@pytest.mark.parametrize("day", [EMPTY_DAY, LONELY_DAY])
def test_a_day_without_calls_and_one_with_one_are_summed_too(filled: Warehouse, day: date) -> None:
    found = {name: rows_of(filled, name, day, day) for name in QUERIES}
    calls = 0 if day == EMPTY_DAY else 1
    assert found["summary"][0]["calls"] == calls
    assert [row["calls"] for row in found["days"]] == [calls]
    assert sum(row["calls"] for row in found["hours"]) == calls
    if day == EMPTY_DAY:
        assert found["recovery"][0] == {
            **dict.fromkeys(("missed_calls", "recovered", "called_back", "recovery_seconds"), 0),
            "recovery_rate": None,
            "average_recovery_seconds": None,
        }
        assert found["resolution"][0]["resolution_rate"] is None


@pytest.mark.parametrize("parameters", ["defaults"], indirect=True)
@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_the_dictionary_prints_the_query_that_is_run(filled: Warehouse) -> None:
    dates = {"first_date": RANGE[0], "last_date": RANGE[1]}
    assert [query.name for query in printed_queries()] == list(QUERIES)
    for query in printed_queries():
        with filled.reading() as connection:
            used = {name: day for name, day in dates.items() if f":{name}" in query.sql}
            found = [dict(row) for row in connection.execute(sa.text(query.sql), used).mappings()]
        assert found == rows_of(filled, query.name, *RANGE), query.name
