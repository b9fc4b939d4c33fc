"""What a view or a query gives, against what it should: value for value, in the types of the contract."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from sinks.warehouse import Warehouse
from tests.contract.marts.reference import Row


def read(warehouse: Warehouse, view: str) -> list[Row]:
    """A view's rows, as plain SQL gives them."""
    with warehouse.reading() as connection:
        return [dict(row) for row in connection.execute(sa.text(f"SELECT * FROM {view}")).mappings()]


def as_wanted(found: Any, wanted: Any) -> Any:
    """What was found in the type that is wanted: databases without a type for it keep another one."""
    if wanted is None or found is None:
        return found
    if isinstance(wanted, bool):
        assert found in (0, 1)
        return bool(found)
    if isinstance(wanted, datetime):
        instant = datetime.fromisoformat(found) if isinstance(found, str) else found
        if wanted.tzinfo is None:
            return instant
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    if isinstance(wanted, date):
        return date.fromisoformat(found) if isinstance(found, str) else found
    if isinstance(wanted, float):
        assert isinstance(found, float), "a ratio is a double"
        return pytest.approx(found, rel=1e-12)
    if isinstance(wanted, int):
        assert type(found) is int, f"a count is a whole number, not {type(found)}"
    return found


def assert_equal(found: list[Row], wanted: list[Row], grain: tuple[str, ...]) -> None:
    def keyed(rows: list[Row], like: Row | None = None) -> dict[tuple[Any, ...], Row]:
        keys = [tuple(as_wanted(r[n], like[n] if like else None) if like else r[n] for n in grain) for r in rows]
        assert len(set(keys)) == len(keys), "one row per grain"
        return dict(zip(keys, rows, strict=True))

    # A key that may be null takes its type from a row in which it is not.
    example = {name: next((row[name] for row in wanted if row[name] is not None), None) for name in grain}
    expected, given = keyed(wanted), keyed(found, example)
    assert given.keys() == expected.keys()
    for key, row in expected.items():
        assert list(given[key]) == list(row), "the columns, in the contract's order"
        assert {name: as_wanted(given[key][name], value) for name, value in row.items()} == row, key
