"""Values in a form of their own: instants in seconds or as ISO 8601, numbers in any dress, durations that are none.

Each through the command, on every database.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator.data_faults import FieldAs
from tests.e2e.command import account, callhistory_here
from tests.exports import FIRST, Export, assert_holds, export_of, range_ms
from transforms.schema import CALL_PARTICIPANTS, CALLS, EXPORT_WINDOWS

INSTANT_FIELDS = ("start_time", "end_time", "answer_time", "first_answer_time", "enqueue_time")
START_MS = range_ms(FIRST, FIRST)[0] + 3_600_000
CUSTOMER = 84_900_000_001
E164 = f"+{CUSTOMER}"
LONGEST_SECONDS = 366 * 86_400


def whole_second(number: int, **fields: Any) -> dict[str, Any]:
    """A call all of whose instants are whole seconds, so that no form of them loses anything."""
    start_ms = START_MS + number * 1000
    instants = {field: start_ms + 1000 * field.count("answer") for field in INSTANT_FIELDS}
    return {
        "id": f"call-{number}", **instants, "answer_duration": 20, "queue_duration": 4, "duration": 30,
        "direction": 1, "status": 1, "customer_number": str(CUSTOMER), "participants": f"user_1;{CUSTOMER};",
        **fields,
    }  # fmt: skip


@pytest.fixture
def portal() -> Portal:
    return Portal(options=PortalOptions(rate_limits=NO_LIMITS))


@pytest.fixture
def export(portal: Portal, warehouse_url: str, tmp_path: Path) -> Iterator[Export]:
    with SimulatedPortal(portal) as server:
        yield export_of(server.base_url, warehouse_url, tmp_path)
        assert server.errors == []


def backfill(export: Export, folder: Path) -> dict[str, Any]:
    settings = export.settings
    done = callhistory_here(
        *("backfill", "--from", str(FIRST), "--to", str(FIRST), "--force", "--json"),
        cwd=folder,
        settings=account(
            settings.base_url,
            CALLHISTORY_WAREHOUSE_URL=settings.warehouse_url.get_secret_value(),
            CALLHISTORY_LAKE_URL=settings.lake_url,
        ),
    )
    assert done.exit_code == 0, done.output
    assert set(export.warehouse(EXPORT_WINDOWS)["status"].to_pylist()) == {"complete"}
    return done.json


@pytest.mark.parametrize("version", [1, 2])
def test_instants_in_another_form_became_56_years_of_waiting_or_went_to_extra(
    export: Export, portal: Portal, tmp_path: Path, version: int
) -> None:
    portal.options.supports_version_2 = version == 2
    forms: list[Any] = ["seconds", "iso8601", "iso8601_local", "float"]
    for number, form in enumerate(forms):
        portal.add_call(whole_second(number))
        portal.faults += [FieldAs(field=field, form=form, call_id=f"call-{number}") for field in INSTANT_FIELDS]
    backfill(export, tmp_path)
    assert_holds(export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    calls = export.warehouse(CALLS)
    assert set(calls["queue_seconds"].to_pylist()) == {4}
    assert set(calls["answer_seconds"].to_pylist()) == {20}
    portal.faults.clear()
    backfill(export, tmp_path)
    assert export.warehouse(CALLS).equals(calls)


def test_what_says_that_it_took_longer_than_a_year_was_an_average(
    export: Export, portal: Portal, tmp_path: Path
) -> None:
    portal.add_call(whole_second(0, talk_duration=LONGEST_SECONDS))
    portal.add_call(whole_second(1, talk_duration=START_MS // 1000, answer_duration=None, queue_duration=None))
    portal.add_call(whole_second(2, answer_time=10**9 - 1, answer_duration=None, answer_duration_minutes=10**6))
    backfill(export, tmp_path)
    for found in (export.warehouse(CALLS), export.lake(CALLS)):
        rows = found.to_pylist()
        assert [row["talk_seconds"] for row in rows] == [LONGEST_SECONDS, None, None]
        assert [(row["answer_seconds"], row["queue_seconds"]) for row in rows] == [(20, 4), (None, None), (None, 4)]
        assert [row["answer_minutes"] for row in rows] == [None] * 3
        assert [row["extra"] and row["extra"].replace(" ", "") for row in rows] == [
            None,
            f'{{"talk_duration":{START_MS // 1000}}}',
            '{"answer_duration_minutes":1000000,"answer_time":999999999}',
        ]


def test_one_customer_was_many_by_the_form_of_the_number(export: Export, portal: Portal, tmp_path: Path) -> None:
    forms: list[Any] = ["text", "float", "no_break", "tel", "sip"]
    for number, form in enumerate(forms):
        portal.add_call(whole_second(number, participants=None))
        portal.faults.append(FieldAs(field="customer_number", form=form, call_id=f"call-{number}"))
    backfill(export, tmp_path)
    for found in (export.warehouse(CALLS), export.lake(CALLS)):
        assert set(found["customer_number_e164"].to_pylist()) == {E164}
        assert set(found["customer_country"].to_pylist()) == {"VN"}
        assert set(found["extra"].to_pylist()) == {None}
    served = export.warehouse(CALLS)["customer_number"].to_pylist()
    assert served[:2] == [str(CUSTOMER)] * 2
    assert len(set(served)) == 4


def test_a_participant_was_no_number_and_a_parameter_was_a_participant(
    export: Export, portal: Portal, tmp_path: Path
) -> None:
    forms: list[Any] = [
        [float(CUSTOMER)],
        [{"number": f"tel:+{CUSTOMER};ext=12"}],
        f"sip:+{CUSTOMER}@pbx.example.com;user=phone;",
        f"(+84) {str(CUSTOMER)[2:]}",
    ]
    for number, form in enumerate(forms):
        portal.add_call(whole_second(number, participants=form))
    backfill(export, tmp_path)
    for found in (export.warehouse(CALL_PARTICIPANTS), export.lake(CALL_PARTICIPANTS)):
        people = found.to_pylist()
        assert [(row["call_id"], row["kind"], row["number_e164"]) for row in people] == [
            (f"call-{number}", "phone", E164) for number in range(len(forms))
        ]


def test_a_number_of_70_000_characters_held_an_export_up_for_minutes(
    export: Export, portal: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[int] = []
    undressed = "transforms.phones._undressed"
    monkeypatch.setattr(undressed, lambda value: searched.append(len(value)) or "")
    portal.add_call(whole_second(0, customer_number="1" + " " * 70_000 + "1", participants=["1" + " " * 70_000 + "1"]))
    backfill(export, tmp_path)
    assert all(length < 1000 for length in searched)
    (call,) = export.warehouse(CALLS).to_pylist()
    assert (len(call["customer_number"]), call["customer_number_e164"]) == (70_002, None)
    assert call["started_at"] == datetime.fromtimestamp(START_MS // 1000, UTC)
