"""Who has to wait for the account's limits is told until when, and why; `check` does not wait."""

import json
import logging
import re
import signal
import subprocess
import threading

import httpx
import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator import faults as fault
from pipelines.stringeex.envelope import retry_after_seconds
from pipelines.stringeex.request_blocks import Block
from pipelines.stringeex.request_budget import Priority, RequestBudget
from tests.e2e.command import account, callhistory_here, command_line, environment
from transforms.errors import AccountBlockedError

TIMES = r"\d\d:\d\d:\d\d \([\d -]*\d\d:\d\d:\d\d UTC\)"
HOUR = Block(3600, 2)


@pytest.fixture
def portal():
    return Portal(options=PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def settings(portal):
    with SimulatedPortal(portal) as server:
        yield account(server.base_url, STRINGEEX_REQUESTS_PER_HOUR="9000")


@pytest.fixture
def exported(settings, tmp_path):
    """Something was exported, so there is a place where requests are counted: `check` makes none."""
    done = callhistory_here("export", cwd=tmp_path, settings=settings)
    assert done.exit_code == 0, done.output


@pytest.mark.usefixtures("exported")
def test_check_tells_at_once_that_the_account_is_blocked(portal, settings, tmp_path):
    portal.counts.clear()
    portal.faults.append(fault.RateLimited(retry_after="86400"))
    for requests in (1, 1):  # the second one knows it from the first, and asks for nothing
        checked = callhistory_here("check", "--json", cwd=tmp_path, settings=settings)
        assert checked.exit_code == 1
        [credentials] = [check for check in checked.json["checks"] if check["name"] == "credentials"]
        assert credentials["ok"] is False
        assert re.search(rf"HTTP 429\) until .*{TIMES}; it is asked again at .*{TIMES}", credentials["message"])
        assert [check["ok"] for check in checked.json["checks"]] == [True, False, True, True, True]
        assert portal.counts["history"] == requests


@pytest.mark.usefixtures("exported")
def test_check_tells_at_once_that_the_budget_is_used_up(settings, tmp_path):
    settings = settings | {"STRINGEEX_REQUESTS_PER_HOUR": "1"}
    checks = [callhistory_here("check", cwd=tmp_path, settings=settings) for _ in range(3)]
    # The next hour has a budget of its own; it may begin between two of them, and no more than once.
    refused = [checked for checked in checks if checked.exit_code == 1]
    assert refused
    for checked in refused:
        assert re.search(
            rf"budget of 1 request per hour \(STRINGEEX_REQUESTS_PER_HOUR\) is used up; waiting until .*{TIMES}",
            checked.stdout,
        )


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_export_that_has_to_wait_says_until_when_and_hears_ctrl_c(portal, settings, tmp_path, log_format):
    portal.faults.append(fault.RateLimited(retry_after="1200"))
    running = subprocess.Popen(
        command_line("backfill", "--from=2026-01-05", "--to=2026-01-07", "--verbose"),
        cwd=tmp_path,
        env=environment(settings | {"CALLHISTORY_LOG_FORMAT": log_format}),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    before = []
    for line in running.stderr:
        before.append(line)
        if "waiting until" in line:
            break
    running.send_signal(signal.SIGINT)
    _, after = running.communicate(timeout=60)
    assert running.returncode == 130, after
    told = json.loads(before[-1])["message"] if log_format == "json" else before[-1]
    assert re.fullmatch(
        rf"the API has limited the rate of this account \(HTTP 429\); waiting until .*{TIMES}", told.strip()
    )
    assert "waiting until" not in after, "once for all days"
    assert "0.0 seconds" not in "".join(before)
    assert "trying again when the account may send again" in "".join(before)


class VirtualClock:
    def __init__(self):
        self.now = 1_767_600_003.0

    def __call__(self):
        return self.now

    def wait(self, stopped, seconds):
        self.now += seconds


def budget_of(clock, *blocks, **options):
    return RequestBudget(blocks, clock=clock, wait=clock.wait, **options)


def test_each_long_wait_is_told_once_and_short_ones_are_not(caplog):
    clock = VirtualClock()
    budget = budget_of(clock, Block(10, 1, "history"), HOUR)
    for _ in range(5):
        budget.acquire("history")
    hours = [record.getMessage() for record in caplog.records]
    assert len(hours) == 2
    assert all("2 requests per hour (STRINGEEX_REQUESTS_PER_HOUR)" in line for line in hours)
    caplog.clear()
    budget.blocked("history", 4)
    budget.acquire("history")
    assert caplog.records == []
    budget.blocked("history", 1800)
    budget.acquire("history")
    [told] = caplog.records
    assert (told.name, told.levelno) == ("callhistory", logging.WARNING)


def test_waiting_for_each_minute_is_told_for_the_first_only(caplog):
    clock = VirtualClock()
    budget = budget_of(clock, Block(60, 1, "recording"), priority=Priority.RECORDINGS)
    for _ in range(10):
        budget.acquire("download_recording")
    [told] = caplog.records
    assert "1 request per minute (STRINGEEX_RECORDINGS_PER_MINUTE)" in told.getMessage()


def test_threads_that_wait_for_the_same_are_told_once(caplog):
    stopped = threading.Event()
    budget = RequestBudget([HOUR], wait=lambda event, seconds: stopped.set() or event.set())
    budget.blocked("history", 1800)
    errors = []

    def work():
        try:
            budget.acquire("history", threading.Event())
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 4
    assert len(caplog.records) == 1


def test_who_would_rather_fail_does_not_wait():
    clock = VirtualClock()
    budget = budget_of(clock, Block(10, 1), longest_wait_seconds=15)
    budget.acquire("history")
    assert budget.acquire("history") == pytest.approx(7.2)
    budget.blocked("history", 86_400)
    before = clock.now
    with pytest.raises(AccountBlockedError, match=r"history: .*until 2026-01-06 \S+ \(.*asked again at"):
        budget.acquire("history")
    assert clock.now == before


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3), ("86400", 86_400), ("2592000", 2_592_000), ("soon", None), ("-5", None), ("", None), ("1.5", 1.5)],
)
def test_a_month_of_retry_after_was_taken_for_none(value, seconds):
    assert retry_after_seconds(httpx.Response(429, headers={"Retry-After": value})) == seconds


def test_retry_after_may_be_an_instant(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1_767_600_000.0)
    for value in ("1767600060", "Mon, 05 Jan 2026 08:01:00 GMT"):
        assert retry_after_seconds(httpx.Response(429, headers={"Retry-After": value})) == pytest.approx(60)
    assert retry_after_seconds(httpx.Response(429, headers={"Retry-After": "Mon, 01 Jan 0001 00:00:00"})) in (0.0, None)
