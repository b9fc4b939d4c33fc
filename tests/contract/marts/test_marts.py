"""The marts against an independent implementation, on every database, under two sets of parameters."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from sinks.warehouse import Warehouse
from tests.contract.marts.comparison import assert_equal, read
from tests.contract.marts.history import EMPTY_DAY, FIRST, LEDGER, LONELY_DAY
from tests.contract.marts.reference import FLAGS, Reference, Row

GRAIN = {
    "dates": ("call_date",),
    "daily_metrics": ("call_date",),
    "hourly_metrics": ("call_date", "call_hour"),
    "interval_metrics": ("interval_start_local", "call_date"),
    "number_daily": ("call_date", "stringee_number"),
    "campaign_daily": ("call_date", "campaign_name"),
    "agent_daily": ("call_date", "agent_id"),
    "agents": ("agent_id",),
    "repeat_calls": ("call_id",),
    "missed_call_recovery": ("call_id",),
    "missed_calls_to_recover": ("customer_number_e164",),
    "first_contact_resolution": ("call_date",),
    "concurrency_daily": ("call_date",),
}


def test_every_view_is_what_its_definition_says(
    filled: Warehouse, calls: list[Row], parameters: dict[str, int]
) -> None:
    reference = Reference(calls, LEDGER, parameters)
    views = reference.views()
    assert views.keys() == GRAIN.keys()
    for name, wanted in views.items():
        assert_equal(read(filled, name), wanted, GRAIN[name])
    facts = {row["call_id"]: row for row in read(filled, "call_facts")}
    assert len(facts) == len(calls)
    for fact in reference.facts:
        assert {name: facts[fact["call_id"]][name] for name in (*FLAGS, "handle_seconds")} == {
            name: fact[name] for name in (*FLAGS, "handle_seconds")
        }


@pytest.mark.parametrize("parameters", ["defaults"], indirect=True)
def test_the_history_has_every_kind_of_call_and_of_day(calls: list[Row], parameters: dict[str, int]) -> None:
    """Else the test above would prove less than it says."""
    reference = Reference(calls, LEDGER, parameters)
    views = reference.views()
    for flag in FLAGS:
        assert {fact[flag] for fact in reference.facts} == {0, 1}, flag
    by_day = {row["call_date"]: row for row in views["daily_metrics"]}
    assert (by_day[EMPTY_DAY]["calls"], by_day[LONELY_DAY]["calls"]) == (0, 1)
    assert by_day[FIRST]["calls"] > 30
    assert {row["recovered"] for row in views["missed_call_recovery"]} == {0, 1}
    assert {row["is_mature"] for row in views["first_contact_resolution"]} == {True, False}
    assert len(views["missed_calls_to_recover"]) > 10
    assert len(views["repeat_calls"]) > 50
    for row in views["daily_metrics"]:
        assert row["calls"] == row["inbound"] + row["outbound"] + row["internal"] + row["unknown_direction"]
        assert row["offered"] == row["answered"] + row["missed"] + row["offered_other"]


def test_an_empty_warehouse_has_empty_views(warehouse: Warehouse) -> None:
    assert {name: read(warehouse, name) for name in GRAIN} == {name: [] for name in GRAIN}


@pytest.mark.parametrize("warehouse_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "view", ["agent_daily", "agents", "repeat_calls", "missed_call_recovery", "missed_calls_to_recover"]
)
def test_ids_are_compared_by_their_bytes_whatever_the_database_sorts_by(warehouse: Warehouse, view: str) -> None:
    """The servers that tests can start sort so anyway: so it is the definition that is looked at."""
    with warehouse.reading() as connection:
        definition = connection.scalar(sa.text("SELECT pg_get_viewdef(CAST(:view AS regclass))"), {"view": view})
    assert 'COLLATE "C"' in definition
