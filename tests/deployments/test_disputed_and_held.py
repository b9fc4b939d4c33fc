"""The operator's page about disputed and held days: each of its commands does what the page says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import stamina

from pipelines.simulator import NO_LIMITS, Fault, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.data_faults import FewerRows, RenameField, SetField
from pipelines.simulator.faults import WrongTotal
from tests.e2e.command import REPOSITORY, Finished, account, callhistory_here
from tests.today import TODAY, ZONE

PAGE = (REPOSITORY / "deployments" / "README.md").read_text()
SECTION = PAGE.split("### Disputed and held\n")[1].split("\n## ")[0]
COMMANDS = {" ".join(command.split()) for command in re.findall(r"`(callhistory [^`]+)`", SECTION)}
LAST = TODAY - timedelta(days=1)
FIRST = LAST - timedelta(days=1)
CALLS = 80


class Operator:
    """Follows the page at an account that exports since yesterday's yesterday."""

    def __init__(self, portal: Portal, base_url: str, folder: Path) -> None:
        self.portal = portal
        self.followed: set[str] = set()
        self._folder = folder
        self._settings = account(base_url, CALLHISTORY_TIMEZONE=ZONE, CALLHISTORY_START_DATE=str(FIRST))

    def run(self, command: str, **settings: str) -> Finished:
        return callhistory_here(*shlex.split(command)[1:], cwd=self._folder, settings=self._settings | settings)

    def follow(self, command: str, field: str = "", **settings: str) -> Finished:
        """Run a command that stands on the page, with what it leaves open put in."""
        assert command in COMMANDS
        self.followed.add(command)
        dated = command.replace("DATE", str(FIRST), 1).replace("DATE", str(LAST))
        return self.run(dated.replace("FIELD", field), **settings)

    def read_again(self, *faults: Fault) -> Finished:
        """Have the days read again, from a portal with these faults only."""
        self.portal.faults[:] = faults
        return self.run(f"callhistory backfill --from {FIRST} --to {LAST} --force")

    def count(self, condition: str) -> int:
        with duckdb.connect(str(self._folder / "data/warehouse.duckdb"), read_only=True) as connection:
            [(found,)] = connection.sql(f"SELECT count(*) FROM calls WHERE {condition}").fetchall()
            return int(found)


@pytest.fixture
def operator(tmp_path: Path) -> Iterator[Operator]:
    calls = generate(
        seed=3, start_date=FIRST, days=2, calls_total=CALLS, late_arrival_share=0, late_change_share=0, timezone=ZONE
    )
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    with SimulatedPortal(portal) as server, stamina.set_testing(True, attempts=8, cap=True):
        operator = Operator(portal, server.base_url, tmp_path)
        assert operator.run("callhistory export").exit_code == 0
        yield operator
        assert server.errors == []


def test_the_page_is_followed(operator: Operator) -> None:
    # Disputed: nothing is missing, and it passes by itself.
    assert operator.read_again(WrongTotal(offset=1)).exit_code == 3
    assert "disputed" in operator.follow("callhistory status").stdout
    assert operator.count("deleted_at IS NULL") == CALLS
    assert operator.read_again(SetField(field="start_time", value="soon", share=0.5)).exit_code == 3
    assert "unusable_start_time" in operator.follow("callhistory rejects list").stdout
    operator.portal.faults.clear()
    assert operator.follow("callhistory export").exit_code == 0
    assert operator.count("deleted_at IS NULL") == CALLS

    # Held, for calls that are gone: it passes by itself, or is believed.
    assert operator.read_again(FewerRows(keep=4)).exit_code == 3
    assert "held" in operator.follow("callhistory status").stdout
    assert operator.count("deleted_at IS NULL") == CALLS
    operator.portal.faults.clear()
    assert operator.follow("callhistory export").exit_code == 0
    assert operator.read_again(FewerRows(keep=4)).exit_code == 3
    assert operator.follow("callhistory backfill --from DATE --to DATE --accept-vanished").exit_code == 0
    assert (operator.count("deleted_at IS NULL"), operator.count("deleted_at IS NOT NULL")) == (8, CALLS - 8)
    assert operator.read_again().exit_code == 0

    # Held, for a field that is gone, or says what cannot be read.
    for field, fault, lost in (
        ("status", RenameField(field="status", to="state"), "status = 'unknown'"),
        ("duration", SetField(field="duration", value="00:05:00"), "duration_seconds IS NULL"),
    ):
        assert operator.read_again(fault).exit_code == 3
        assert f"the field {field}" in operator.follow("callhistory status").stdout
        assert operator.count(lost) == 0
        assert operator.follow("callhistory drift accept FIELD", field).exit_code == 0
        assert operator.follow("callhistory export").exit_code == 0
        assert operator.count(lost) == CALLS
        assert operator.read_again().exit_code == 0
        assert operator.count(lost) == 0

    # Another lake.
    other = {"CALLHISTORY_LAKE_URL": "data/other"}
    assert operator.run("callhistory export", **other).exit_code == 2
    assert operator.follow("callhistory stores adopt --yes", **other).exit_code == 0
    assert operator.follow("callhistory export", **other).exit_code == 0
    assert operator.run("callhistory verify", **other).exit_code == 0
    assert operator.followed == COMMANDS
