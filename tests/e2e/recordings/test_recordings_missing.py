"""Recordings that are not there: believed late, told once, and asked for again on demand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.simulator import Portal, SimulatedPortal
from pipelines.simulator import faults as fault
from sinks.recordings import RecordingStatus
from sinks.warehouse import Warehouse
from tests.archives import Archived, archived_at, recordings_of
from tests.e2e.command import account, callhistory_here
from tests.e2e.recordings.portals import add_call
from tests.receiver import receiving

NOW = datetime(2026, 3, 2, 2, tzinfo=UTC)
NIGHT = timedelta(days=1)
MORNING = timedelta(minutes=-3)


def only_row(archived: Archived) -> dict[str, Any]:
    (row,) = archived.rows().values()
    return row


def test_one_404_of_an_old_calls_recording_is_not_the_last_word(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording", status=404, count=2))
    for night in range(2):
        summary = archived.run(now=NOW + night * (NIGHT + MORNING))
        assert (summary.not_ready, summary.missing, summary.is_complete) == (1, 0, True)
    assert archived.run(now=NOW + 2 * (NIGHT + MORNING)).archived == 1
    archived.check_every_recording(recordings_of(portal))
    assert only_row(archived)["not_found_count"] is None, "what it counted is over"


def test_three_answers_over_a_day_are_believed_and_told_once(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording", status=404))
    for hours in (0, 12):
        assert archived.run(now=NOW + timedelta(hours=hours)).not_ready == 1
        assert archived.run(now=NOW + timedelta(hours=hours, minutes=30)).requests == 0
    assert only_row(archived)["first_not_found_at"] == NOW
    known = archived.run(now=NOW + NIGHT)
    assert (known.missing, known.is_complete) == (1, False)
    assert [(error.status, error.call_id) for error in known.errors] == [("missing", "call-vn-1-AAAAAAAAAA-1")]
    for night in range(2, 5):
        later = archived.run(now=NOW + night * NIGHT)
        assert (later.requests, later.missing, later.is_complete) == (0, 0, True)
        assert later.statuses[RecordingStatus.MISSING] == 1

    again = archived.run(now=NOW + 6 * NIGHT, again=True)
    assert (again.requests, again.missing, again.is_complete) == (1, 1, False), "somebody asked for it, in vain"
    portal.faults.clear()
    found = archived.run(now=NOW + 7 * NIGHT, again=True)
    assert (found.archived, found.is_complete) == (1, True)
    archived.check_every_recording(recordings_of(portal))


def test_many_answers_within_a_day_are_not_enough(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path, CALLHISTORY_RECORDING_RETRIES="1h")
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording", status=404))
    with archived.open() as stores:
        table = stores.warehouse.tables["recordings"]
    for hour in range(8):
        assert archived.run(now=NOW + timedelta(hours=hour)).missing == 0
        with archived.open() as stores, stores.warehouse.transaction() as connection:
            connection.execute(sa.update(table).values(next_attempt_at=None))
    assert only_row(archived)["not_found_count"] == 8
    assert archived.run(now=NOW + NIGHT).missing == 1


def test_failures_do_not_count_as_answers(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording", status=503))
    for night in range(3):
        assert archived.run(now=NOW + night * NIGHT).failed == 1
    portal.faults[:] = [fault.Status(operation="download_recording", status=404)]
    assert [archived.run(now=NOW + night * NIGHT).missing for night in range(4, 7)] == [0, 0, 1]


def test_what_fails_is_asked_for_at_once_on_demand_and_keeps_the_run_red(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.faults.append(fault.Status(operation="download_recording", status=503))
    assert not archived.run(now=NOW).is_complete
    waiting = archived.run(now=NOW + timedelta(minutes=1))
    assert (waiting.requests, waiting.is_complete) == (0, False)
    portal.faults.clear()
    assert archived.run(now=NOW + timedelta(minutes=2), again=True).archived == 1


def test_nothing_was_promised_so_nothing_is_missing(portal: Portal, server: SimulatedPortal, tmp_path: Path) -> None:
    add_call(portal, recorded=0, have_voice_mail=1)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.options.recording_kept_days = 0.000_001
    summaries = [archived.run(now=NOW + night * NIGHT) for night in range(3)]
    assert [(summary.none, summary.missing, summary.is_complete) for summary in summaries] == [
        (0, 0, True),
        (0, 0, True),
        (1, 0, True),
    ]
    assert only_row(archived)["status"] == "none"
    assert archived.run(now=NOW + 9 * NIGHT, again=True).requests == 0

    portal.update_call("call-vn-1-AAAAAAAAAA-1", recorded=1)
    portal.options.recording_kept_days = 36_500
    archived.export()
    assert only_row(archived)["status"] == "pending", "the history says by now that there is one"
    assert archived.run(now=NOW + 10 * NIGHT).archived == 1


@pytest.mark.parametrize("call_id", [".", ".."])
def test_an_id_that_no_address_can_name_is_asked_for_nowhere_else(
    portal: Portal, server: SimulatedPortal, tmp_path: Path, call_id: str
) -> None:
    add_call(portal, call_id, record_path=None)
    add_call(portal, call_id + "%2e", record_path=None)
    archived = archived_at(server.base_url, tmp_path)
    archived.export()
    portal.log.clear()
    summary = archived.run()
    assert (summary.archived, summary.missing, summary.is_complete) == (1, 1, False)
    assert [entry.operation for entry in portal.log] == ["download_recording"], "the other id has an address"
    row = archived.rows()[call_id]
    assert (row["status"], row["next_attempt_at"]) == ("missing", None)
    assert "cannot be a part of an address" in row["last_error"]
    later = archived.run(now=datetime.now(UTC) + NIGHT)
    assert (later.requests, later.is_complete) == (0, True)

    portal.update_call(call_id, record_path=f"{server.base_url}/v1/call/recording/{call_id}%252e")
    archived.export()
    assert archived.run(again=True).archived == 1, "a link leads to it"


def test_what_version_0_1_0_took_for_missing_after_one_answer_is_asked_for_again(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    archived = archived_at(server.base_url, tmp_path, CALLHISTORY_WAREHOUSE_URL=f"sqlite:///{tmp_path}/warehouse.db")
    archived.export()
    with archived.open() as stores, stores.warehouse.transaction() as connection:
        connection.exec_driver_sql("UPDATE recordings SET status = 'missing', attempts = 1, last_error = 'HTTP 404'")
        for column in ("doubt", "not_found_count", "first_not_found_at"):
            connection.exec_driver_sql(f"ALTER TABLE recordings DROP COLUMN {column}")
    portal.faults.append(fault.Status(operation="download_recording", status=404, count=1))
    assert archived.run(now=NOW).not_ready == 1
    assert (only_row(archived)["not_found_count"], only_row(archived)["attempts"]) == (1, 2)
    assert archived.run(now=NOW + NIGHT).archived == 1


def test_a_recording_that_is_missing_for_good_is_notified_once_and_never_as_mended(
    portal: Portal, server: SimulatedPortal, tmp_path: Path
) -> None:
    add_call(portal)
    portal.options.recording_kept_days = 0.000_001
    with receiving() as receiver:
        known = account(
            server.base_url,
            STRINGEEX_RECORDINGS_PER_MINUTE="0",
            CALLHISTORY_WAREHOUSE_URL="sqlite:///warehouse.db",
            CALLHISTORY_NOTIFY_URLS=receiver.url,
        )

        def run(*arguments: str) -> int:
            return callhistory_here(*arguments, cwd=tmp_path, settings=known).exit_code

        assert run("backfill", "--from", "2026-01-05", "--to", "2026-01-05") == 0
        receiver.take()
        assert run("recordings", "archive") == 0
        assert receiver.take() == []
        with Warehouse(f"sqlite:///{tmp_path}/warehouse.db") as warehouse:
            two_answers = {"not_found_count": 2, "first_not_found_at": NOW - NIGHT, "next_attempt_at": None}
            with warehouse.transaction() as connection:
                connection.execute(sa.update(warehouse.tables["recordings"]).values(two_answers))
        assert run("recordings", "archive") == 3
        assert receiver.take() == ["callhistory: archive failed: 1 recordings missing, 0 failed."]
        assert [run("recordings", "archive") for _ in range(2)] == [0, 0]
        assert receiver.take() == []
        add_call(portal, "call-vn-1-AAAAAAAAAA-2")
        assert run("backfill", "--from", "2026-01-05", "--to", "2026-01-05", "--force") == 0
        portal.faults.append(fault.Status(operation="download_recording", status=503))
        assert run("recordings", "archive") == 3
        portal.faults.clear()
        portal.options.recording_kept_days = 36_500
        assert run("recordings", "archive", "--again") == 0
        failed, works = receiver.take()
        assert failed == "callhistory: archive failed: 0 recordings missing, 1 failed."
        assert works.startswith("callhistory: archive works again: ")
