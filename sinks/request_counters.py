"""The counts of requests that all processes of an account share, in the table ``request_budget``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import orjson
import sqlalchemy as sa

from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.schema import REQUEST_BUDGET

State = TypeVar("State")
T = TypeVar("T")

FILE_SUFFIX = ".requests.sqlite"
_BUSY_TIMEOUT_SECONDS = 10.0
"""Nobody holds the row for longer than a statement takes."""


class RequestCounters(Generic[State]):
    """The counts of requests to ``api``, for all processes that use the same warehouse.

    They lie in the warehouse when that is a server, and are timed by its clock: machines' clocks differ. Beside a
    database file they lie in a small SQLite file, since that file has one user at a time, who may keep it for minutes.
    Table and file are created at the first use. May be used by several threads.
    """

    def __init__(self, warehouse_url: str, schema: str | None, api: str) -> None:
        self._warehouse_url = warehouse_url
        self._schema = schema
        self._api = api
        # One connection per process will do: the row is one process's at a time anyway.
        self._lock = threading.Lock()
        self._place: Warehouse | None = None

    @once_more_on_collision
    def change(self, body: Callable[[State | None, float], tuple[State, T]]) -> T:
        """Call ``body`` with the state (null: none yet) and the epoch seconds, keep the state it returns, alone.

        States are JSON. ``body`` is called again when another process has just written the first state. Raises
        ``BusyError`` or ``StorageError`` when the state cannot be reached or kept.
        """
        with self._lock:
            if self._place is None:
                self._place = _prepared(self._warehouse_url, self._schema)
            t = self._place.tables[REQUEST_BUDGET.name]
            with self._place.transaction() as connection:
                kept = connection.scalar(sa.select(t.c.state).where(t.c.api == self._api).with_for_update())
                # Not before the row is ours: waiting for it may take a while.
                now = self._place.utc_now(connection)
                state, result = body(None if kept is None else orjson.loads(kept), now.timestamp())
                values: dict[str, Any] = {"state": orjson.dumps(state).decode(), "updated_at": now}
                if kept is None:
                    connection.execute(sa.insert(t).values(api=self._api, **values))
                else:
                    connection.execute(sa.update(t).where(t.c.api == self._api).values(**values))
            return result

    def close(self) -> None:
        """Close the idle connections; the next use opens new ones."""
        if self._place is not None:
            self._place.close()


def are_shared(warehouse_url: str, schema: str | None) -> bool:
    """Whether anybody counts requests beside this warehouse yet; nothing is created. Raises ``StorageError``."""
    with _place(warehouse_url, schema) as place:
        return place.is_there() and not place.missing_tables()


def _prepared(warehouse_url: str, schema: str | None) -> Warehouse:
    place = _place(warehouse_url, schema)
    place.prepare()
    return place


def _place(warehouse_url: str, schema: str | None) -> Warehouse:
    place = Warehouse(warehouse_url, schema, busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS, declared=(REQUEST_BUDGET,))
    if place.is_embedded:
        url = sa.URL.create("sqlite", database=f"{place.backend.url.database}{FILE_SUFFIX}")
        place = Warehouse(
            url.render_as_string(), busy_timeout_seconds=_BUSY_TIMEOUT_SECONDS, declared=(REQUEST_BUDGET,)
        )
        sa.event.listen(place.backend.engine, "connect", _do_not_wait_for_the_disk)
    return place


def _do_not_wait_for_the_disk(connection: Any, _: object) -> None:
    # A power cut may cost the counts, but those are out of date by the time the machine is back.
    connection.execute("PRAGMA synchronous = OFF").close()
