"""A source whose fields change: nothing is lost, the run says so, and the command says since when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests.e2e.command import account, callhistory_here
from tests.exports import FIRST, ZONE, Export, export_of, range_ms
from transforms.field_types import MAX_FIELDS, OTHER_FIELDS, FieldTypes, count_field_types
from transforms.schema import CALLS, SOURCE_FIELDS

SECOND, THIRD = FIRST + timedelta(days=1), FIRST + timedelta(days=2)


@pytest.fixture
def portal() -> Portal:
    """Three days; on the second one a field is new and one has another type, on the third one a field is gone."""
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=3, calls_total=90, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    for day in (SECOND, THIRD):
        for row in portal.rows(*range_ms(day, day)):
            portal.remove_call(row["id"])
            changed = row | {"sentiment": "good", "talk_duration": str(row["talk_duration"])}
            if day == THIRD:
                del changed["campaign_name"]
            portal.add_call(changed)
    return portal


@pytest.fixture
def export(portal: Portal, tmp_path: Path) -> Iterator[Export]:
    with SimulatedPortal(portal) as server:
        yield export_of(server.base_url, f"duckdb:///{tmp_path}/warehouse.duckdb", tmp_path)


def drift_of(summary: dict[str, Any]) -> set[tuple[str, str, tuple[str, ...], str]]:
    return {(d["kind"], d["field"], tuple(d["json_types"]), d["since"]) for d in summary["drift"]}


def test_each_run_reports_what_is_new_and_the_command_all_of_it(portal: Portal, export: Export, tmp_path: Path) -> None:
    def run(day: Any) -> set[tuple[str, str, tuple[str, ...], str]]:
        portal.clock.set(day_bounds(day, ZONE)[1])
        return drift_of(export.run(day, day, now=day_bounds(day, ZONE)[1]).to_dict())

    original = run(FIRST)
    found = {
        ("new_field", "sentiment", ("string",), str(SECOND)),
        ("type_changed", "talk_duration", ("string",), str(SECOND)),
    }
    gone = ("disappeared", "campaign_name", ("string",), str(THIRD))
    assert not {field for _, field, *_ in original} & {"sentiment", "talk_duration", "campaign_name"}
    assert run(SECOND) >= found
    on_third = run(THIRD)
    assert gone in on_third
    assert found.isdisjoint(on_third)
    settings = account("http://127.0.0.1:1", CALLHISTORY_LAKE_URL=export.settings.lake_url,
        CALLHISTORY_WAREHOUSE_URL=export.settings.warehouse_url.get_secret_value())  # fmt: skip
    done = callhistory_here("drift", "--json", cwd=tmp_path, settings=settings)
    assert done.exit_code == 0
    assert drift_of(done.json) >= found | {gone}
    assert [d["before"] for d in done.json["drift"] if d["field"] == "talk_duration"] == [["integer"]]
    shown = callhistory_here("drift", cwd=tmp_path, settings=settings).stdout
    assert "sentiment" in shown
    assert str(SECOND) in shown

    calls = export.warehouse(CALLS).to_pandas()
    later = calls[calls["call_date"] > FIRST]
    assert {orjson.loads(extra)["sentiment"] for extra in later["extra"]} == {"good"}
    assert later["talk_seconds"].notna().all()
    assert next(d for d in done.json["drift"] if d["field"] == "sentiment")["rows"] == len(later)


def test_a_run_that_finds_nothing_changed_does_not_touch_the_statistics(export: Export) -> None:
    export.run(FIRST, THIRD)
    before = export.warehouse(SOURCE_FIELDS)
    again = export.run(FIRST, THIRD, force=True)
    assert export.warehouse(SOURCE_FIELDS).equals(before)
    assert not {kind for kind, *_ in drift_of(again.to_dict())} & {"new_field", "type_changed"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=4), json_values, max_size=4) | json_values, max_size=8), st.integers(0, 8)
)
def test_every_field_of_every_object_is_counted_once_wherever_batches_are_cut(rows: list[Any], cut: int) -> None:
    whole: FieldTypes = FieldTypes()
    count_field_types(rows, whole)
    in_parts: FieldTypes = FieldTypes()
    count_field_types(rows[:cut], in_parts)
    count_field_types(rows[cut:], in_parts)
    assert whole == in_parts
    assert whole.total() == sum(len(row) for row in rows if isinstance(row, dict))


def test_fields_without_end_are_bounded_and_none_is_lost() -> None:
    counts: FieldTypes = FieldTypes()
    count_field_types([{f"field {number}": number} for number in range(3 * MAX_FIELDS)], counts)
    assert len(counts) == MAX_FIELDS + 1
    assert counts[OTHER_FIELDS, "integer"] == 2 * MAX_FIELDS
