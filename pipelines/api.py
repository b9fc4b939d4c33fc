"""What other Python programs call: Airflow, Dagster, notebooks. ``deployments/PYTHON.md`` shows each in use.

What is named here stays; all else in these packages may change with any version. Whatever goes wrong is a
`CallHistoryError`. A `RetryableError` may pass by itself, a `SettingsError` is to be mended in the settings. A
`DataError` is to be looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import pyarrow as pa

from pipelines.context import open_pipeline, open_stores_to_read, utc_now
from pipelines.erasure.before_export import before_export
from pipelines.export.run import RunSummary, plan_days, plan_export, run_plans
from pipelines.settings import Settings, load_settings
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.history import HistoryReader
from pipelines.stringeex.operations import CallEnd, StringeeX
from pipelines.stringeex.request_budget import Priority
from pipelines.watch.status import DayState, read_day_status
from transforms.calls import Normalised, frame_of, normalise
from transforms.errors import CallHistoryError, DataError, RetryableError, SettingsError
from transforms.schema import CALL_PARTICIPANTS, CALLS, PARTITION_COLUMN, Table

if TYPE_CHECKING:
    import pandas as pd

    from pipelines.context import Stores

__all__ = [
    "CallEnd",
    "CallHistoryError",
    "DataError",
    "Day",
    "DayState",
    "HistoryReader",
    "Normalised",
    "RetryableError",
    "RunSummary",
    "Settings",
    "SettingsError",
    "StringeeX",
    "StringeeXClient",
    "export_due",
    "export_range",
    "load_settings",
    "normalise",
    "read_day",
]


@dataclass(frozen=True)
class Day:
    """A local day as the lake holds it; ``state`` says how far that can be believed.

    ``calls`` and ``participants`` have the columns and types of the tables ``calls`` and ``call_participants``.
    """

    call_date: date
    state: DayState
    calls: pd.DataFrame
    participants: pd.DataFrame

    @property
    def is_complete(self) -> bool:
        """Whether the day is over, and certified as a whole."""
        return self.state in (DayState.COMPLETE, DayState.SETTLED)


def export_due(settings: Settings) -> RunSummary:
    """Export everything that is due, as the command ``export`` does.

    What fails or cannot be proven does not raise: look at `RunSummary.is_complete`. Raises ``CallHistoryError`` for
    what no day could survive, such as wrong credentials.
    """
    with open_pipeline(settings) as pipeline:
        before_export(pipeline)
        return run_plans(pipeline, plan_export(pipeline, utc_now()))


def export_range(settings: Settings, first: date, last: date, *, force: bool = False) -> RunSummary:
    """Export what is due of the local days from ``first`` to ``last``, both included, as ``backfill`` does.

    With ``force`` complete days are read again, even settled ones. Raises as `export_due`, and ``ValueError`` where
    ``first`` comes after ``last``.
    """
    if first > last:
        raise ValueError(f"first ({first}) comes after last ({last})")
    with open_pipeline(settings, Priority.BACKFILL) as pipeline:
        before_export(pipeline)
        return run_plans(pipeline, plan_days(pipeline, first, last, utc_now(), force=force))


def read_day(settings: Settings, call_date: date) -> Day:
    """Return what was exported of a local day; nothing is asked of the API.

    Raises ``DataError`` for a day of which nothing was ever published: no calls would be another answer.
    """
    with open_stores_to_read(settings, reads_lake=True) as stores:
        status = read_day_status(stores, call_date, utc_now())
        calls, participants = (_rows(stores, table, call_date) for table in (CALLS, CALL_PARTICIPANTS))
        if calls is None and status.state not in (DayState.COMPLETE, DayState.SETTLED, DayState.PROVISIONAL):
            raise DataError(f"{call_date} is {status.state.value}: export it first, such as with export_range")
        return Day(call_date, status.state, _frame(CALLS, calls), _frame(CALL_PARTICIPANTS, participants))


def _rows(stores: Stores, table: Table, call_date: date) -> pa.Table | None:
    batches = list(stores.lake.rows(table, call_date))
    if not batches:
        return None
    rows = pa.concat_tables(batches)
    return rows.append_column(PARTITION_COLUMN, pa.repeat(pa.scalar(call_date, pa.date32()), rows.num_rows))


def _frame(table: Table, rows: pa.Table | None) -> pd.DataFrame:
    if rows is None:
        return frame_of(table.arrow_schema.empty_table())
    return frame_of(rows.select(table.arrow_schema.names).cast(table.arrow_schema))
