"""The table ``metric_parameters``, from which the views read what the metrics' definitions depend on."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.metric_parameters import PARAMETERS
from transforms.schema import METRIC_PARAMETERS


@once_more_on_collision
def keep_metric_parameters(warehouse: Warehouse, values: Mapping[str, int]) -> None:
    """Have the table hold ``values``, one for each of ``PARAMETERS``; nothing is written where it does."""
    t = warehouse.tables[METRIC_PARAMETERS.name]
    wanted = [
        {"name": p.name, "value": values[p.name], "unit": p.unit, "description": f"{p.description}."}
        for p in PARAMETERS.values()
    ]
    with warehouse.reading() as connection:
        held = [dict(row) for row in connection.execute(sa.select(t)).mappings()]
    if sorted(held, key=lambda row: str(row["name"])) != sorted(wanted, key=lambda row: str(row["name"])):
        with warehouse.transaction() as connection:
            connection.execute(sa.delete(t))
            connection.execute(sa.insert(t).values(wanted))
