"""What the report shows: the days of a range and how far they are proven, and the rows of every query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.context import Stores
from pipelines.report.queries import FIRST_DATE, LAST_DATE, QUERIES
from pipelines.watch.status import DayState, read_status
from pipelines.windows import ONE_DAY, days_between
from transforms.errors import StorageError
from transforms.metric_parameters import PARAMETERS

Row = Mapping[str, Any]
MOST_DAYS = 400
"""So many days a chart can show, and a file of a few megabytes hold."""

PROVEN = frozenset({DayState.SETTLED, DayState.COMPLETE})
"""The states of a day whose figures are those of the source, as far as was proven when it was read."""


@dataclass(frozen=True)
class Figures:
    """The figures of the local days from ``first`` to ``last``, as the warehouse had them at ``at``.

    ``states`` has where each day stands; null: the export was never asked for it. ``rows`` has the rows of each query
    of `QUERIES` by its name; ``before`` those of ``summary`` and ``customers`` for as many days before ``first``, of
    which ``unproven_before`` are not proven complete; null where the export does not have all of those.
    """

    first: date
    last: date
    at: datetime
    timezone: str
    newest_instant: datetime | None
    states: Mapping[date, DayState | None]
    rows: Mapping[str, Sequence[Row]]
    before: Row | None
    unproven_before: int

    @property
    def summary(self) -> Row:
        """The one row of ``summary``, with the different numbers that called in."""
        return {**self.rows["summary"][0], **self.rows["customers"][0]}

    @property
    def parameters(self) -> Mapping[str, int]:
        """The numbers that the definitions depend on; where the warehouse has none yet, the views take the defaults."""
        defaults = {name: parameter.default for name, parameter in PARAMETERS.items()}
        return defaults | {row["name"]: row["value"] for row in self.rows["parameters"]}

    @property
    def unproven(self) -> list[date]:
        """The days whose figures are not proven to be those of the source."""
        return [day for day, state in self.states.items() if state not in PROVEN]

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the local days."""
        return ZoneInfo(self.timezone)

    def days_in(self, state: DayState | None) -> list[date]:
        """Return the days that stand there."""
        return [day for day, found in self.states.items() if found is state]


def read_figures(stores: Stores, first: date, last: date, now: datetime) -> Figures:
    """Read the figures of a range of local days, all of one moment; nothing is written.

    Raises ``StorageError`` when the export has none of the days.
    """
    status = read_status(stores, now)
    known = {day.call_date: day.state for day in status.days}
    states = {day: known.get(day) for day in days_between(first, last)}
    if not any(states.values()):
        raise StorageError(
            f"the warehouse has nothing of {first} to {last}: it has the local days from {min(known)} to {max(known)}. "
            "Choose others with --from and --to, or fetch these with callhistory backfill"
        )
    days = len(states)
    earlier_first, earlier_last = first - days * ONE_DAY, first - ONE_DAY
    relations = stores.warehouse.relations()
    with stores.warehouse.snapshot() as connection:

        def rows(name: str, first: date, last: date) -> list[Row]:
            dates = {FIRST_DATE: first, LAST_DATE: last}
            return [dict(row) for row in connection.execute(QUERIES[name].select(relations), dates).mappings()]

        has_earlier = all(day in known for day in days_between(earlier_first, earlier_last))
        before = (
            {**rows("summary", earlier_first, earlier_last)[0], **rows("customers", earlier_first, earlier_last)[0]}
            if has_earlier
            else None
        )
        found = {name: rows(name, first, last) for name in QUERIES}
    unproven_before = sum(known.get(day) not in PROVEN for day in days_between(earlier_first, earlier_last))
    return Figures(first, last, now, stores.timezone, status.newest_instant, states, found, before, unproven_before)
