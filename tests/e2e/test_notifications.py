"""Alerts and notifications as an operator meets them: a real receiver on loopback, told once and once more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import open_stores_to_read, utc_now
from pipelines.export.run import run_plans
from pipelines.settings import load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator import faults as fault
from pipelines.watch.last_runs import RunKind, read_run_end
from pipelines.watch.notifications import deliver, notified
from pipelines.watch.status import read_status
from pipelines.windows import day_bounds
from sinks.ledger import ClaimedDay, Ledger
from sinks.warehouse import Warehouse
from tests.e2e.command import account, callhistory_here
from tests.receiver import Receiver, receiving
from tests.today import TODAY, ZONE

FIRST = TODAY - timedelta(days=3)
WAREHOUSE = "sqlite:///warehouse.db"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def portal() -> Portal:
    """Calls on three days, of which the first is refused."""
    portal = Portal(
        generate(7, FIRST, 3, 100, timezone=ZONE, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    refuse(portal, FIRST)
    return portal


def refuse(portal: Portal, day: Any) -> None:
    start_ms = int(day_bounds(day, ZONE)[0].timestamp() * 1000)
    portal.faults.append(fault.Envelope(r=7, message="no", when=lambda request: str(start_ms) in str(request.query)))


@contextmanager
def running(portal: Portal, folder: Path, **settings: str) -> Iterator[Any]:
    with SimulatedPortal(portal) as server:
        days = {
            "CALLHISTORY_TIMEZONE": ZONE,
            "CALLHISTORY_START_DATE": str(FIRST),
            "CALLHISTORY_WAREHOUSE_URL": WAREHOUSE,
        }
        known = account(server.base_url, **days, **settings)

        def run(*arguments: str, **more: str) -> Any:
            return callhistory_here(*arguments, cwd=folder, settings=known | more)

        run.settings = known  # type: ignore[attr-defined]
        yield run


def test_told_once_when_it_begins_and_once_when_it_is_over(portal: Portal, receiver: Receiver, tmp_path: Path) -> None:
    with running(portal, tmp_path, CALLHISTORY_NOTIFY_URLS=receiver.url) as run:
        assert run("export").exit_code == 3
        assert all(message["authorised"] for message in receiver.messages)
        failed, begun = receiver.take()
        assert failed.startswith("callhistory: export failed: 1 of 4 windows failed; they are due again")
        assert begun.startswith("callhistory: 1 alert: ")
        assert f"{FIRST} is not complete (1 failed). To do: " in begun

        shown = run("alerts", "--json", "--notify")
        assert shown.exit_code == 3
        [alert] = shown.json["alerts"]
        assert (alert["kind"], alert["key"]) == ("incomplete", f"incomplete {FIRST}")
        assert datetime.fromisoformat(alert["since"]) == day_bounds(FIRST, ZONE)[1]
        assert run("status", "--json").json["alerts"] == [alert]
        assert re.search(r"^alerts +1 \(", run("status").stdout, re.MULTILINE)
        text = run("alerts").stdout
        assert text.startswith(f"incomplete: {FIRST} is not complete")
        assert "to do: callhistory status" in text

        assert run("export").exit_code == 3
        assert receiver.take() == [], "it is known already"

        portal.faults.clear()
        assert run("export").exit_code == 0
        works, over = receiver.take()
        assert works.startswith("callhistory: export works again: ")
        assert over == f"callhistory: an alert is over: Over: {FIRST} is not complete (1 failed)."

        assert run("export").exit_code == 0
        quiet = run("alerts", "--notify")
        assert (quiet.exit_code, quiet.stdout) == (0, "Nothing to look at.\n")
        assert receiver.take() == []
        assert run("status", "--json").json["alerts"] == []


def test_a_day_that_another_run_keeps_for_too_long_is_no_green_run(
    portal: Portal, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portal.faults.clear()
    monkeypatch.setattr("pipelines.export.run.run_plans", partial(run_plans, patience=timedelta(0)))
    with running(portal, tmp_path, CALLHISTORY_NOTIFY_URLS=receiver.url) as run:
        start, end = day_bounds(FIRST, ZONE)
        theirs = ClaimedDay(FIRST, start, end, "theirs/1")
        warehouse_url = f"sqlite:///{tmp_path}/warehouse.db"
        with Warehouse(warehouse_url) as warehouse:
            warehouse.prepare()
            assert Ledger(warehouse).claim_day(theirs, [], timedelta(minutes=2)) == {}
            done = run("export")
            assert done.exit_code == 3, done.output
            expected = "callhistory: export failed: 1 of 4 windows are left to another run, still at work"
            assert receiver.take()[0].startswith(expected)
            Ledger(warehouse).release_day(theirs)
        assert run("export").exit_code == 0
        assert receiver.take()[0].startswith("callhistory: export works again: ")


def test_what_cannot_be_delivered_is_one_line_and_is_told_next_time(
    portal: Portal, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.is_down = True
    with running(portal, tmp_path, CALLHISTORY_NOTIFY_URLS=receiver.url) as run:
        done = run("export", "--json")
        assert (done.exit_code, done.json["complete"]) == (3, False)
        lines = [record.getMessage() for record in caplog.records]
        assert lines == ["a notification did not get to address 1 of CALLHISTORY_NOTIFY_URLS: it was not taken"] * 2
        assert "hush-hush" not in done.output + caplog.text
        receiver.is_down = False
        run("export")
        assert [message.split(":")[1] for message in receiver.take()] == [" export failed", " 1 alert"]
        portal.faults.clear()
        receiver.is_down = True
        assert run("export").exit_code == 0
        receiver.is_down = False
        assert run("export").exit_code == 0
        assert [message.split(":")[1] for message in receiver.take()] == [" export works again", " an alert is over"]


def test_a_backfill_that_fails_is_told_each_time(portal: Portal, receiver: Receiver, tmp_path: Path) -> None:
    with running(portal, tmp_path) as run:
        assert run("export").exit_code == 3
        day = str(FIRST)
        for _ in range(2):
            run("backfill", "--from", day, "--to", day, CALLHISTORY_NOTIFY_URLS=receiver.url)
    told = [message.split(":")[1] for message in receiver.take()]
    assert told == [" backfill failed", " 1 alert", " backfill failed"]


def test_no_message_holds_a_secret_or_anybodys_data(portal: Portal, receiver: Receiver, tmp_path: Path) -> None:
    start, end = day_bounds(FIRST, ZONE)[0], day_bounds(TODAY, ZONE)[0]
    rows = portal.rows(int(start.timestamp() * 1000), int(end.timestamp() * 1000))
    portal.faults[:] = [fault.Envelope(r=7, message=f"refused {rows[0]['id']}")]
    with running(portal, tmp_path, CALLHISTORY_NOTIFY_URLS=receiver.url) as run:
        run("export")

        def stumble() -> dict[str, Any]:
            raise ValueError("row +84900000001")

        folder = {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/warehouse.db"}
        with pytest.raises(ValueError, match="row"):
            notified(load_settings(None, overrides=run.settings | folder), RunKind.BACKFILL, stumble)
    told = "\n".join(receiver.take())
    assert "backfill failed: ValueError." in told
    secrets = [CREDENTIALS.api_key_secret, CREDENTIALS.api_key_sid, "hush-hush", "+8490", rows[0]["id"]]
    assert [text for text in secrets if text in told] == []


def test_a_run_without_a_warehouse_is_told_all_the_same(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = account("http://127.0.0.1:9", CALLHISTORY_NOTIFY_URLS=receiver.url)
    wrong = settings | {"CALLHISTORY_WAREHOUSE_URL": "duckdb:///file/warehouse.duckdb"}
    assert callhistory_here("export", cwd=tmp_path, settings=wrong).exit_code == 1
    [told] = receiver.take()
    assert told.startswith("callhistory: export failed: ")


def test_one_address_that_works_is_enough(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings(
        None, require_api=False, overrides={"CALLHISTORY_NOTIFY_URLS": f"nonsense://hush, {receiver.url}"}
    )
    assert deliver(settings.notify_urls, "title", "text", is_bad=False)
    assert receiver.messages[0]["type"] == "success"
    assert [record.getMessage() for record in caplog.records] == [
        "a notification did not get to address 1 of CALLHISTORY_NOTIFY_URLS: Apprise does not know such an address"
    ]


def test_notify_needs_to_know_whom(tmp_path: Path) -> None:
    done = callhistory_here("alerts", "--notify", cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert "CALLHISTORY_NOTIFY_URLS" in done.stderr


def test_since_when_a_day_is_incomplete(portal: Portal, tmp_path: Path) -> None:
    """From its end if it was never whole, else from when it was to be read again, else from when it was begun."""
    portal.faults.clear()
    days = [FIRST + timedelta(days=n) for n in range(3)]
    ends = [day_bounds(day, ZONE)[1] for day in days]
    with running(portal, tmp_path) as run:
        assert run("export").exit_code == 0
        overrides = run.settings | {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/warehouse.db"}
    with open_stores_to_read(load_settings(None, overrides=overrides)) as stores:
        t = stores.warehouse.tables["export_windows"]
        now = utc_now()
        begun = now - timedelta(minutes=5)
        changes: list[dict[str, Any]] = [
            {"status": "failed", "completed_at": None},
            {"status": "failed", "next_reread_at": ends[1] + timedelta(days=1), "started_at": begun},
            {"status": "running", "next_reread_at": None, "started_at": begun},
        ]
        with stores.warehouse.transaction() as connection:
            for day, values in zip(days, changes, strict=True):
                connection.execute(t.update().where(t.c.call_date == day).values(values))
        found = read_status(stores, now).days
        end = read_run_end(stores.state, RunKind.EXPORT)
    assert [day.incomplete_since for day in found] == [ends[0], ends[1] + timedelta(days=1), begun, None]
    assert end is not None
    assert timedelta() <= now - end.ended_at < timedelta(minutes=5)
