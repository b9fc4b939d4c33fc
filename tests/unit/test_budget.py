"""The request budget, on a virtual clock: never more than allowed in any block of the clock, and who goes first."""

import json
import logging
import threading
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.settings import load_settings
from pipelines.stringeex.request_blocks import CLOCK_SKEW_SECONDS, HEAD_START_SECONDS, no_counts, take
from pipelines.stringeex.request_budget import Block, Priority, ProcessCounters, RequestBudget, open_budget
from transforms.errors import BusyError, RetryableError, StorageError


class VirtualClock:
    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now

    def wait(self, stopped, seconds):
        assert seconds > 0
        self.now += seconds


def budget_at(clock, *blocks, **options):
    return RequestBudget(blocks, clock=clock, wait=clock.wait, **options)


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


BORDER = 1_000_010.0
HISTORY = Block(10, 30, "history")


class Takers:
    """Processes that share counts: each asks at an instant and, refused, asks again after as long as it was told."""

    def __init__(self, blocks, clock_errors=(0.0,)):
        self.blocks = blocks
        self.clock_errors = clock_errors
        self.counts = no_counts()
        self.let_through = []

    def ask(self, instant, priority=Priority.EXPORT, taker=0):
        """Return 0, or how long to wait; ``instant`` is the provider's."""
        now = instant + self.clock_errors[taker % len(self.clock_errors)]
        # As between processes: what is kept has to survive as JSON.
        self.counts = json.loads(json.dumps(self.counts))
        wait = take(self.counts, self.blocks, priority, now, CLOCK_SKEW_SECONDS)
        assert wait >= 0
        if not wait:
            self.let_through.append((instant, priority))
        return wait

    def run(self, *workers):
        """Have workers ask in turn: each a priority, when it begins and ends, and how long a request keeps it busy.

        Return the priorities by block of ten seconds, counted from `BORDER`.
        """
        asking = [(began, number) for number, (_, began, _, _) in enumerate(workers)]
        while asking:
            asking.sort()
            instant, number = asking.pop(0)
            priority, _, ends, busy_seconds = workers[number]
            if instant < ends:
                asking.append((instant + (self.ask(instant, priority, number) or busy_seconds), number))
        blocks = defaultdict(Counter)
        for instant, priority in self.let_through:
            blocks[int((instant - BORDER) // 10)][priority] += 1
        return blocks


@given(
    blocks=BLOCKS,
    asked=st.lists(
        st.tuples(
            # Now and then to where a clock that differs says another block of time.
            st.one_of(st.floats(0, 15), st.floats(-0.2, 0.2).map(lambda offset: ("border", offset))),
            st.sampled_from(Priority),
            st.integers(0, 7),
            st.integers(1, 6),
        ),
        min_size=1,
        max_size=40,
    ),
    began=st.floats(0, 4000),
    clock_errors=st.lists(st.floats(-0.19, 0.19), min_size=8, max_size=8),
)
def test_no_interleaving_of_takers_overdraws_a_block(blocks, asked, began, clock_errors):
    takers, instant = Takers(blocks, clock_errors), began
    for move, priority, taker, times in asked:
        instant = max(instant, instant // 10 * 10 + 10 + move[1]) if isinstance(move, tuple) else instant + move
        for _ in range(times):
            takers.ask(instant, priority, taker)
    for block in blocks:
        instants = [instant for instant, _ in takers.let_through]
        assert max(sent_per_block(instants, block).values(), default=0) <= block.limit


@pytest.mark.parametrize("lower", [Priority.BACKFILL, Priority.VERIFY])
def test_a_waiting_export_goes_first_and_nobody_waits_for_one_that_is_gone(lower):
    many = [(lower, BORDER - 9, BORDER + 50, 0.05)] * 8
    few = [(Priority.EXPORT, BORDER - 5, BORDER + 25, 0.05)] * 2
    blocks = Takers([HISTORY]).run(*many, *few)
    assert blocks[-1] == {lower: 30}, "nobody else was there"
    assert blocks[0] == blocks[1] == {Priority.EXPORT: 30}
    assert blocks[3] == blocks[4] == {lower: 30}, "it waited for this block, and was gone when it came"


def test_what_the_first_leave_goes_to_the_next():
    """Slow ones of three priorities, and a fast one of the lowest: every block is used up, and each gets its turn."""
    slow = [(priority, BORDER - 5, BORDER + 60, 2.0) for priority in (Priority.EXPORT, Priority.BACKFILL)]
    fast = [(Priority.VERIFY, BORDER - 9, BORDER + 60, 0.05)] * 3
    blocks = Takers([HISTORY]).run(*slow, *fast)
    for number in range(6):
        assert blocks[number].total() == 30
        assert min(blocks[number][Priority.EXPORT], blocks[number][Priority.BACKFILL]) >= 1
        assert blocks[number][Priority.VERIFY] >= 15


def test_waiting_for_one_block_keeps_nobody_from_another():
    takers = Takers([HISTORY])
    assert [takers.ask(BORDER + 1) for _ in range(30)] == [0.0] * 30
    assert takers.ask(BORDER + 1) > 0
    takers.blocks = [Block(60, 1, "recording")]
    assert takers.ask(BORDER + 10.3, Priority.RECORDINGS) == 0


def test_who_waits_for_the_border_wakes_at_the_border():
    takers = Takers([HISTORY])
    for _ in range(30):
        takers.ask(BORDER + 1)
    assert takers.ask(BORDER + 2) == pytest.approx(8.2)
    assert takers.ask(BORDER + 2, Priority.BACKFILL) == pytest.approx(8.2 + HEAD_START_SECONDS)
    assert takers.ask(BORDER + 10.2) == 0


class Unreachable:
    """Counters of a database that is down."""

    def __init__(self, error):
        self.error = error
        self.asked = 0

    def change(self, body):
        self.asked += 1
        raise self.error

    def close(self):
        pass


@pytest.mark.parametrize("error", [BusyError("the database is busy"), StorageError("cannot open the database")])
def test_what_a_person_waits_for_does_without_the_database(error, caplog):
    down = Unreachable(error)
    clock = VirtualClock(1_000_003.0)
    budget = budget_at(clock, HISTORY, counters=down, priority=Priority.INTERACTIVE)
    with caplog.at_level(logging.WARNING):
        assert [budget.acquire("history") for _ in range(30)] == [0.0] * 30
        assert budget.acquire("history") == pytest.approx(7.2), "it still counts"
    assert [record.getMessage() for record in caplog.records] == [f"counting requests in this process only: {error}"]
    assert down.asked == 1


@pytest.mark.parametrize("priority", [p for p in Priority if p is not Priority.INTERACTIVE])
def test_what_runs_unattended_does_not(priority):
    budget = budget_at(VirtualClock(), HISTORY, counters=Unreachable(BusyError("busy")), priority=priority)
    with pytest.raises(BusyError):
        budget.acquire("history")
    with pytest.raises(BusyError):
        budget.blocked("history")
    assert budget.counts() == {}


def test_without_a_limit_nothing_is_asked_of_the_database(tmp_path):
    """Not even for a request that has none while others have one."""
    limits = {
        "STRINGEEX_HISTORY_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_HOUR": "0",
        "CALLHISTORY_WAREHOUSE_URL": f"duckdb:///{tmp_path}/warehouse.duckdb",
    }
    for recordings_per_minute in ("0", "30"):
        overrides = limits | {"STRINGEEX_RECORDINGS_PER_MINUTE": recordings_per_minute}
        budget = open_budget(load_settings(None, overrides=overrides, require_api=False), Priority.EXPORT)
        for _ in range(100):
            budget.acquire("history")
    assert list(tmp_path.iterdir()) == []
    budget.acquire("download_recording")
    assert [path.name for path in tmp_path.iterdir()] == ["warehouse.duckdb.requests.sqlite"]


def test_budgets_share_what_their_counters_count():
    clock = VirtualClock(1_000_003.0)
    counters = ProcessCounters(clock)
    one, other = (budget_at(clock, HISTORY, counters=counters) for _ in range(2))
    for _ in range(15):
        assert one.acquire("history") == other.acquire("history") == 0
    assert one.counts() == {"history": 15}
    assert other.acquire("history") == pytest.approx(7.2)
    one.blocked("history", 5.0)
    assert other.acquire("history") == pytest.approx(5.2)


def test_a_database_that_cannot_be_used_at_all_does_not_stop_a_person(tmp_path, caplog):
    overrides = {
        "CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/warehouse.sqlite",
        "CALLHISTORY_WAREHOUSE_SCHEMA": "telephony",
    }
    settings = load_settings(None, overrides=overrides, require_api=False)
    assert open_budget(settings, Priority.INTERACTIVE).acquire("stop") < 60
    assert "CALLHISTORY_WAREHOUSE_SCHEMA" in caplog.text
    with pytest.raises(StorageError, match="CALLHISTORY_WAREHOUSE_SCHEMA"):
        open_budget(settings, Priority.EXPORT).acquire("history")


def test_counts_that_0_1_0_has_written_still_count_and_what_no_block_explains_is_dropped():
    counts = no_counts()
    counts["taken"] = {"history 10s": {"100": 3}, "history of old 7s": {"143": 3}}
    wait_seconds = take(counts, [Block(10, 3, "history")], Priority.EXPORT, 1_004.0, CLOCK_SKEW_SECONDS)
    assert wait_seconds == pytest.approx(6 + CLOCK_SKEW_SECONDS)
    assert counts["taken"] == {"history 10s": {"100": 3}}
    assert take(counts, [Block(10, 4, "history")], Priority.EXPORT, 1_004.0, CLOCK_SKEW_SECONDS) == 0
    assert counts["taken"] == {"history 10s": {"100": 4}}


def test_a_block_that_only_others_count_is_kept_while_it_lasts():
    counts = no_counts()
    take(counts, [Block(60, 5, "recording")], Priority.RECORDINGS, 1_004.0, CLOCK_SKEW_SECONDS)
    take(counts, [Block(10, 5, "history")], Priority.EXPORT, 1_005.0, CLOCK_SKEW_SECONDS)
    assert counts["taken"]["recording 60s"] == {"16": 1}
    take(counts, [Block(10, 5, "history")], Priority.EXPORT, 1_100.0, CLOCK_SKEW_SECONDS)
    assert counts["taken"]["recording 60s"] == {}
