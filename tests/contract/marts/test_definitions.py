"""Each metric by a case that can be computed by hand: what the dictionary says, shown with two or three calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from sinks.metric_parameters import keep_metric_parameters
from sinks.warehouse import Warehouse
from tests.contract.marts.history import DAY, FIRST, HOUR, MILLISECOND, a_call, midnight
from tests.contract.marts.reference import DEFAULTS, Row
from tests.contract.marts.test_marts import read
from tests.contract.windows import publish

NINE = midnight(FIRST) + 9 * HOUR
SECOND = timedelta(seconds=1)
AN = {"customer_number_e164": "+849000001"}
BINH = {"customer_number_e164": "+849000002"}

Told = Callable[..., Warehouse]


@pytest.fixture
def told(warehouse: Warehouse) -> Told:
    """Return a function that publishes calls, and sets parameters."""

    def tell(*calls: Row, **parameters: int) -> Warehouse:
        window = (midnight(FIRST - 40 * DAY), midnight(FIRST + 40 * DAY))
        publish(warehouse, [call | {"call_id": str(number)} for number, call in enumerate(calls)], window=window)
        keep_metric_parameters(warehouse, {**DEFAULTS, **parameters})
        return warehouse

    return tell


pytestmark = pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)


def inbound(status: str, queue_seconds: int | None = None, after: timedelta = timedelta(0), **values: Any) -> Row:
    return a_call("", NINE + after, direction="inbound", status=status, queue_seconds=queue_seconds, **values)


def outbound(status: str, after: timedelta = timedelta(0), **values: Any) -> Row:
    return a_call("", NINE + after, direction="outbound", status=status, **values)


def day_of(warehouse: Warehouse) -> Row:
    [day] = read(warehouse, "daily_metrics")
    return day


@pytest.mark.parametrize(
    ("variant", "value"),
    [
        ("service_level", 2 / 5),
        ("service_level_abandons_ignored", 2 / 3),
        ("service_level_abandons_in_time_met", 3 / 5),
        ("service_level_short_abandons_ignored", 2 / 4),
        ("service_level_of_offered", 2 / 6),
        ("abandonment_rate", 2 / 6),
    ],
)
def test_five_service_levels_of_the_same_six_calls(told: Told, variant: str, value: float) -> None:
    """Answered after 5, 20 and 21 seconds; abandoned after 4 and 60; missed without a queue."""
    answered = [inbound("answered", seconds) for seconds in (5, 20, 21)]
    abandoned = [inbound("missed", seconds) for seconds in (4, 60)]
    day = day_of(told(*answered, *abandoned, inbound("missed")))
    assert day[variant] == pytest.approx(value)
    assert (day["offered"], day["abandoned"], day["short_abandoned"], day["missed_without_queue"]) == (6, 2, 1, 1)


def test_a_call_that_left_the_queue_for_the_voice_menu_is_offered_and_neither_answered_nor_missed(told: Told) -> None:
    day = day_of(told(inbound("stopped_at_ivr", 7), inbound("stopped_at_ivr"), inbound("answered")))
    assert (day["offered"], day["answered"], day["missed"], day["offered_other"]) == (2, 1, 0, 1)
    assert (day["stopped_in_ivr"], day["ivr_containment"]) == (2, pytest.approx(2 / 3))


def test_speed_of_answer_and_handle_time_are_averages_of_answered_inbound_calls(told: Told) -> None:
    one = inbound("answered", 10, talk_seconds=100, hold_seconds=30, acw_seconds=20)
    other = inbound("answered", None, talk_seconds=None, hold_seconds=None, acw_seconds=10)
    no_answer = inbound("missed", 500, talk_seconds=900)
    day = day_of(told(one, other, no_answer, outbound("answered", talk_seconds=60, acw_seconds=5)))
    assert (day["asa_seconds"], day["aht_seconds"], day["acw_average_seconds"]) == (5, 65, 15)
    assert (day["hold_share"], day["answered_without_talk"]) == (pytest.approx(0.3), 1)
    assert (day["outbound_talk_seconds"], day["outbound_handle_seconds"]) == (60, 65)


def test_hold_is_added_where_talk_does_not_include_it(told: Told) -> None:
    call = inbound("answered", talk_seconds=100, hold_seconds=30, acw_seconds=20)
    assert day_of(told(call, talk_includes_hold=0))["aht_seconds"] == 150


def test_a_ratio_of_nothing_is_null_and_a_count_of_nothing_is_0(told: Told) -> None:
    day = day_of(told(a_call("", NINE, direction="internal", status="answered")))
    assert (day["calls"], day["internal"], day["answered"]) == (1, 1, 0)
    assert day["service_level"] is day["aht_seconds"] is day["outbound_connect_rate"] is None


def test_voicemail_and_outbound_rates(told: Told) -> None:
    calls = [inbound("missed", has_voicemail=True), inbound("missed"), inbound("answered", has_voicemail=True)]
    day = day_of(told(*calls, outbound("answered"), outbound("missed"), outbound("unknown"), outbound("missed")))
    assert (day["voicemails"], day["missed_with_voicemail"], day["voicemail_rate"]) == (2, 1, 0.5)
    assert (day["outbound_connect_rate"], day["unknown_status"]) == (0.25, 1)


@pytest.mark.parametrize(("off", "is_repeated"), [(timedelta(0), True), (MILLISECOND, False)])
def test_a_caller_repeats_within_seven_days_to_the_millisecond(told: Told, off: timedelta, is_repeated: bool) -> None:
    warehouse = told(inbound("answered", **AN), inbound("missed", after=7 * DAY + off, **AN), inbound("missed", **BINH))
    repeats = read(warehouse, "repeat_calls")
    assert [(row["call_id"], row["previous_call_id"], row["previous_status"]) for row in repeats] == (
        [("1", "0", "answered")] if is_repeated else []
    )
    [first, *_] = read(warehouse, "first_contact_resolution")
    assert (first["answered_calls"], first["followed_up"], first["resolved"]) == (1, int(is_repeated), 1 - is_repeated)


def test_a_missed_call_is_recovered_by_the_first_answered_call_in_either_direction(told: Told) -> None:
    warehouse = told(
        inbound("missed", **AN),
        outbound("missed", after=HOUR, **AN),
        outbound("answered", after=2 * HOUR + MILLISECOND, **AN),
        inbound("answered", after=3 * HOUR, **AN),
        inbound("missed", **BINH),
        outbound("answered", after=DAY + MILLISECOND, **BINH),
    )
    recovered, late = sorted(read(warehouse, "missed_call_recovery"), key=lambda row: row["call_id"])
    assert (recovered["recovered"], recovered["recovered_by_call_id"], recovered["recovery_seconds"]) == (1, "2", 7200)
    assert recovered["callback_attempts"] == 2
    assert (late["recovered"], late["recovered_at"], late["recovery_seconds"]) == (0, None, None)
    assert late["callback_attempts"] == 0
    assert read(warehouse, "missed_calls_to_recover") == [], "both were spoken to at last"


def test_the_work_list_has_each_number_once_until_somebody_spoke_to_it(told: Told) -> None:
    warehouse = told(
        inbound("missed", **AN, contact_name="An", stringee_number="1"),
        outbound("missed", after=HOUR, **AN),
        inbound("missed", after=2 * HOUR, **AN, stringee_number="2"),
        inbound("answered", after=-HOUR, **AN),
        inbound("missed", **BINH),
        outbound("answered", after=SECOND, **BINH),
        inbound("missed", after=-40 * DAY, customer_number_e164="+849000003"),
    )
    [row] = read(warehouse, "missed_calls_to_recover")
    assert (row["customer_number_e164"], row["contact_name"], row["stringee_number"]) == ("+849000001", "An", "2")
    assert (row["missed_calls"], row["callback_attempts"]) == (2, 1)


def test_calls_in_progress_end_before_the_instant_at_which_they_ended(told: Told) -> None:
    """Two at once; the third begins as the first ends; the fourth has no end, and counts itself."""
    warehouse = told(
        inbound("answered", ended_at=NINE + 10 * SECOND),
        inbound("answered", after=5 * SECOND, duration_seconds=10),
        inbound("answered", after=10 * SECOND, ended_at=NINE + 20 * SECOND),
        inbound("missed", after=30 * SECOND),
    )
    [day] = read(warehouse, "concurrency_daily")
    assert (day["peak_calls"], day["peak_at"]) == (2, NINE + 5 * SECOND)


def test_a_call_over_midnight_is_in_progress_on_the_next_day_too(told: Told) -> None:
    late = 14 * HOUR + 59 * timedelta(minutes=1)
    warehouse = told(inbound("answered", after=late, ended_at=NINE + 20 * HOUR), inbound("answered", after=16 * HOUR))
    assert [
        row["peak_calls"] for row in sorted(read(warehouse, "concurrency_daily"), key=lambda r: r["call_date"])
    ] == [
        1,
        2,
    ]


def test_an_agents_day_has_the_name_of_the_last_call_that_says_one(told: Told) -> None:
    def of_agent(name: str | None, after: timedelta, **values: Any) -> Row:
        return inbound("answered", after=after, agent_id="7", agent_name=name, **values)

    warehouse = told(
        of_agent("Old", timedelta(0), talk_seconds=60, acw_seconds=30),
        of_agent("New", HOUR, talk_seconds=100),
        of_agent(None, 2 * HOUR),
        outbound("answered", after=3 * HOUR, agent_id="7", talk_seconds=40),
        inbound("missed", agent_id="7"),
    )
    [day] = read(warehouse, "agent_daily")
    assert (day["agent_name"], day["agent_email"], day["calls"], day["missed"]) == ("New", None, 5, 1)
    assert (day["talk_seconds"], day["handle_seconds"], day["longest_talk_seconds"]) == (200, 230, 100)
    assert day["aht_seconds"] == pytest.approx(230 / 4)
