"""A warehouse with thirty days of every kind of call, under two sets of parameters."""

from __future__ import annotations

import pytest

from sinks.warehouse import Warehouse
from tests.contract.marts.history import fill, history
from tests.contract.marts.reference import DEFAULTS, Row

OTHERS = {
    "service_level_seconds": 5,
    "short_abandon_seconds": 20,
    "repeat_days": 1,
    "fcr_days": 3,
    "recovery_hours": 20,
    "recovery_list_days": 9,
    "talk_includes_hold": 0,
}


@pytest.fixture
def calls() -> list[Row]:
    return history()


@pytest.fixture(params=["defaults", "others"])
def parameters(request: pytest.FixtureRequest) -> dict[str, int]:
    return DEFAULTS if request.param == "defaults" else OTHERS


@pytest.fixture
def filled(warehouse: Warehouse, calls: list[Row], parameters: dict[str, int]) -> Warehouse:
    fill(warehouse, calls, parameters)
    return warehouse
