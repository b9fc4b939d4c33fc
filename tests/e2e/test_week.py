"""A week of nightly exports, by a simulated clock, from a portal with bad nights; then it is mended.

In the end everything is complete, and equal to what a week without any fault has come to. ``Scenario`` says what is
wrong in which night, and what has to be seen in the morning after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipelines.export.run import RunSummary
from pipelines.simulator import (
    NO_LIMITS,
    Clock,
    Fault,
    OddRows,
    Portal,
    PortalOptions,
    SimulatedPortal,
    generate,
    mixed_faults,
)
from pipelines.simulator.faults import (
    Cut,
    DropField,
    DuplicateIds,
    EmptyBody,
    Envelope,
    FewerRows,
    InvalidJson,
    NothingThere,
    NullField,
    OnlyShare,
    RenameField,
    Status,
    WrongTotal,
)
from pipelines.windows import day_bounds
from tests.exports import FIRST, ZONE, Export, expected, export_of, range_ms
from transforms.schema import CALL_PARTICIPANTS, CALLS, EXPORT_WINDOWS, REJECTED_ROWS

pytestmark = pytest.mark.usefixtures("retries_at_once")

NIGHTS = 7
LAST = FIRST + timedelta(days=NIGHTS - 1)
MONTH_LATER = day_bounds(LAST, ZONE)[1] + timedelta(days=30, hours=2)
"""When each day is due to be read for the last time."""

COMPARED = (CALLS, CALL_PARTICIPANTS, REJECTED_ROWS, EXPORT_WINDOWS)
TIMES = ("first_seen_at", "updated_at", "started_at", "completed_at", "claim_expires_at", "next_reread_at")
"""When the bookkeeping was done. ``started_at`` of a call is no such time, and stays."""
HISTORY = ("attempts", "late_changes", "run_id")
"""How it came to be so: a bad night has more attempts, and what it withheld was no late change."""


def day(number: int) -> date:
    """The local day before night ``number``, from 0."""
    return FIRST + timedelta(days=number)


def night(number: int) -> datetime:
    """02:00 local after day ``number``."""
    return day_bounds(day(number), ZONE)[1] + timedelta(hours=2)


@dataclass
class Week:
    """A company: its portal, which goes on living, and its export."""

    portal: Portal
    export: Export

    def sleep(self, number: int, faults: Sequence[Fault] = ()) -> RunSummary:
        """Have a day go by, run the export in the night after it, and return what it did."""
        if number == 2:
            self.portal.remove_call(self.call_of(0, 3))
        if number == 4:
            self.portal.update_call(self.call_of(1, 5), contactname="Lê Văn Sau", acw_duration=77)
        return self.run(night(number), faults)

    def run(self, now: datetime, faults: Sequence[Fault] = ()) -> RunSummary:
        self.portal.clock.set(now)
        self.portal.faults[:] = faults
        today = now.astimezone(day_bounds(FIRST, ZONE)[0].tzinfo).date()
        return self.export.run(FIRST, min(today, LAST), now=now)

    def call_of(self, number: int, index: int) -> str:
        """The id of a call of a day: the same one in each portal of a week."""
        return self.portal.keys(*range_ms(day(number), day(number)))[index][1]

    def calls(self) -> set[str]:
        """The ids of the calls in the lake; in the warehouse are the same, besides those marked as vanished."""
        in_warehouse, in_lake = self.export.warehouse(CALLS), self.export.lake(CALLS)
        present = in_warehouse.filter(pc.is_null(in_warehouse["deleted_at"]))
        assert in_lake["call_id"].to_pylist() == present["call_id"].to_pylist()
        return set(in_lake["call_id"].to_pylist())

    def served(self) -> set[str]:
        """The ids of the calls that the portal has in truth, its faults left out."""
        return set(expected(self.portal.rows(*range_ms(FIRST, LAST)), FIRST, LAST)[0]["call_id"])

    def statuses(self) -> dict[date, str]:
        """What the ledger says of each day."""
        with self.export.open() as pipeline:
            return {row.call_date: row.status.value for row in pipeline.ledger.rows(FIRST, LAST)}

    def facts(self) -> dict[str, pa.Table]:
        """Everything in lake and warehouse but for when, and by which way, it got there."""
        found = {f"warehouse {name}": table for name, table in self.export.warehouse_tables(COMPARED).items()}
        found |= {f"lake {table.name}": self.export.lake(table) for table in (CALLS, CALL_PARTICIPANTS)}
        return {name: _facts(table, name.endswith(EXPORT_WINDOWS.name)) for name, table in found.items()}


def _facts(table: pa.Table, is_ledger: bool) -> pa.Table:
    left_out = (*TIMES, *HISTORY) if is_ledger else ("first_seen_at", "updated_at")
    found = table.drop_columns([name for name in left_out if name in table.column_names])
    if "deleted_at" not in found.column_names:
        return found
    place = found.column_names.index("deleted_at")
    return found.set_column(place, "is_deleted", pc.is_valid(found["deleted_at"]))


@dataclass
class Scenario:
    """What is wrong in which night, and how that must show in the morning after.

    ``faults`` are made anew for each week. ``doubtful`` says of which nights the run must not end complete, and which
    statuses the ledger then holds; ``hidden`` in which nights the portal does not show all of its calls.
    """

    name: str
    faults: Mapping[int, Callable[[], list[Fault]]]
    doubtful: Mapping[int, set[str]] = field(default_factory=dict)
    hidden: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return self.name


TRANSIENT = Scenario(
    "faults that pass",
    {
        0: lambda: [mixed_faults(0.3, seed=5, operation="history")],
        1: lambda: [Envelope(count=3), Status(status=502, count=2)],
        2: lambda: [WrongTotal(offset=1)],
        3: lambda: [Cut(count=2), InvalidJson(after=1, count=2)],
        5: lambda: [NothingThere(count=1, after=1)],
        6: lambda: [EmptyBody(count=1), Status(after=3, count=2)],
    },
    doubtful={2: {"complete", "disputed"}},
)
"""What passes by itself, or with the night."""

WRONG_COUNT = Scenario(
    "ids twice, and a count that is wrong every second day",
    {
        number: (lambda: [DuplicateIds(share=0.1), WrongTotal(offset=1)])
        if number % 2
        else (lambda: [DuplicateIds(share=0.1)])
        for number in range(NIGHTS)
    },
    doubtful={1: {"disputed"}, 3: {"complete", "disputed"}, 5: {"complete", "disputed"}},
)

THREE_AT_ONCE = Scenario(
    "three faults at once",
    {
        1: lambda: [WrongTotal(offset=1), mixed_faults(0.2, seed=6, operation="history")],
        2: lambda: [RenameField(field="status", to="state"), FewerRows(keep=30), Status(count=2)],
        3: lambda: [RenameField(field="id", to="call_id"), OnlyShare(share=0.9), WrongTotal(offset=1)],
        4: lambda: [FewerRows(keep=15), NullField(field="start_time", share=0.1), Envelope(count=2)],
        5: lambda: [NothingThere()],
        6: lambda: [DropField(field="direction"), FewerRows(keep=12), WrongTotal(form="missing")],
    },
    doubtful={
        1: {"disputed"},
        2: {"disputed"},
        3: {"disputed"},
        4: {"complete", "disputed"},
        5: {"complete", "disputed"},
        6: {"disputed"},
    },
    hidden=frozenset({2, 3, 4, 5, 6}),
)
"""Fields and calls are gone at the source, its count is wrong, and requests fail."""


@dataclass(frozen=True)
class Undisturbed:
    """What a week without any fault comes to: each morning's calls, and everything in the end."""

    mornings: list[set[str]]
    facts: dict[str, pa.Table]


