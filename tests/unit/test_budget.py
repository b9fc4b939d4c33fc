"""The request budget, on a virtual clock: never more than allowed in any block of the clock."""

import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.settings import load_settings
from pipelines.stringeex.budget import Block, RequestBudget, shared_budget
from transforms.errors import RetryableError


class VirtualClock:
    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def wait(self, stopped, seconds):
        assert seconds > 0
        self.now += seconds


def budget_at(clock, *blocks, skew_seconds=0.2):
    return RequestBudget(blocks, clock=clock, wait=clock.wait, skew_seconds=skew_seconds)


def sent_per_block(instants, block, offset=0.0):
    return Counter(int((instant + offset) // block.seconds) for instant in instants)


BLOCKS = st.builds(
    lambda history, everything, hourly: [Block(10, history, "history"), Block(10, everything), Block(3600, hourly)],
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(1, 40),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["history", "realtime"]), st.floats(0, 15, allow_nan=False)), min_size=1, max_size=60
)


@given(blocks=BLOCKS, steps=STEPS, began=st.floats(0, 4000), skew=st.floats(-0.19, 0.19))
def test_no_block_is_overdrawn_even_on_a_clock_that_differs(blocks, steps, began, skew):
    clock = VirtualClock(began)
    budget = budget_at(clock, *blocks)
    sent = []
    for operation, pause in steps:
        clock.now += pause
        before = clock.now
        assert budget.acquire(operation) == pytest.approx(clock.now - before)
        sent.append((operation, clock.now))
    for block in blocks:
        instants = [instant for operation, instant in sent if block.share in (None, operation)]
        for offset in (0.0, skew):
            assert max(sent_per_block(instants, block, offset).values(), default=0) <= block.limit
    assert budget.counts() == Counter(operation for operation, _ in sent)


def test_thirty_pass_at_once_and_the_next_at_the_end_of_the_block():
    clock = VirtualClock(1_000_003.0)
    budget = budget_at(clock, Block(10, 30, "history"))
    assert [budget.acquire("history") for _ in range(30)] == [0.0] * 30
    assert budget.acquire("history") == pytest.approx(7.2)
    assert clock.now == pytest.approx(1_000_010.2)


def test_shares_do_not_touch_each_other():
    clock = VirtualClock()
    budget = budget_at(clock, Block(10, 1, "history"), Block(60, 1, "recording"))
    assert [budget.acquire(name) for name in ("history", "download_recording", "realtime", "realtime")] == [0.0] * 4
    assert budget.acquire("history") > 0
    assert budget.acquire("download_recording") == pytest.approx(10)


def test_zero_means_no_limit():
    clock = VirtualClock()
    budget = budget_at(clock, Block(10, 0, "history"), Block(3600, 0))
    assert sum(budget.acquire("history") for _ in range(1000)) == 0


@pytest.mark.parametrize(
    ("retry_after_seconds", "free_at"),
    [(None, 1_000_010.2), (4.0, 1_000_007.2), (0.0, 1_000_004.2), (86_400.0, 1_003_603.2)],
)
def test_after_a_429_everybody_waits(retry_after_seconds, free_at):
    clock = VirtualClock(1_000_003.0)
    budget = budget_at(clock, Block(10, 30, "history"), Block(3600, 9000))
    budget.acquire("history")
    budget.blocked("history", retry_after_seconds)
    budget.acquire("realtime")
    assert clock.now == pytest.approx(free_at)


def test_a_429_with_an_exhausted_hour_waits_for_the_hour():
    clock = VirtualClock(1_000_003.0)
    budget = budget_at(clock, Block(10, 30, "history"), Block(3600, 1))
    budget.acquire("history")
    budget.blocked("history")
    budget.acquire("history")
    assert clock.now == pytest.approx((1_000_003 // 3600 + 1) * 3600 + 0.2)


def test_threads_share_one_budget_and_a_stopped_one_is_let_go():
    clock = VirtualClock(1_000_000.5)
    budget = RequestBudget([Block(10, 50)], clock=clock)
    stopped, outcomes = threading.Event(), []

    def work():
        try:
            while True:
                budget.acquire("history", stopped)
        except RetryableError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    while sum(budget.counts().values()) < 50:
        pass
    stopped.set()
    for thread in threads:
        thread.join(10)
    assert budget.counts() == {"history": 50}
    assert len(outcomes) == 8


def test_one_budget_per_account_in_a_process():
    def budget_of(sid, **more):
        overrides = {"STRINGEEX_API_KEY_SID": sid, "STRINGEEX_API_KEY_SECRET": "secret", **more}
        return shared_budget(load_settings(None, overrides=overrides))

    assert budget_of("SKone") is budget_of("SKone", CALLHISTORY_CONCURRENCY="2")
    assert budget_of("SKone") is not budget_of("SKtwo")


@pytest.mark.parametrize("retry_after_seconds", [None, 30.0])
def test_nobody_waits_a_day_because_the_clock_was_set_back_by_one(retry_after_seconds):
    clock = VirtualClock()
    budget = budget_at(clock, Block(10, 1, "history"), Block(3600, 100))
    for _ in range(2):
        budget.acquire("history")
        budget.blocked("history", retry_after_seconds)
        clock.now -= 86_400
        assert budget.acquire("history") == 0
    budget.blocked("history", 30.0)
    assert budget.acquire("history") >= 30, "a new 429 counts all the same"
