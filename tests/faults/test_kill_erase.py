"""An erasure killed at each place that it passes: done again, it ends as if nothing had been, with one receipt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipelines.context import open_pipeline, open_stores_in_use
from pipelines.erasure.receipt import receipt
from pipelines.erasure.run import carry_out, look_for
from pipelines.export.run import plan_days, run_plans
from pipelines.settings import load_settings
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.storage import Storage
from tests.e2e.command import account
from tests.exports import FIRST, range_ms
from tests.faults import processes
from tests.faults.conftest import DAY_AFTER
from tests.faults.processes import Places
from transforms.person import Person

THEIRS = "84900000777"
PERSON = Person.named(number=THEIRS, region="VN")
LAST = FIRST + timedelta(days=1)


def erase_until(overrides: dict[str, str], dies_at: int | None) -> tuple[dict[str, Any], list[str]]:
    """Erase the person, and return the receipt and the places passed, unless the process dies at one of them."""
    places, remove = Places(dies_at), Storage.remove

    def watched_remove(storage: Storage, name: str) -> bool:
        places.reach(f"before a file goes: {name.rpartition('.')[2]}")
        return remove(storage, name)

    Storage.remove = watched_remove  # type: ignore[method-assign]
    settings = load_settings(None, overrides=overrides)
    try:
        with places.watched(), open_stores_in_use(settings) as stores:
            request = look_for(stores, [PERSON], DAY_AFTER)
            erasures, last_look = carry_out(stores, request, clock=lambda: DAY_AFTER)
            return receipt(stores, erasures, last_look), places.passed
    finally:
        Storage.remove = remove  # type: ignore[method-assign]


@pytest.fixture
def overrides(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An account with calls of the person on two days, exported, of which a copy is kept."""
    calls = generate(seed=5, start_date=FIRST, days=2, calls_total=30, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    for row in portal.rows(*range_ms(FIRST, LAST))[::10]:
        portal.update_call(row["id"], customer_number=THEIRS)
    with SimulatedPortal(portal) as server:
        settings = account(
            server.base_url,
            CALLHISTORY_WAREHOUSE_URL=f"duckdb:///{tmp_path}/data/warehouse.duckdb",
            CALLHISTORY_LAKE_URL=str(tmp_path / "data" / "lake"),
            CALLHISTORY_ARCHIVE_URL=str(tmp_path / "data" / "recordings"),
            CALLHISTORY_PII_KEY="a key of the tests, long enough",
        )
        with open_pipeline(load_settings(None, overrides=settings)) as pipeline:
            plans = plan_days(pipeline, FIRST, LAST, DAY_AFTER + timedelta(days=1))
            assert run_plans(pipeline, plans, clock=lambda: DAY_AFTER).is_complete
        shutil.copytree(tmp_path / "data", tmp_path / "kept")
        yield settings


def test_killed_anywhere_the_next_erasure_finishes_with_the_same_end_and_one_receipt(
    overrides: dict[str, str], tmp_path: Path
) -> None:
    data, temporary = tmp_path / "data", tmp_path / "temporary"
    settings = load_settings(None, overrides=overrides)

    def state() -> tuple[dict[str, list[dict[str, Any]]], dict[str, bytes]]:
        tables = processes.tables_of(settings)
        for row in tables["export_windows"]:
            # A dead one's claim lapses by itself, where nothing is left to do on its day.
            row |= {"claimed_by": None, "claim_expires_at": None}
        return tables, processes.files_below(data / "lake")

    whole, passed = processes.start(erase_until, overrides, None, temporary=temporary).result()
    assert (whole["found"]["calls"], whole["left"]) == (3, {})
    undisturbed = state()
    places = [number for number, place in enumerate(passed) if place.startswith("before")]
    kills = sorted(
        {*places[::3], *{passed[number]: number for number in places}.values()}
    )  # one of each kind, and more
    assert len(kills) >= 10
    assert len({passed[number] for number in kills}) >= 5
    with processes.at_hand(temporary) as another_process:
        for number in kills:
            shutil.rmtree(data)
            shutil.copytree(tmp_path / "kept", data)
            dying = processes.start(erase_until, overrides, number, temporary=temporary)
            dying.result()
            assert dying.was_killed
            again, _ = another_process.submit(take_over, overrides).result()
            assert again == whole, f"killed at {passed[number]!r}"
            tables, files = state()
            assert files == undisturbed[1], f"killed at {passed[number]!r}"
            for name, rows in undisturbed[0].items():
                assert tables[name] == rows, f"killed at {passed[number]!r}: table {name}"


def take_over(overrides: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Have the claims of the dead one expire, and erase."""
    processes.expire_claims(load_settings(None, overrides=overrides))
    return erase_until(overrides, None)
