"""What is due, and why, from the ledger and the clock alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pipelines.export.planner import DayPlan, Due, next_reread, plan
from pipelines.windows import Window, day_bounds, day_windows
from sinks.ledger import LedgerRow, WindowStatus

ZONE = "Asia/Ho_Chi_Minh"
DAY = timedelta(days=1)
REREAD = (DAY, 3 * DAY, 7 * DAY, 30 * DAY)
FIRST, LAST = date(2026, 1, 5), date(2026, 1, 9)
NOON_OF_LAST = day_bounds(LAST, ZONE)[0] + timedelta(hours=12)


def row_of(window: Window, status: WindowStatus = WindowStatus.COMPLETE, **values: object) -> LedgerRow:
    """A ledger row of a window that was read when it ended, and has ten calls."""
    row = LedgerRow(
        window_start=window.start,
        window_end=window.end,
        call_date=window.call_date,
        status=status,
        api_total=10,
        raw_rows=10,
        rejected=0,
        lake_rows=10,
        warehouse_rows=10,
        late_changes=0,
        attempts=1,
        content_hash="0" * 32,
        warehouse_content_hash="0" * 32,
        claimed_by=None,
        claim_expires_at=None,
        started_at=window.end,
        completed_at=window.end,
        next_reread_at=None,
        settled=True,
        run_id="run",
        error=None,
    )
    return replace(row, **values)  # type: ignore[arg-type]


def whole(day: date) -> Window:
    [window] = day_windows(day, ZONE, DAY)
    return window


def planned(rows: Sequence[LedgerRow], *, force: bool = False, length: timedelta = DAY) -> list[DayPlan]:
    return plan(FIRST, LAST, rows, now=NOON_OF_LAST, timezone=ZONE, window_length=length, force=force)


def reasons(plans: Sequence[DayPlan]) -> dict[date, list[Due]]:
    return {day.call_date: [window.due for window in day.windows] for day in plans}


def test_everything_is_due_at_first_newest_day_first() -> None:
    plans = planned([])
    assert [day.call_date.day for day in plans] == [9, 8, 7, 6, 5]
    assert {due for dues in reasons(plans).values() for due in dues} == {Due.NEW}


def test_a_day_in_the_future_is_not_due() -> None:
    plans = plan(LAST, LAST + 3 * DAY, [], now=NOON_OF_LAST, timezone=ZONE, window_length=DAY)
    assert [day.call_date for day in plans] == [LAST]


def test_a_settled_day_is_due_only_by_force() -> None:
    settled = [row_of(whole(FIRST))]
    assert FIRST not in reasons(planned(settled))
    assert reasons(planned(settled, force=True))[FIRST] == [Due.FORCED]


def test_failed_interrupted_and_claimed_only_windows_are_due() -> None:
    rows = [
        row_of(whole(date(2026, 1, 5)), WindowStatus.FAILED),
        row_of(whole(date(2026, 1, 6)), WindowStatus.RUNNING),
        row_of(whole(date(2026, 1, 7)), WindowStatus.RUNNING, attempts=0, completed_at=None, api_total=None),
    ]
    found = reasons(planned(rows))
    assert [found[date(2026, 1, day)] for day in (5, 6, 7)] == [[Due.FAILED], [Due.INTERRUPTED], [Due.NEW]]


def test_the_open_day_is_due_however_lately_it_was_read() -> None:
    rows = [row_of(whole(LAST), completed_at=NOON_OF_LAST, settled=False, next_reread_at=whole(LAST).end)]
    assert reasons(planned(rows))[LAST] == [Due.OPEN]


def test_a_window_is_due_from_its_next_reread_on_and_not_before() -> None:
    for offset, expected in ((-1, [Due.REREAD]), (0, [Due.REREAD]), (1, None)):
        instant = NOON_OF_LAST + timedelta(milliseconds=offset)
        rows = [row_of(whole(FIRST), next_reread_at=instant, settled=False)]
        assert reasons(planned(rows)).get(FIRST) == expected


def test_a_plan_knows_what_the_ledger_knew() -> None:
    window = whole(FIRST)
    [day] = [d for d in planned([row_of(window, WindowStatus.FAILED)]) if d.call_date == FIRST]
    assert (day.windows[0].known_calls, day.windows[0].completed_at) == (10, window.end)


def test_a_day_keeps_the_windows_it_was_cut_into() -> None:
    six_hours = day_windows(FIRST, ZONE, timedelta(hours=6))
    rows = [row_of(six_hours[0], WindowStatus.FAILED), row_of(six_hours[1])]
    [day] = [d for d in planned(rows, length=DAY) if d.call_date == FIRST]
    assert [w.window for w in day.windows] == [six_hours[0], six_hours[2], six_hours[3]]
    assert (day.lock_start, day.lock_end, day.window_count) == (six_hours[0].start, six_hours[0].end, 4)

    [day] = [
        d
        for d in planned([row_of(whole(FIRST), WindowStatus.FAILED)], length=timedelta(hours=1))
        if d.call_date == FIRST
    ]
    assert [w.window for w in day.windows] == [whole(FIRST)]


def test_a_window_read_while_open_is_due_from_its_end_on() -> None:
    window = whole(FIRST)
    assert next_reread(window.end, window.end - timedelta(milliseconds=1), REREAD) == (window.end, False)
    assert next_reread(window.end, window.end, REREAD) == (window.end + DAY, False)


def test_without_rereads_a_closed_window_is_settled_at_once() -> None:
    window = whole(FIRST)
    assert next_reread(window.end, window.end, ()) == (None, True)


@given(delays=st.lists(st.timedeltas(timedelta(0), timedelta(days=12)), min_size=1, max_size=40))
def test_reading_whenever_due_settles_every_window_after_its_last_age(delays: list[timedelta]) -> None:
    """However late each run comes, a window is read at most once per age, and is settled at the end."""
    end = datetime(2026, 1, 5, 17, tzinfo=UTC)
    read_at, reads = end - timedelta(hours=1), 1
    due_at, settled = next_reread(end, read_at, REREAD)
    for delay in [*delays, *[timedelta(0)] * 6]:
        if settled:
            break
        assert due_at is not None
        assert due_at > read_at
        read_at, reads = due_at + delay, reads + 1
        due_at, settled = next_reread(end, read_at, REREAD)
    assert settled
    assert due_at is None
    assert read_at >= end + REREAD[-1]
    assert reads <= 2 + len(REREAD)


def test_twenty_years_are_planned_day_by_day() -> None:
    plans = plan(date(2006, 1, 1), date(2025, 12, 31), [], now=NOON_OF_LAST, timezone=ZONE, window_length=DAY)
    assert len(plans) == 7305
