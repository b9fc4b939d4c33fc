"""Which states of the export are an alert, since when, and what counts as an abnormal day."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.export.forecast import Quota
from pipelines.watch.alerts import FEWEST_CALLS, Alert, AlertKind, find_alerts, is_abnormal
from pipelines.watch.status import DayState, DayStatus, Status
from pipelines.windows import ONE_DAY, day_bounds
from sinks.recordings import RecordingStatus

ZONE = "Asia/Ho_Chi_Minh"
TODAY = date(2026, 3, 11)
NOW = datetime(2026, 3, 11, 2, tzinfo=UTC)
SHARE = 0.01
GRACE = timedelta(hours=36)


def status_of(days: Mapping[int, DayStatus | None] | None = None, **changes: Any) -> Status:
    """A whole export of seventy days with 1,000 calls each, but for ``days``, by how many days ago they were."""
    found = []
    for ago in range(70, -1, -1):
        day = TODAY - ago * ONE_DAY
        state = DayState.COMPLETE if ago else DayState.PROVISIONAL
        found.append((days or {}).get(ago) or DayStatus(day, state, 1_000))
    values: dict[str, Any] = {
        "at": NOW,
        "timezone": ZONE,
        "days": found,
        "gaps": [],
        "failed_windows": [],
        "disputed_windows": [],
        "newest_instant": NOW - timedelta(hours=1),
        "due": Quota(0, 0, 0.0, 0),
        "late_changes": 0,
        "late_changes_by_age": [],
        "drift": [],
        "rejected_rows": 0,
        "recordings": dict.fromkeys(RecordingStatus, 0),
        "doubtful_recordings": 0,
    }
    return Status(**values | changes)


def day(ago: int, state: DayState = DayState.COMPLETE, calls: int = 0, since: datetime | None = None) -> DayStatus:
    return DayStatus(TODAY - ago * ONE_DAY, state, calls, since)


def gap(ago: int, hours: float, state: DayState = DayState.FAILED) -> DayStatus:
    return day(ago, state, since=NOW - timedelta(hours=hours))


def test_a_whole_export_has_no_alert() -> None:
    assert find_alerts(status_of(), GRACE, SHARE) == []


def test_an_erasure_that_is_not_done_for_long_is_an_alert() -> None:
    assert find_alerts(status_of(erasures_due_since=NOW - GRACE), GRACE, SHARE) == []
    [alert] = find_alerts(status_of(erasures_due_since=NOW - timedelta(hours=37)), GRACE, SHARE)
    assert (alert.kind, alert.since) == (AlertKind.ERASURE, NOW - timedelta(hours=37))
    assert "callhistory export finishes it" in alert.what_to_do


def test_stale_is_older_than_the_threshold_and_no_less() -> None:
    assert find_alerts(status_of(newest_instant=NOW - GRACE), GRACE, SHARE) == []
    [alert] = find_alerts(status_of(newest_instant=NOW - timedelta(hours=37)), GRACE, SHARE)
    assert (alert.kind, alert.since) == (AlertKind.STALE, NOW - timedelta(hours=37))
    assert "37 hours" in alert.what
    [alert] = find_alerts(status_of(newest_instant=None), GRACE, SHARE)
    assert (alert.kind, alert.since) == (AlertKind.STALE, day_bounds(TODAY - 70 * ONE_DAY, ZONE)[0])
    assert "nothing is certified yet" in alert.what
    fresh = replace(status_of(newest_instant=None), days=[DayStatus(TODAY, DayState.MISSING, 0)])
    assert find_alerts(fresh, GRACE, SHARE) == [], "the first run may still be under way"


def test_an_incomplete_day_is_an_alert_after_the_grace_and_today_never() -> None:
    assert find_alerts(status_of({3: gap(3, 36)}), GRACE, SHARE) == []
    [alert] = find_alerts(status_of({3: gap(3, 37)}), GRACE, SHARE)
    assert (alert.kind, alert.key) == (AlertKind.INCOMPLETE, "incomplete 2026-03-08")
    assert alert.since == NOW - timedelta(hours=37)
    assert alert.what == "2026-03-08 is not complete (1 failed)"
    assert find_alerts(status_of({0: gap(0, 400)}), GRACE, SHARE) == []


def test_neighbouring_days_are_one_alert_whose_key_stays_while_it_grows() -> None:
    missing = DayState.MISSING
    gaps = {9: gap(9, 90), 5: gap(5, 80), 4: gap(4, 70, missing), 2: gap(2, 37, missing), 1: gap(1, 10)}
    alerts = find_alerts(status_of(gaps), GRACE, SHARE)
    assert [alert.key.split()[1] for alert in alerts] == ["2026-03-02", "2026-03-06", "2026-03-09"]
    assert alerts[1].what == "2026-03-06 to 2026-03-07 are not complete (1 failed, 1 not read to the end)"
    assert alerts[1].since == NOW - timedelta(hours=80)
    assert alerts[2].what == "2026-03-09 is not complete (1 not read to the end)"
    later = find_alerts(status_of(gaps | {1: gap(1, 37)}), GRACE, SHARE)
    assert [alert.key for alert in later] == [alert.key for alert in alerts]


def test_an_empty_day_among_busy_ones_is_abnormal_for_a_week() -> None:
    for ago in range(1, 8):
        [alert] = find_alerts(status_of({ago: day(ago)}), GRACE, SHARE)
        assert alert.kind is AlertKind.ABNORMAL_VOLUME
        assert alert.since == day_bounds(TODAY - ago * ONE_DAY, ZONE)[1]
        assert alert.ends_at == day_bounds(TODAY + (7 - ago) * ONE_DAY, ZONE)[1]
        assert "has 0 calls, where 1,000 are usual (the median of 8 such days)" in alert.what
    assert find_alerts(status_of({8: day(8)}), GRACE, SHARE) == []
    assert find_alerts(status_of({0: day(0)}), GRACE, SHARE) == []


def test_only_complete_days_are_judged_and_by_enough_complete_ones() -> None:
    assert find_alerts(status_of({2: day(2, DayState.RUNNING)}), GRACE, SHARE) == []
    unknown = {2 + 7 * week: day(2 + 7 * week, DayState.MISSING) for week in range(1, 6)}
    assert find_alerts(status_of({2: day(2)} | unknown), GRACE, SHARE) == [], "three known days are too few"
    del unknown[9]
    assert len(find_alerts(status_of({2: day(2)} | unknown), GRACE, SHARE)) == 1
    quiet = {2 + 7 * week: day(2 + 7 * week) for week in range(9)}
    assert find_alerts(status_of(quiet), GRACE, SHARE) == [], "it is the same weekday that counts"


known_days = st.lists(st.integers(FEWEST_CALLS, 100_000), min_size=4, max_size=8)


@given(st.integers(0, 100) | st.integers(0, 1_000_000), st.integers(4, 8), st.floats(-3, 3))
def test_a_normal_day_of_a_constant_history_is_never_abnormal(usual: int, days: int, deviations: float) -> None:
    """Normal: within three standard deviations of counting."""
    calls = max(0, round(usual + deviations * math.sqrt(usual)))
    assert not is_abnormal(calls, [usual] * days)


@given(known_days)
def test_an_empty_day_among_busy_ones_always_is(known: list[int]) -> None:
    assert is_abnormal(0, known)


@given(known_days, st.floats(0.51, 1.49))
def test_less_than_half_off_is_never_abnormal(known: list[int], factor: float) -> None:
    towards_usual = math.ceil if factor < 1 else math.floor
    assert not is_abnormal(towards_usual(median(known) * factor), known)


@given(known_days, st.integers(0, 200_000), st.randoms())
def test_the_order_of_the_known_days_is_of_no_importance(known: list[int], calls: int, random: Any) -> None:
    shuffled = list(known)
    random.shuffle(shuffled)
    assert is_abnormal(calls, known) == is_abnormal(calls, shuffled)


@given(st.integers(100, 100_000), st.integers(4, 8))
def test_twice_as_many_as_ever_is_abnormal_and_one_holiday_hides_nothing(usual: int, days: int) -> None:
    holiday = [usual] * days
    holiday[0] = 0
    for known in ([usual] * days, holiday):
        assert is_abnormal(2 * usual, known)
        assert is_abnormal(usual // 4, known)
    assert not is_abnormal(usual, holiday)


def test_where_days_vary_much_only_what_stands_out_is_abnormal() -> None:
    varying = [400, 1_000, 700, 1_300, 500, 1_100, 900, 1_600]
    assert not is_abnormal(1_900, varying)
    assert is_abnormal(4_000, varying)
    assert not is_abnormal(12, [0] * 8), "a handful is no news on a closed weekday"
    assert is_abnormal(200, [0] * 8)


def alerts_of_rejects(rejected: int, calls: int, share: float = SHARE, ago: int = 2) -> list[Alert]:
    day = DayStatus(TODAY - ago * ONE_DAY, DayState.COMPLETE, calls, rejected=rejected)
    found = find_alerts(status_of({ago: day}), GRACE, share)
    return [alert for alert in found if alert.kind is AlertKind.REJECTS]


@pytest.mark.parametrize(("rejected", "calls"), [(4, 10), (5, 495), (0, 0), (10, 1_000)])
def test_a_few_rejects_are_no_alert(rejected: int, calls: int) -> None:
    assert alerts_of_rejects(rejected, calls) == []


def test_many_rejects_said_nothing_to_look_at() -> None:
    [alert] = alerts_of_rejects(12, 1_000)
    assert alert.what == f"12 of 1,012 rows of {TODAY - 2 * ONE_DAY} cannot be a call"
    assert "callhistory rejects list" in alert.what_to_do
    assert alert.since == day_bounds(TODAY - 2 * ONE_DAY, ZONE)[1]
    assert alert.ends_at == day_bounds(TODAY + 5 * ONE_DAY, ZONE)[1]
    assert alerts_of_rejects(12, 1_000, share=0.02) == []
    assert alerts_of_rejects(12, 1_000, ago=8) == [], "they are known by then"
    assert len(alerts_of_rejects(12, 1_000, ago=7)) == 1
    assert len(alerts_of_rejects(5, 0, share=0.99)) == 1, "a day of nothing else"
    [today] = alerts_of_rejects(12, 1_000, ago=0)
    assert today.since == NOW
