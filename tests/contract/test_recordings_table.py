"""The table ``recordings``, snapshots of calls in progress, and the view over both histories, on every database."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from sinks.live_calls import store_snapshot
from sinks.recordings import Recordings, RecordingStatus
from sinks.warehouse import Warehouse
from transforms.live_calls import live_call

DAY = datetime(2026, 1, 5, tzinfo=UTC)
NOON = DAY + timedelta(hours=12)
HOUR = timedelta(hours=1)


def call(call_id: str, started_at: datetime = NOON, **values: Any) -> dict[str, Any]:
    return {
        "call_id": call_id,
        "direction": "inbound",
        "status": "answered",
        "channel": "voice",
        "started_at": started_at,
        "call_date": date(2026, 1, 5),
        "call_hour": 12,
        "started_at_local": datetime(2026, 1, 5, 19),  # noqa: DTZ001
        "is_recorded": True,
        "participant_count": 0,
        "row_hash": "0",
        "window_start": DAY,
        "first_seen_at": NOON,
        "updated_at": NOON,
        **values,
    }


def insert_calls(warehouse: Warehouse, *rows: dict[str, Any]) -> None:
    table = warehouse.tables["calls"]
    with warehouse.transaction() as connection:
        connection.execute(
            sa.insert(table), [{column.name: row.get(column.name) for column in table.columns} for row in rows]
        )


def publish(warehouse: Warehouse, start: datetime = DAY, end: datetime = DAY + 24 * HOUR) -> None:
    with warehouse.transaction() as connection:
        Recordings(warehouse).add_pending(connection, start, end)


def rows(warehouse: Warehouse, name: str = "recordings") -> list[dict[str, Any]]:
    table = warehouse.tables[name]
    with warehouse.reading() as connection:
        return [dict(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key)).mappings()]


@pytest.fixture
def recordings(warehouse: Warehouse) -> Recordings:
    return Recordings(warehouse)


def test_an_export_adds_what_was_recorded_or_left_a_voicemail(warehouse: Warehouse, recordings: Recordings) -> None:
    insert_calls(
        warehouse,
        call("recorded"),
        call("voicemail", is_recorded=False, has_voicemail=True),
        call("silent", is_recorded=False, has_voicemail=False),
        call("unknown", is_recorded=None, has_voicemail=None),
        call("vanished", deleted_at=NOON),
        call("before", DAY - timedelta(milliseconds=1)),
        call("first", DAY),
        call("after", DAY + 24 * HOUR),
    )
    publish(warehouse)
    assert [row["call_id"] for row in rows(warehouse)] == ["first", "recorded", "voicemail"]
    pending = rows(warehouse)[0]
    assert {name for name, value in pending.items() if value is not None} == {
        "call_id",
        "status",
        "attempts",
        "legal_hold",
    }
    assert (pending["status"], pending["attempts"], pending["legal_hold"]) == ("pending", 0, False)
    assert recordings.counts() == dict.fromkeys(RecordingStatus, 0) | {RecordingStatus.PENDING: 3}


def test_doing_a_window_again_adds_what_was_recorded_since_and_touches_nothing_else(
    warehouse: Warehouse, recordings: Recordings
) -> None:
    insert_calls(warehouse, call("a"), call("b"), call("c", is_recorded=False))
    publish(warehouse)
    recordings.save({"a": {"status": "archived", "archive_path": "x", "bytes": 1, "sha256": "s", "archived_at": NOON}})
    before = rows(warehouse)
    publish(warehouse)
    assert rows(warehouse) == before
    with warehouse.transaction() as connection:
        connection.execute(sa.update(warehouse.tables["calls"]).values(is_recorded=True))
    publish(warehouse)
    assert rows(warehouse)[:2] == before
    assert [row["call_id"] for row in rows(warehouse)] == ["a", "b", "c"]


def test_due_is_oldest_first_and_leaves_out_what_is_not_due(warehouse: Warehouse, recordings: Recordings) -> None:
    started = {"d": NOON - HOUR, "b": NOON, "a": NOON, "c": NOON + HOUR, "later": NOON, "done": NOON, "gone": NOON}
    insert_calls(warehouse, *(call(name, at, record_path=f"/{name}") for name, at in started.items()))
    publish(warehouse)
    recordings.save(
        {
            "later": {"status": "not_ready", "next_attempt_at": NOON + HOUR, "attempts": 2},
            "c": {"status": "failed", "next_attempt_at": NOON},
            "done": {"status": "archived"},
            "gone": {"status": "missing"},
        }
    )
    due = list(recordings.due(NOON))
    assert [wanted.call_id for wanted in due] == ["d", "a", "b", "c"]
    assert recordings.count_due(NOON) == 4
    assert due[0].facts["record_path"] == "/d"
    assert due[0].facts["status"] == "answered"
    assert due[-1].status is RecordingStatus.FAILED
    assert (due[0].ended_at, due[0].call_date) == (NOON - HOUR, date(2026, 1, 5))
    assert recordings.count_due(NOON + HOUR) == 5
    assert [w.attempts for w in recordings.due(NOON + HOUR) if w.call_id == "later"] == [2]


def test_due_is_read_in_parts_that_lose_and_repeat_nothing(
    warehouse: Warehouse, recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sinks.recordings._ROWS_PER_READ", 4)
    ids = [f"call-{number:02}" for number in range(21)]
    insert_calls(warehouse, *(call(name, NOON + HOUR * (number // 6)) for number, name in enumerate(ids)))
    publish(warehouse)
    seen = []
    for wanted in recordings.due(NOON):
        seen.append(wanted.call_id)
        recordings.save({wanted.call_id: {"status": "archived", "archive_path": "p", "bytes": 1, "sha256": "s"}})
    assert seen == ids
    assert [kept.call_id for kept in recordings.kept()] == ids


def test_a_failure_does_not_undo_what_another_run_has_archived(warehouse: Warehouse, recordings: Recordings) -> None:
    insert_calls(warehouse, call("a"), call("b"))
    publish(warehouse)
    recordings.save({"a": {"status": "archived"}})
    recordings.save({"a": {"status": "failed", "attempts": 1}, "b": {"status": "failed", "attempts": 1}})
    assert [(row["status"], row["attempts"]) for row in rows(warehouse)] == [("archived", 0), ("failed", 1)]


def test_what_may_be_deleted_at_the_source(warehouse: Warehouse, recordings: Recordings) -> None:
    names = ("held", "new", "old", "deleted", "pending")
    insert_calls(warehouse, *(call(name, DAY if name != "new" else NOON) for name in names))
    publish(warehouse)
    archived = {"status": "archived", "archive_path": "p", "bytes": 5, "sha256": "s"}
    recordings.save(
        {
            "held": {**archived, "legal_hold": True},
            "new": archived,
            "old": archived,
            "deleted": {**archived, "status": "deleted_at_source", "source_deleted_at": NOON},
        }
    )
    assert [kept.call_id for kept in recordings.deletable(NOON)] == ["old"]
    assert recordings.count_held() == 1
    assert recordings.is_held("held")
    assert not recordings.is_held("old")
    assert {name: recordings.confirm_deletable(name, NOON) for name in names} == {
        "held": False,
        "new": True,
        "old": True,
        "deleted": False,
        "pending": False,
    }
    assert {row["call_id"] for row in rows(warehouse) if row["verified_at"] == NOON} == {"new", "old"}
    kept = recordings.kept_one("old")
    assert kept is not None
    assert (kept.archive_path, kept.bytes, kept.sha256, kept.started_at) == ("p", 5, "s", DAY)
    assert recordings.kept_one("pending") is None


def test_what_is_doubtful_is_counted_and_not_deleted_by_its_age(warehouse: Warehouse, recordings: Recordings) -> None:
    names = ("sound", "doubtful", "new", "held", "gone", "failed")
    insert_calls(warehouse, *(call(name, DAY if name != "new" else NOON) for name in names))
    publish(warehouse)
    archived = {"status": "archived", "archive_path": "p", "bytes": 5, "sha256": "s"}
    doubtful = {**archived, "doubt": "unknown_format"}
    recordings.save(
        {
            "sound": archived,
            "doubtful": doubtful,
            "new": doubtful,
            "held": {**doubtful, "legal_hold": True},
            "gone": {**doubtful, "status": "deleted_at_source"},
            "failed": {"status": "failed", "doubt": "unknown_format"},
        }
    )
    assert [kept.call_id for kept in recordings.deletable(NOON)] == ["sound"]
    assert recordings.count_doubtful() == 4
    assert recordings.count_doubtful_deletable(NOON) == 1
    assert recordings.confirm_deletable("doubtful", NOON), "somebody has named it"
    kept = recordings.kept_one("doubtful")
    assert kept is not None
    assert kept.doubt == "unknown_format"


def test_what_is_missing_or_failed_is_wanted_again_on_demand(warehouse: Warehouse, recordings: Recordings) -> None:
    names = ("archived", "failed", "missing", "none", "not_ready")
    insert_calls(warehouse, *map(call, names))
    publish(warehouse)
    later = {"next_attempt_at": NOON + HOUR, "not_found_count": 3, "first_not_found_at": NOON}
    recordings.save({name: {"status": name, **later} for name in names})
    recordings.want_lost_again()
    assert [wanted.call_id for wanted in recordings.due(NOON)] == ["failed", "missing"]
    [wanted] = [wanted for wanted in recordings.due(NOON) if wanted.call_id == "missing"]
    assert (wanted.not_found_count, wanted.first_not_found_at) == (3, NOON)
    assert (wanted.status, wanted.is_promised) == (RecordingStatus.PENDING, True)


def test_only_what_version_0_1_0_took_for_missing_is_wanted_again_by_itself(
    warehouse: Warehouse, recordings: Recordings
) -> None:
    insert_calls(warehouse, call("old"), call("new"), call("without address"))
    publish(warehouse)
    missing = {"status": "missing"}
    recordings.save(
        {
            "old": missing,
            "new": {**missing, "not_found_count": 3},
            "without address": {**missing, "not_found_count": 0},
        }
    )
    for _ in range(2):
        recordings.want_again_after_one_answer()
        assert [wanted.call_id for wanted in recordings.due(NOON)] == ["old"]


def test_what_nobody_had_promised_is_wanted_once_the_history_promises_it(
    warehouse: Warehouse, recordings: Recordings
) -> None:
    insert_calls(warehouse, call("a", is_recorded=False, has_voicemail=True), call("b", has_voicemail=True))
    publish(warehouse)
    recordings.save({"a": {"status": "none"}, "b": {"status": "archived"}})
    publish(warehouse)
    assert [row["status"] for row in rows(warehouse)] == ["none", "archived"]
    calls = warehouse.tables["calls"]
    with warehouse.transaction() as connection:
        connection.execute(sa.update(calls).values(is_recorded=True))
    publish(warehouse, DAY + 24 * HOUR, DAY + 48 * HOUR)
    assert rows(warehouse)[0]["status"] == "none", "another window's"
    publish(warehouse)
    assert [row["status"] for row in rows(warehouse)] == ["pending", "archived"]


def test_a_sample_is_what_was_not_verified_for_the_longest_time(warehouse: Warehouse, recordings: Recordings) -> None:
    verified = {"a": NOON, "b": None, "c": DAY, "d": None}
    insert_calls(warehouse, *map(call, verified))
    publish(warehouse)
    archived = {"status": "archived", "archive_path": "p", "bytes": 5, "sha256": "s"}
    recordings.save({name: {**archived, "verified_at": at} for name, at in verified.items()})
    assert [kept.call_id for kept in recordings.kept(most=3)] == ["b", "d", "c"]


def view(warehouse: Warehouse) -> list[tuple[Any, ...]]:
    names = ("call_id", "direction", "status", "call_hour", "is_provisional", "customer_number_e164", "talk_seconds")
    table = sa.table("calls_with_live", *map(sa.column, names), schema=warehouse.tables["calls"].schema)
    with warehouse.reading() as connection:
        found = connection.execute(sa.select(table).order_by(table.c.call_id)).tuples().all()
    return [(*row[:4], bool(row[4]), *row[5:]) for row in found]


def live(call_id: str) -> Any:
    row = {
        "callId": call_id,
        "direction": "callin",
        "startTime": int(NOON.timestamp() * 1000),
        "answeredTime": 0,
        "customerNumber": "0900000001",
    }
    return live_call(row, timezone="Asia/Ho_Chi_Minh", region="VN")


def test_the_view_shows_the_history_and_the_newest_snapshot_each_call_once(warehouse: Warehouse) -> None:
    insert_calls(
        warehouse,
        call("a", talk_seconds=7),
        call("vanished", deleted_at=NOON),
    )
    history = ("a", "inbound", "answered", 12, False, None, 7)
    assert view(warehouse) == [history]
    store_snapshot(warehouse, NOON, [live("a"), live("b"), live("c")])
    in_progress = [(name, "inbound", "in_progress", 19, True, "+84900000001", None) for name in ("b", "c")]
    assert view(warehouse) == [history, *in_progress]
    warehouse.prepare()
    store_snapshot(warehouse, NOON + HOUR, [live("c")])
    assert view(warehouse) == [history, in_progress[1]]
    insert_calls(warehouse, call("c", NOON))
    assert [row[:5] for row in view(warehouse)] == [history[:5], ("c", "inbound", "answered", 12, False)]
    store_snapshot(warehouse, NOON + 2 * HOUR, [])
    assert [row[0] for row in view(warehouse)] == ["a", "c"]
    stored = [(row["snapshot_at"], row["call_id"], row["superseded_at"]) for row in rows(warehouse, "live_calls")]
    assert stored == [
        (NOON, "a", NOON + HOUR),
        (NOON, "b", NOON + HOUR),
        (NOON, "c", NOON + HOUR),
        (NOON + HOUR, "c", NOON + 2 * HOUR),
    ]


def test_a_view_of_an_older_version_is_made_anew(warehouse: Warehouse) -> None:
    schema, state = warehouse.tables["calls"].schema, warehouse.tables["pipeline_state"]
    name = f"{schema}.calls_with_live" if schema else "calls_with_live"
    with warehouse.transaction() as connection:
        if not warehouse.is_embedded:
            connection.exec_driver_sql(f"DROP VIEW {name}_masked")
        connection.exec_driver_sql(f"DROP VIEW {name}")
        connection.exec_driver_sql(f"CREATE VIEW {name} AS SELECT 1 AS call_id")
        older = ["view calls_with_live", "view and index declarations"]
        connection.execute(sa.update(state).where(state.c.name.in_(older)).values(value='"another digest"'))
    warehouse.prepare()
    insert_calls(warehouse, call("a"))
    assert [row[0] for row in view(warehouse)] == ["a"]
