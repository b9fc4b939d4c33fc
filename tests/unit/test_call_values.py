"""What the columns of a call make of each value that a field can hold."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import (
    START_MS,
    call,
    extra_of,
    normalised,
    records,
)
from transforms.fields import instant_ms
from transforms.json_text import parse_json


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (START_MS, START_MS),
        (float(START_MS), START_MS),
        (f" {START_MS}\n", START_MS),
        (f"{START_MS}.0", START_MS),
        (10**11, 10**11),
        (253402214399999, 253402214399999),
        (253402214400000, None),
        (10**11 - 1, 99_999_999_999_000),
        (1_787_940_012, 1_787_940_012_000),
        ("1787940012", 1_787_940_012_000),
        (1_787_940_012.5, 1_787_940_012_500),
        ("1787940012.0625", 1_787_940_012_062),
        (10**9, 10**12),
        (10**9 - 1, None),
        ("2026-09-08T08:32:40Z", 1_788_856_360_000),
        ("2026-09-08t08:32:40.1239z", 1_788_856_360_123),
        ("2026-09-08 15:32:40,5+07:00", 1_788_856_360_500),
        ("2026-09-08T15:32:40 +0700", 1_788_856_360_000),
        ("2026-09-08T15:32+07", 1_788_856_320_000),
        ("2026-09-08T08:32:40", None),
        ("2026-13-08T08:32:40Z", None),
        ("2026-09-08T24:00:00Z", None),
        ("2026-09-08T15:32,5+07:00", None),
        ("2026-09-08T08:32:40+07:60", None),
        ("2026-09-08T08:32:40.12399999999999999999999Z", 1_788_856_360_123),
        ("2026-09-08T08:32:60Z", None),
        ("00000000012.5", None),
        (1_080_000_000.001, 1_080_000_000_001),
        ("1080000000.00199999999999999", 1_080_000_000_001),
        ("2026-09-08T08:32:61Z", None),
        ("2026-09-08", None),
        ("1970-01-02T00:00:00Z", None),
        ("9999-12-31T23:59:59Z", None),
        ("2026-09-08T08:32:40+99:00", None),
        (True, None),
        (None, None),
        (0, None),
        (-START_MS, None),
        (START_MS + 0.5, None),
        (float("inf"), None),
        (float("nan"), None),
        ("", None),
        ("1e12", None),
        ("١٧٥١٢٣٦٧٤٧٩٧٨", None),
        ("9" * 5000, None),
        ([START_MS], None),
    ],
)
def test_instant_ms(value: Any, expected: int | None) -> None:
    assert instant_ms(value) == expected


@given(st.integers(10**12, 10**14 - 1))
def test_seconds_with_a_fraction_keep_their_millisecond(milliseconds: int) -> None:
    """A product of two floats lost one at times: a call of midnight was a call of the day before."""
    assert instant_ms(milliseconds / 1000) == milliseconds
    assert instant_ms(f"{milliseconds // 1000}.{milliseconds % 1000:03}") == milliseconds


@given(
    st.timedeltas(timedelta(days=1500), timedelta(days=2_900_000)),
    st.integers(-1439, 1439),
    st.sampled_from("T t"),
)
def test_an_instant_with_any_offset_is_the_same_instant(
    since_1970: timedelta, offset_minutes: int, between: str
) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + since_1970
    served = moment.astimezone(timezone(timedelta(minutes=offset_minutes))).isoformat(between)
    wanted = since_1970 // timedelta(milliseconds=1)
    assert instant_ms(served) == wanted
    assert instant_ms(served[:-3] + served[-2:]) == wanted
    assert instant_ms(served[:-6]) is None


@given(st.text(st.sampled_from("0123456789-:.,TtZz+ "), max_size=32) | st.text(max_size=8))
def test_text_that_is_nearly_an_instant_does_not_raise(value: str) -> None:
    found = instant_ms(value)
    assert found is None or 10**11 <= found < 253_402_214_400_000


@pytest.mark.parametrize("form", ["seconds", "iso", "iso_local"])
def test_instants_in_seconds_and_with_an_offset_are_instants_in_every_field(form: str) -> None:
    """Served so, 1787940012 became 56 years of waiting in every average."""
    moment = datetime.fromtimestamp(START_MS // 1000, UTC)
    local = moment.astimezone(timezone(timedelta(hours=7)))
    served = {"seconds": START_MS // 1000, "iso": f"{moment:%Y-%m-%dT%H:%M:%SZ}", "iso_local": local.isoformat()}[form]
    names = ("start_time", "end_time", "answer_time", "enqueue_time")
    record = call(**dict.fromkeys(names, served))
    assert {record[name] for name in ("started_at", "ended_at", "answered_at", "enqueued_at")} == {moment}
    assert (record["answer_seconds"], record["queue_seconds"], record["extra"]) == (None, None, None)
    assert call(first_answer_time=served)["answered_at"] == moment


@pytest.mark.parametrize(
    ("field", "column", "longest"),
    [
        *((f"{name}_duration", f"{name}_seconds", 366 * 86_400) for name in ("talk", "hold", "ivr", "acw", "queue")),
        ("duration", "duration_seconds", 366 * 86_400),
        ("answer_duration", "answer_seconds", 366 * 86_400),
        ("answer_duration_minutes", "answer_minutes", 366 * 1_440),
    ],
)
def test_a_duration_longer_than_a_year_is_none(field: str, column: str, longest: int) -> None:
    assert call(**{field: longest})[column] == longest
    record = call(**{field: longest + 1})
    assert (record[column], extra_of(record)) == (None, {field: longest + 1})


@pytest.mark.parametrize("value", [None, 0, "", "0", " ", 0.0])
def test_an_instant_of_nothing_is_null(value: Any) -> None:
    record = call(end_time=value, answer_time=value, enqueue_time=value)
    assert [record[name] for name in ("ended_at", "answered_at", "enqueued_at", "answer_seconds", "queue_seconds")] == [
        None
    ] * 5
    assert record["extra"] is None


@pytest.mark.parametrize("value", [12, "12", " 12 ", "12.0", 12.0])
def test_seconds_in_any_form(value: Any) -> None:
    record = call(duration=value)
    assert (record["duration_seconds"], record["extra"]) == (12, None)


@pytest.mark.parametrize("value", [-1, 2**31, 1.5, "1.5", True, "a minute", [12], {"s": 12}, 10**30, "1e3"])
def test_unreadable_seconds_are_kept_as_served(value: Any) -> None:
    record = call(duration=value)
    assert record["duration_seconds"] is None
    assert extra_of(record) == {"duration": value}


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), (1, True), (0, False), ("true", True), ("FALSE", False), ("1", True), ("0", False)],
)
def test_flags_in_any_form(value: Any, expected: bool) -> None:
    record = call(recorded=value)
    assert record["is_recorded"] is expected
    assert record["extra"] is None


@pytest.mark.parametrize("value", [2, -1, "yes", [], 0.5])
def test_unreadable_flags_are_kept_as_served(value: Any) -> None:
    record = call(recorded=value)
    assert record["is_recorded"] is None
    assert extra_of(record) == {"recorded": value}


@pytest.mark.parametrize(
    ("value", "direction", "code", "in_extra"),
    [
        (0, "outbound", 0, False),
        ("1", "inbound", 1, False),
        (2.0, "internal", 2, False),
        (7, "unknown", 7, False),
        (None, "unknown", None, False),
        ("callin", "unknown", None, True),
        (True, "unknown", None, True),
    ],
)
def test_directions(value: Any, direction: str, code: int | None, in_extra: bool) -> None:
    record = call(direction=value)
    assert (record["direction"], record["direction_code"]) == (direction, code)
    assert extra_of(record) == ({"direction": value} if in_extra else {})


@pytest.mark.parametrize(
    ("code", "status"),
    [(1, "answered"), (2, "missed"), (3, "stopped_at_ivr"), (4, "stopped_at_survey_ivr"), (5, "unknown")],
)
def test_statuses(code: int, status: str) -> None:
    record = call(status=code)
    assert (record["status"], record["status_code"], record["extra"]) == (status, code, None)


@pytest.mark.parametrize(
    ("value", "channel"),
    [(None, "voice"), (0, "voice"), ("0", "voice"), (1, "video"), (True, "video"), (2, "unknown"), ("x", "unknown")],
)
def test_channels(value: Any, channel: str) -> None:
    record = call(video_call=value)
    assert record["channel"] == channel
    assert extra_of(record) == ({"video_call": value} if channel == "unknown" else {})


def test_text_is_kept_as_it_is() -> None:
    assert call(contactname=" Lan ")["contact_name"] == " Lan "
    assert call(contactname="")["contact_name"] is None
    assert call(company_id=10**25)["company_id"] == "1" + "0" * 25
    assert call(contactname="ọ" * 70_000)["contact_name"] == "ọ" * 70_000
    for value in ("Lan\0", "Lan\ud800"):
        record = call(contactname=value)
        assert record["contact_name"] == "Lan\ufffd"
        assert extra_of(record) == {"contactname": value}


@pytest.mark.parametrize(
    ("value", "stored"),
    [(84900000001.0, "84900000001"), (5.0, "5"), (-0.0, "0"), (1.5, None), (2.0**53, None), (1e300, None)],
)
def test_a_whole_float_in_text_is_its_digits_while_they_are_exact(value: float, stored: str | None) -> None:
    record = call(customer_number=value, account=value)
    assert (record["customer_number"], record["agent_id"]) == (stored, stored)
    assert extra_of(record) == ({} if stored else {"customer_number": value, "account": value})


def test_a_number_that_is_whole_only_by_rounding_is_no_text() -> None:
    """An account 12.00000000000000000001 was the agent 12, with nothing in ``extra``."""
    row = f'{{"id":"c","start_time":{START_MS},"account":12.00000000000000000001}}'
    (record,) = records(normalised([parse_json(row.encode())]).calls)
    assert (record["agent_id"], record["extra"]) == (None, '{"account":12.00000000000000000001}')


def test_a_number_served_as_a_float_is_the_customers_number() -> None:
    record = call(customer_number=84900000001.0, participants=[84900000001.0])
    assert (record["customer_number_e164"], record["customer_country"]) == ("+84900000001", "VN")


def test_one_odd_value_does_not_change_how_its_neighbours_are_read() -> None:
    fields = [{"account": "x", "duration": 1}, {"account": 5, "duration": "2"}, {"account": ""}]
    rows = [{"id": "c", "start_time": START_MS, **field} for field in fields]
    calls = records(normalised(rows).calls)
    assert [(c["agent_id"], c["duration_seconds"]) for c in calls] == [("x", 1), ("5", 2), (None, None)]


def test_the_answer_is_an_instant_or_a_duration() -> None:
    instant = datetime.fromtimestamp(START_MS // 1000, UTC).replace(microsecond=978_000)
    assert call(answer_time=START_MS)["answered_at"] == instant
    assert call(first_answer_time=START_MS)["answered_at"] == instant
    assert call(answer_time=12)["answer_seconds"] == 12
    assert call(answer_time=12, answer_duration="?")["answer_seconds"] == 12
    both = call(answer_time=12, answer_duration=9, first_answer_time=START_MS)
    assert (both["answer_seconds"], both["answered_at"], extra_of(both)) == (9, instant, {"answer_time": 12})
    assert call(answer_time=9, answer_duration=9)["extra"] is None
    twice = call(answer_time=START_MS, first_answer_time=START_MS + 1)
    assert (twice["answered_at"], extra_of(twice)) == (instant, {"first_answer_time": START_MS + 1})
    assert call(answer_time=START_MS, first_answer_time=START_MS)["extra"] is None
    in_seconds = call(answer_time=START_MS // 1000)
    assert (in_seconds["answered_at"], in_seconds["answer_seconds"]) == (instant.replace(microsecond=0), None)
    assert extra_of(call(answer_time=10**9 - 1)) == {"answer_time": 10**9 - 1}
    assert extra_of(call(enqueue_time=10**9 - 1)) == {"enqueue_time": 10**9 - 1}
    assert extra_of(call(answer_time=-1)) == {"answer_time": -1}


def test_the_queue_is_an_instant_or_a_duration() -> None:
    assert call(enqueue_time=START_MS)["enqueued_at"] is not None
    assert call(enqueue_time=7)["queue_seconds"] == 7
    both = call(enqueue_time=7, queue_duration=8)
    assert (both["queue_seconds"], extra_of(both)) == (8, {"enqueue_time": 7})


@pytest.mark.parametrize(
    ("value", "kept"), [("call", False), (None, False), ("", False), ("chat", True), (["call"], True)]
)
def test_object_type(value: Any, kept: bool) -> None:
    assert ("object_type" in extra_of(call(object_type=value))) is kept


def test_unknown_fields_are_kept_sorted_and_exact_but_for_nulls() -> None:
    assert call(z=2**80, a=None, b={"y": 1, "x": "\ud800\0é"})["extra"] == (
        r'{"b":{"x":"\ud800\u0000é","y":1},"z":' + str(2**80) + "}"
    )


@pytest.mark.parametrize(
    ("timezone", "instant", "day", "hour"),
    [
        ("Asia/Ho_Chi_Minh", "2025-06-29T16:59:59.999", date(2025, 6, 29), 23),
        ("Asia/Ho_Chi_Minh", "2025-06-29T17:00:00", date(2025, 6, 30), 0),
        ("America/New_York", "2025-03-09T06:59:59", date(2025, 3, 9), 1),
        ("America/New_York", "2025-03-09T07:00:00", date(2025, 3, 9), 3),
        ("America/New_York", "2025-11-02T05:30:00", date(2025, 11, 2), 1),
        ("America/New_York", "2025-11-02T06:30:00", date(2025, 11, 2), 1),
        ("America/New_York", "2025-11-03T04:59:59", date(2025, 11, 2), 23),
        ("Asia/Kathmandu", "2025-06-29T18:15:00", date(2025, 6, 30), 0),
    ],
)
def test_local_day_and_hour(timezone: str, instant: str, day: date, hour: int) -> None:
    start = datetime.fromisoformat(instant).replace(tzinfo=UTC)
    row = {"id": "c", "start_time": round(start.timestamp() * 1000), "participants": "a;b"}
    result = normalised([row], timezone=timezone, window_start=start, window_end=datetime(2026, 1, 1, tzinfo=UTC))
    (record,) = records(result.calls)
    assert (record["started_at"], record["call_date"], record["call_hour"]) == (start, day, hour)
    assert [(p["started_at"], p["call_date"], p["call_id"]) for p in records(result.participants)] == [
        (start, day, "c")
    ] * 2
