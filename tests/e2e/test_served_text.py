"""JSON that parsers lose something of, through an export: the row is there, and what was served is kept beside it."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal
from pipelines.simulator.data_faults import FieldAs
from pipelines.simulator.text_faults import LongNumber, RepeatKey
from tests.e2e.command import callhistory_here
from tests.exports import FIRST, export_of, range_ms
from transforms.schema import CALLS, REJECTED_ROWS

TABLES = (CALLS, REJECTED_ROWS)
START_MS = range_ms(FIRST, FIRST)[0]
CALLS_SERVED = 12


@pytest.fixture
def portal():
    portal = Portal(options=PortalOptions(rate_limits=NO_LIMITS))
    for number in range(CALLS_SERVED):
        times = {"start_time": START_MS + number * 60_000, "end_time": START_MS + number * 60_000 + 5_000}
        row = {"id": f"call-{number}", **times, "direction": 1, "status": 1, "duration": 5, "contactname": "Zoë"}
        portal.add_call(row)
    return portal


@pytest.fixture
def place(portal, warehouse_url, tmp_path):
    with SimulatedPortal(portal) as server:
        yield export_of(server.base_url, warehouse_url, tmp_path)


def run(place, *arguments):
    here = {
        "CALLHISTORY_WAREHOUSE_URL": place.settings.warehouse_url.get_secret_value(),
        "CALLHISTORY_LAKE_URL": place.settings.lake_url,
    }
    folder = Path(place.settings.lake_url).parent
    return callhistory_here(*arguments, "--json", f"--from={FIRST}", f"--to={FIRST}", cwd=folder, settings=here)


def raw_lines(place):
    """Every line of the raw copy, by call id."""
    lines = []
    for file in sorted(Path(place.settings.lake_url).glob("raw/*/*.zst")):
        with pa.input_stream(str(file), compression="zstd") as stream:
            lines += stream.read().decode().splitlines()
    return {json.loads(line)["id"]: line for line in lines}


def call(place, call_id):
    [row] = [row for row in place.warehouse(CALLS).to_pylist() if row["call_id"] == call_id]
    return row | {"extra": row["extra"] and json.loads(row["extra"])}


def assert_again_and_from_raw_the_same(place):
    """Read again, nothing changes; rebuilt from the raw copy alone, everything is what it was."""
    before, files = place.warehouse_tables(TABLES), place.files()
    assert place.lake(CALLS).equals(before[CALLS.name])
    assert place.run(FIRST, FIRST, force=True).is_complete
    assert place.warehouse_tables(TABLES) == before
    assert place.files() == files
    shutil.rmtree(f"{place.settings.lake_url}/{CALLS.name}")
    with place.open() as pipeline, pipeline.warehouse.transaction() as connection:
        for table in TABLES:
            connection.execute(sa.delete(pipeline.warehouse.tables[table.name]))
    done = run(place, "replay")
    assert done.exit_code == 0, done.output
    assert place.warehouse_tables(TABLES) == before
    assert place.lake(CALLS).equals(before[CALLS.name])


def test_one_byte_that_is_no_utf8_withheld_the_whole_day(portal, place):
    portal.faults.append(FieldAs(field="contactname", form="invalid_utf8", call_id="call-3"))
    portal.update_call("call-5", contactname=None, campaign_name="a\tb")
    assert place.run(FIRST, FIRST).is_complete
    assert place.warehouse(CALLS).num_rows == CALLS_SERVED
    odd = call(place, "call-3")
    assert odd["contact_name"] == "Z\ufffdoë"
    assert odd["extra"] == {"contactname": "Z\udcffoë"}
    assert [call(place, f"call-{number}")["contact_name"] for number in (2, 4)] == ["Zoë", "Zoë"]
    assert '"contactname":"Z\\udcffoë"' in raw_lines(place)["call-3"]
    assert_again_and_from_raw_the_same(place)


def test_a_wrong_byte_in_a_name_that_names_the_field_or_the_call_stops_nothing(portal, place):
    portal.faults.append(FieldAs(field="id", form="invalid_utf8", call_id="call-3"))
    assert place.run(FIRST, FIRST).is_complete
    assert place.warehouse(CALLS).num_rows == CALLS_SERVED - 1
    [reject] = place.warehouse(REJECTED_ROWS).to_pylist()
    assert reject["reason"] == "unusable_id"
    assert json.loads(reject["payload"])["id"] == "c\udcffall-3"
    assert_again_and_from_raw_the_same(place)


def test_the_first_of_two_equal_keys_is_kept(portal, place):
    portal.faults += [
        RepeatKey(field="contactname", earlier="Lan", call_id="call-1"),
        RepeatKey(field="duration", earlier=5, call_id="call-2"),
        RepeatKey(field="mood", earlier="good", call_id="call-3"),
        RepeatKey(field="id", earlier="another-id", call_id="call-4"),
    ]
    portal.update_call("call-3", mood="bad")
    assert place.run(FIRST, FIRST).is_complete
    assert call(place, "call-1")["contact_name"] == "Zoë"
    assert call(place, "call-1")["extra"] == {"contactname": "Lan"}
    assert call(place, "call-2")["extra"] is None, "the same value twice says nothing"
    assert call(place, "call-3")["extra"] == {"mood": ["good", "bad"]}
    assert call(place, "call-4")["extra"] == {"id": "another-id"}
    assert raw_lines(place)["call-1"].startswith('{"contactname":"Lan","id":"call-1",')
    assert '"contactname":"Zoë"' in raw_lines(place)["call-1"]
    assert_again_and_from_raw_the_same(place)


def test_a_number_is_kept_to_its_last_digit(portal, place):
    portal.faults += [
        LongNumber(field="score", call_id="call-1"),
        LongNumber(field="duration", text="5.00000000000000000001", call_id="call-2"),
        LongNumber(field="start_time", text="1767500000000.00000000001", call_id="call-3"),
    ]
    assert place.run(FIRST, FIRST).is_complete
    extras = {row["call_id"]: row["extra"] for row in place.warehouse(CALLS).to_pylist()}
    assert extras["call-1"] == '{"score":0.1234567890123456789}'
    assert call(place, "call-2")["duration_seconds"] == 5, "a number that a double rounds goes where it always went"
    lines = raw_lines(place)
    assert '"score":0.1234567890123456789' in lines["call-1"]
    assert '"duration":5.00000000000000000001' in lines["call-2"]
    assert '"start_time":1767500000000.00000000001' in lines["call-3"]
    assert_again_and_from_raw_the_same(place)
