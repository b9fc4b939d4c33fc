"""Retention: audio that is old enough goes from the archive, once, and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.e2e.place import Place

TODAY = datetime.now(UTC).date()
FIRST = TODAY - timedelta(days=9)
KEPT_FOR_5_DAYS = {"CALLHISTORY_RETENTION_RECORDINGS": "5d", "STRINGEEX_RECORDINGS_PER_MINUTE": "0"}


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str) -> Iterator[Place]:
    """Eight days of calls, exported; nothing of their audio is in the archive yet."""
    calls = generate(seed=3, start_date=FIRST, days=8, calls_total=40, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        place = Place(server, tmp_path, warehouse_url)
        days = ("--from", str(FIRST), "--to", str(TODAY - timedelta(days=1)))
        assert place.run("backfill", *days).exit_code == 0
        yield place


def audio(place: Place) -> set[str]:
    return {name for name in place.files() if "recordings/" in name and not name.endswith((".json", ".lock"))}


def days_of(names: set[str]) -> set[str]:
    return {name.split("call_date=")[1][:10] for name in names}


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_old_audio_goes_with_its_facts_and_is_not_fetched_again(place: Place) -> None:
    assert place.run("recordings", "archive", STRINGEEX_RECORDINGS_PER_MINUTE="0").exit_code == 0
    before = audio(place)
    old = {name for name in before if name.split("call_date=")[1][:10] < str(TODAY - timedelta(days=6))}
    assert old
    planned = place.run("recordings", "expire", "--dry-run", "--json", **KEPT_FOR_5_DAYS)
    assert planned.exit_code == 0, planned.output
    assert audio(place) == before
    assert planned.json["recordings"] >= len(old)

    done = place.run("recordings", "archive", "--json", **KEPT_FOR_5_DAYS)
    assert done.exit_code == 0, done.output
    assert (done.json["expired"], done.json["archived"]) == (planned.json["recordings"], 0)
    left = audio(place)
    assert len(before - left) == done.json["expired"]
    assert old <= before - left
    assert not [name for name in place.files() if any(gone in name for gone in before - left)]
    again = place.run("recordings", "archive", "--again", "--json", **KEPT_FOR_5_DAYS)
    assert (again.json["expired"], again.json["archived"], again.json["requests"]) == (0, 0, 0)
    assert again.json["recordings"]["expired"] == done.json["expired"]
    assert place.run("recordings", "verify").exit_code == 0
    assert place.run("status", "--json").exit_code == 0
    assert place.run("export", CALLHISTORY_START_DATE=str(FIRST), **KEPT_FOR_5_DAYS).exit_code == 0
    assert audio(place) == left


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_what_is_too_old_already_is_never_fetched(place: Place) -> None:
    planned = place.run("recordings", "expire", "--dry-run", "--json", **KEPT_FOR_5_DAYS).json
    assert (planned["recordings"], planned["not_fetched"] > 0) == (0, True)
    done = place.run("recordings", "archive", "--json", **KEPT_FOR_5_DAYS)
    assert done.json["recordings"]["expired"] == planned["not_fetched"]
    assert min(days_of(audio(place))) >= str(TODAY - timedelta(days=6))


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_legal_hold_wins_until_it_is_released(place: Place) -> None:
    assert place.run("recordings", "archive", STRINGEEX_RECORDINGS_PER_MINUTE="0").exit_code == 0
    held = min(audio(place))
    call_id = Path(held).stem
    assert place.run("recordings", "hold", call_id, "--reason", "a court case").exit_code == 0
    done = place.run("recordings", "expire", "--json", **KEPT_FOR_5_DAYS)
    assert (done.exit_code, done.json["under_legal_hold"]) == (0, 1)
    assert held in audio(place)
    assert place.run("recordings", "release", call_id).exit_code == 0
    assert place.run("recordings", "expire", "--json", **KEPT_FOR_5_DAYS).json["recordings"] == 1
    assert held not in audio(place)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_without_the_setting_audio_stays_and_a_wrong_one_is_refused(place: Place) -> None:
    refused = place.run("recordings", "expire")
    assert (refused.exit_code, "CALLHISTORY_RETENTION_RECORDINGS: not set" in refused.output) == (2, True)
    refused = place.run("recordings", "expire", CALLHISTORY_RETENTION_RECORDINGS="6h")
    assert (refused.exit_code, "such as 90d or 5y" in refused.output) == (2, True)
