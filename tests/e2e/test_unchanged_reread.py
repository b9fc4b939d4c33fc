"""A window that is read again and serves the same rows: it is certified anew from what is there, and nothing is made.

Whatever is not as it was certified is made anew, as if it had been read for the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.context import utc_now
from pipelines.export.drift import accept_field, read_beliefs
from pipelines.export.run import RunSummary
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.data_faults import DropField
from tests.exports import FIRST, Export, assert_holds, export_of, range_ms
from transforms import calls
from transforms.schema import CALLS

LAST = FIRST + timedelta(days=1)


class Place:
    """An account, exported once, and how many batches of rows were turned into tables since."""

    def __init__(self, portal: Portal, export: Export) -> None:
        self.portal, self.export = portal, export
        self.batches = 0

    def rerun(self) -> RunSummary:
        self.batches = 0
        return self.export.run(FIRST, LAST, force=True)

    def execute(self, make: Callable[[Any], sa.Executable]) -> Any:
        with self.export.open() as pipeline, pipeline.warehouse.transaction() as connection:
            return connection.execute(make(pipeline.warehouse.tables))

    def ledger(self) -> list[Any]:
        with self.export.open() as pipeline:
            return pipeline.ledger.rows(FIRST, LAST)

    def holds_all(self) -> None:
        assert_holds(self.export, self.portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)


@pytest.fixture
def place(warehouse_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=2, calls_total=120, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    some = portal.rows(*range_ms(FIRST, FIRST))[0]
    portal.add_call(some | {"id": 1.5}, call_id="odd", start_ms=some["start_time"])
    with SimulatedPortal(portal) as server:
        found = Place(portal, export_of(server.base_url, warehouse_url, tmp_path))

        def counted(*arguments: Any, **options: Any) -> Any:
            found.batches += 1
            return calls.tables_of(*arguments, **options)

        monkeypatch.setattr("pipelines.export.publish.tables_of", counted)
        found.export.run(FIRST, LAST)
        assert found.batches == 2
        yield found


one_database = pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)


def test_the_same_rows_are_certified_anew_and_nothing_is_made_or_written(place: Place) -> None:
    before, files = place.ledger(), place.export.files()
    run = place.rerun()
    assert (place.batches, run.totals["files_written"], run.totals["calls"]) == (0, 0, 120)
    assert place.export.files() == files
    for old, new in zip(before, place.ledger(), strict=True):
        assert new.completed_at > old.completed_at
        assert (new.status, new.attempts) == ("complete", old.attempts + 1)
        same = ("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows", "content_hash", "made_by")
        assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
        assert new.claimed_by is None
    assert sum(row.rejected for row in before) == 1
    place.holds_all()


@one_database
def test_a_day_with_one_changed_row_is_made_anew_and_the_other_day_is_not(place: Place) -> None:
    row = place.portal.rows(*range_ms(FIRST, FIRST))[3]
    place.portal.update_call(row["id"], talk_duration=4321)
    place.rerun()
    assert place.batches == 1
    place.holds_all()


def _delete_a_call(tables: Any) -> sa.Executable:
    t, participants = tables["calls"], tables["call_participants"]
    without = ~sa.exists().where(participants.c.call_id == t.c.call_id)
    first = sa.select(sa.func.min(t.c.call_id)).where(without).scalar_subquery()
    return sa.delete(t).where(t.c.call_id == first)


def _mark_one_as_gone(tables: Any) -> sa.Executable:
    t = tables["calls"]
    first = sa.select(sa.func.min(t.c.call_id)).scalar_subquery()
    return sa.update(t).where(t.c.call_id == first).values(deleted_at=t.c.started_at)


@one_database
@pytest.mark.parametrize(
    "change",
    [
        _delete_a_call,
        _mark_one_as_gone,
        lambda tables: sa.delete(tables["rejected_rows"]),
        lambda tables: sa.update(tables["export_windows"]).values(status="disputed"),
        lambda tables: sa.update(tables["export_windows"]).values(content_hash="0"),
        lambda tables: sa.update(tables["export_windows"]).values(made_by=None),
        lambda tables: sa.update(tables["export_windows"]).values(made_by="other code"),
    ],
    ids=["deleted", "gone", "rejects", "disputed", "certificate", "of an earlier version", "of other code"],
)
def test_what_is_not_as_it_was_certified_is_made_anew_once(place: Place, change: Callable[[Any], Any]) -> None:
    place.execute(change)
    place.rerun()
    assert place.batches >= 1
    place.holds_all()
    place.rerun()
    assert place.batches == 0


@one_database
@pytest.mark.parametrize("table", ["calls", "call_participants"])
def test_a_file_that_somebody_removed_is_written_again(place: Place, table: str) -> None:
    files = place.export.files()
    [path] = Path(place.export.settings.lake_url).glob(f"{table}/call_date={FIRST}/*.parquet")
    path.unlink()
    place.export.run(FIRST, LAST)
    assert {name: bytes_ for name, (*_, bytes_) in place.export.files().items()} == {
        name: bytes_ for name, (*_, bytes_) in files.items()
    }


@one_database
def test_another_region_makes_other_numbers_of_the_same_rows(place: Place, tmp_path: Path) -> None:
    before = place.export.warehouse(CALLS)["customer_number_e164"]
    settings = place.export.settings.model_copy(update={"region": "DE"})
    place.export = Export(settings)
    place.rerun()
    assert place.batches == 2
    assert not place.export.warehouse(CALLS)["customer_number_e164"].equals(before)


@one_database
def test_a_field_that_is_accepted_as_gone_was_taken_for_back_where_nothing_had_changed(place: Place) -> None:
    def accepted() -> frozenset[str]:
        with place.export.open() as pipeline:
            return read_beliefs(pipeline.state).missing_fields

    place.portal.faults.append(DropField(field="direction"))
    place.rerun()
    with place.export.open() as pipeline:
        accept_field(pipeline.state, "direction", utc_now())
    for _ in range(3):
        assert place.rerun().is_complete
        assert accepted() == {"direction"}
