"""What the export remembers between runs, in the warehouse's table ``pipeline_state``."""

from __future__ import annotations

from datetime import datetime
from typing import cast

import orjson
import sqlalchemy as sa

from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.json_text import JsonValue


class State:
    """Small named values as JSON: the first day of the export, what was found out about the server."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._table = warehouse.tables["pipeline_state"]

    def get(self, name: str) -> JsonValue:
        """Return what is remembered under ``name``; null when nothing is."""
        t = self._table
        with self._warehouse.reading() as connection:
            value = connection.scalar(sa.select(t.c.value).where(t.c.name == name))
        return None if value is None else orjson.loads(value)

    @once_more_on_collision
    def settle(self, name: str, value: JsonValue) -> JsonValue:
        """Remember ``value`` unless something is remembered already; return what is then."""
        remembered = self.get(name)
        if remembered is not None:
            return remembered
        t = self._table
        with self._warehouse.transaction() as connection:
            found = connection.scalar(sa.select(t.c.value).where(t.c.name == name))
            if found is not None:
                return cast(JsonValue, orjson.loads(found))
            now = self._warehouse.utc_now(connection)
            connection.execute(sa.insert(t).values(name=name, value=orjson.dumps(value).decode(), updated_at=now))
        return value

    @once_more_on_collision
    def set(self, name: str, value: JsonValue) -> None:
        """Remember ``value``; a value that is remembered already is not written again."""
        if self.get(name) == value:
            return
        t = self._table
        row = {"value": orjson.dumps(value).decode()}
        with self._warehouse.transaction() as connection:
            now: datetime = self._warehouse.utc_now(connection)
            if connection.scalar(sa.select(sa.literal(1)).where(t.c.name == name)) is None:
                connection.execute(sa.insert(t).values(name=name, updated_at=now, **row))
            else:
                connection.execute(sa.update(t).where(t.c.name == name).values(updated_at=now, **row))