def company(server: SimulatedPortal, warehouse_url: str, folder: Path) -> Week:
    return Week(server.portal, export_of(server.base_url, warehouse_url, folder, CALLHISTORY_CONCURRENCY="1"))


def new_portal() -> Portal:
    """Some 40 calls a day, of which some come late, some change late, and a few rows are odd or no calls at all."""
    calls = generate(
        seed=8, start_date=FIRST, days=NIGHTS, calls_total=40 * NIGHTS, late_arrival_share=0.05, late_change_share=0.1
    )
    return Portal(
        calls,
        PortalOptions(rate_limits=NO_LIMITS),
        odd_rows=OddRows(0.1, seed=8, reject_share=0.2),
        clock=Clock(night(0)),
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    with SimulatedPortal(new_portal()) as server:
        week = company(server, f"duckdb:///{folder / 'warehouse.duckdb'}", folder)
        mornings = []
        for number in range(NIGHTS + 1):
            assert week.sleep(number).is_complete
            mornings.append(week.calls())
        assert week.run(MONTH_LATER).is_complete
        return Undisturbed(mornings, week.facts())


@pytest.mark.parametrize(
    ("scenario", "warehouse_url"),
    [(TRANSIENT, "postgresql"), (WRONG_COUNT, "sqlite"), (THREE_AT_ONCE, "duckdb"), (THREE_AT_ONCE, "mariadb")],
    indirect=["warehouse_url"],
    ids=str,
)
def test_a_week_of_bad_nights_ends_as_one_without_any(
    scenario: Scenario, warehouse_url: str, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    with SimulatedPortal(new_portal()) as server:
        week = company(server, warehouse_url, tmp_path)
        before: set[str] = set()
        for number in range(NIGHTS):
            summary = week.sleep(number, scenario.faults.get(number, list)())
            statuses = set(week.statuses().values())
            assert statuses == scenario.doubtful.get(number, {"complete"}), number
            assert summary.is_complete == (number not in scenario.doubtful), number
            calls = week.calls()
            if number not in scenario.hidden:
                assert calls >= undisturbed.mornings[number] & week.served(), number
            assert calls >= before & week.served(), f"{number}: what was here stays here"
            before = calls

        assert week.sleep(NIGHTS).is_complete
        assert set(week.statuses().values()) == {"complete"}
        assert week.calls() >= undisturbed.mornings[NIGHTS] & week.served()
        assert week.run(MONTH_LATER).is_complete
        assert week.run(MONTH_LATER).results == []
        assert server.errors == []

        found = week.facts()
        assert found.keys() == undisturbed.facts.keys()
        for name, wanted in undisturbed.facts.items():
            assert_same(found[name], wanted, name)
        assert sum(found["warehouse calls"]["is_deleted"].to_pylist()) == 1
        assert week.calls() == week.served()


def assert_same(found: pa.Table, wanted: pa.Table, name: str) -> None:
    """Say which column differs, rather than print two tables."""
    assert found.num_rows == wanted.num_rows, name
    assert [column for column in wanted.column_names if not found[column].equals(wanted[column])] == [], name
