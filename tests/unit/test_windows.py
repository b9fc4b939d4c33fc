"""Windows cover every instant once, in every time zone, on every kind of day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.windows import Window, day_bounds, day_windows, days_between, local_date

ZONES = st.sampled_from(sorted(zone for zone in available_timezones() if zone != "localtime"))
LENGTHS = st.sampled_from([timedelta(days=1), timedelta(hours=6), timedelta(hours=1), timedelta(minutes=15)])
DAYS = st.dates(date(1975, 1, 2), date(2036, 12, 30))


@given(day=DAYS, zone=ZONES, length=LENGTHS)
def test_windows_of_a_day_tile_it_without_gap_or_overlap(day: date, zone: str, length: timedelta) -> None:
    start, end = day_bounds(day, zone)
    windows = day_windows(day, zone, length)

    edges = [window.start for window in windows] + [end]
    assert edges[0] == start
    assert [window.end for window in windows] == edges[1:]
    assert all(window.start < window.end for window in windows)
    assert all(window.call_date == day for window in windows)


@given(day=DAYS, zone=ZONES, length=LENGTHS, share=st.floats(0, 1, exclude_max=True))
def test_every_instant_of_a_window_falls_on_its_local_day(
    day: date, zone: str, length: timedelta, share: float
) -> None:
    for window in day_windows(day, zone, length):
        milliseconds = (window.end - window.start) // timedelta(milliseconds=1)
        instant = window.start + timedelta(milliseconds=int(share * milliseconds))
        for probe in (window.start, instant, window.end - timedelta(milliseconds=1)):
            assert local_date(probe, zone) == day


@given(day=DAYS, zone=ZONES)
def test_days_follow_each_other_without_gap(day: date, zone: str) -> None:
    assert day_bounds(day, zone)[1] == day_bounds(day + timedelta(days=1), zone)[0]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", date(2026, 3, 8), 23),
        ("America/New_York", date(2026, 11, 1), 25),
        ("Asia/Ho_Chi_Minh", date(2026, 3, 8), 24),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # its clock jumps at midnight: the day begins at 01:00
        ("Australia/Lord_Howe", date(2026, 4, 5), 24.5),
    ],
)
def test_a_day_has_the_hours_it_has(zone: str, day: date, hours: float) -> None:
    start, end = day_bounds(day, zone)
    assert end - start == timedelta(hours=hours)
    assert day_windows(day, zone, timedelta(days=1)) == [Window(start, end, day)]


def test_the_documented_day_has_the_documented_milliseconds() -> None:
    start, end = day_bounds(date(2021, 7, 19), "Asia/Ho_Chi_Minh")
    assert (start.timestamp() * 1000, end.timestamp() * 1000 - 1) == (1626627600000, 1626713999999)


def test_a_day_that_a_zone_skipped_has_no_window() -> None:
    assert day_windows(date(2011, 12, 30), "Pacific/Apia", timedelta(days=1)) == []


def test_a_long_day_in_parts_ends_with_a_short_part() -> None:
    windows = day_windows(date(2026, 11, 1), "America/New_York", timedelta(hours=6))
    assert [(w.end - w.start) / timedelta(hours=1) for w in windows] == [6, 6, 6, 6, 1]


def test_days_between_includes_both_ends() -> None:
    assert list(days_between(date(2026, 1, 30), date(2026, 2, 1))) == [
        date(2026, 1, 30),
        date(2026, 1, 31),
        date(2026, 2, 1),
    ]


def test_a_label_names_the_window_in_utc() -> None:
    zone = ZoneInfo("Asia/Ho_Chi_Minh")
    start = datetime(2026, 1, 5, tzinfo=zone).astimezone(UTC)
    assert Window(start, start + timedelta(days=1), date(2026, 1, 5)).label == (
        "2026-01-04T17:00:00Z--2026-01-05T17:00:00Z"
    )
