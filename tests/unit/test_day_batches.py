"""Which local days share a Prefect task."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pipelines.export.planner import DayPlan, Due, PlannedWindow
from pipelines.flows.day_batches import CALLS_PER_TASK, MAX_DAYS_PER_TASK, DayBatches
from pipelines.windows import Window

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
ONE_DAY = timedelta(days=1)


def plans(*known_calls: int | None) -> list[DayPlan]:
    found = []
    for number, calls in enumerate(known_calls):
        start = FIRST + number * ONE_DAY
        window = PlannedWindow(Window(start, start + ONE_DAY, start.date()), Due.REREAD, calls, None)
        found.append(DayPlan(start.date(), (window,), start, start + ONE_DAY, 1))
    return found


def sizes(batches: DayBatches, tasks_ahead: int) -> list[int]:
    found = []
    while batches:
        found.append(len(batches.take(tasks_ahead).days))
    return found


def test_small_days_share_a_task_and_each_of_the_tasks_at_work_gets_its_part() -> None:
    assert sizes(DayBatches(plans(*[30] * 20)), tasks_ahead=2) == [10, 5, 3, 1, 1]
    assert sizes(DayBatches(plans(*[0] * 100)), tasks_ahead=1) == [MAX_DAYS_PER_TASK] * 3 + [7]


def test_a_day_of_many_calls_has_a_task_of_its_own() -> None:
    assert sizes(DayBatches(plans(*[CALLS_PER_TASK] * 5)), tasks_ahead=1) == [1] * 5
    assert sizes(DayBatches(plans(10, 10, CALLS_PER_TASK, 10)), tasks_ahead=1) == [2, 1, 1]


def test_days_that_were_never_read_go_one_by_one_until_some_are_done() -> None:
    batches = DayBatches(plans(*[None] * 10))
    assert len(batches.take(1).days) == 1
    batches.learn(days=1, calls=CALLS_PER_TASK // 3)
    assert sizes(batches, tasks_ahead=1) == [3, 3, 3]


def test_a_batch_is_named_by_its_days() -> None:
    assert DayBatches(plans(1)).take(1).label == "2026-01-01"
    assert DayBatches(plans(1, 1, 1)).take(1).label == "2026-01-01..2026-01-03 (3 days)"


@given(
    st.lists(st.none() | st.integers(0, 2 * CALLS_PER_TASK), max_size=60),
    st.lists(st.integers(1, 8), min_size=1, max_size=60),
)
def test_every_day_is_dealt_out_once_in_its_order(known_calls: list[int | None], tasks_ahead: list[int]) -> None:
    days = plans(*known_calls)
    batches, dealt = DayBatches(days), []
    while batches:
        batch = batches.take(tasks_ahead[len(dealt) % len(tasks_ahead)])
        dealt += batch.days
        batches.learn(len(batch.days), sum(day.windows[0].known_calls or 0 for day in batch.days))
    assert dealt == days
