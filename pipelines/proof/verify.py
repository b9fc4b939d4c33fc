"""Every count and every value again, from scratch: the API, the raw copy, the lake and the warehouse side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

from pipelines.context import Pipeline, Stores, utc_now
from pipelines.export.planner import windows_of
from pipelines.export.publish import window_spool
from pipelines.export.raw_retention import is_raw_expired
from pipelines.stringeex.count import count_calls
from pipelines.watch.status import days_asked_for
from pipelines.windows import Window, days_between, local_date
from sinks.comparison import IDS_NAMED, Comparison, Difference, Kind, Place
from sinks.ledger import LedgerRow, WindowStatus
from sinks.raw import RawFile, believed_states, read_raw
from sinks.spool import BATCH_ROWS, Spool
from sinks.window_rows import ids_set_aside
from transforms.errors import CallHistoryError, DataError, SettingsError
from transforms.schema import CALLS, EXPORT_WINDOWS

NEVER_EXPORTED = "never exported: callhistory export or backfill does it"
_LOOKS = 3
"""How often a window is looked at that an export changes while it is verified."""


@dataclass(frozen=True)
class WindowCheck:
    """One window, counted afresh; what was not counted is null.

    ``api_total`` is null offline, and for a window that was still open when it was last read: calls go on arriving.
    """

    window: Window
    api_total: int | None
    raw_rows: int | None
    rejected: int | None
    lake_rows: int | None
    warehouse_rows: int | None
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class DayCheck:
    """A local day, window by window."""

    call_date: date
    windows: Sequence[WindowCheck]

    @property
    def is_right(self) -> bool:
        """Whether nothing differs."""
        return not any(window.differences for window in self.windows)

    @property
    def is_not_exported(self) -> bool:
        """Whether no window of the day was ever exported: there is nothing to compare."""
        found = [difference for window in self.windows for difference in window.differences]
        return bool(found) and all(difference.message == NEVER_EXPORTED for difference in found)

    def total(self, count: str) -> int | None:
        """Return the sum of a count over the windows; null where one was not counted."""
        values = [getattr(window, count) for window in self.windows]
        return None if None in values else sum(values)

    def to_dict(self) -> dict[str, Any]:
        """Return the day as JSON can hold it; it names call ids, and nobody's data."""
        counts = ("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows")
        return {
            "call_date": self.call_date.isoformat(),
            "ok": self.is_right,
            "windows": len(self.windows),
            **{count: self.total(count) for count in counts},
            "differences": [
                {"window_start": check.window.start.isoformat(), **asdict(difference)}
                for check in self.windows
                for difference in check.differences
            ],
        }


def days_to_verify(stores: Stores, first: date | None, last: date | None, now: datetime) -> list[date]:
    """Return the local days of a verification: those from ``first`` to ``last``, by default all that were asked for.

    A day of which nothing was exported, and nothing has to be yet, is left out: there is nothing to verify.
    """
    rows: dict[date, dict[datetime, LedgerRow]] = {}
    for row in stores.ledger.rows():
        rows.setdefault(row.call_date, {})[row.window_start] = row
    today = local_date(now, stores.timezone)
    if first is not None:
        days: Iterable[date] = days_between(first, min(last or today, today))
    else:
        days = (day for day in days_asked_for(stores.known_start_date(), rows, today) if day <= (last or today))
    return [day for day in days if _to_verify(stores, day, rows.get(day, {}), now)]


def verify_day(stores: Stores, call_date: date, now: datetime, *, offline: bool = False) -> DayCheck:
    """Recount a local day. Unless ``offline``, ``stores`` is a `Pipeline`, and each closed window costs one request.

    A window whose count at the API differs is read there once more, to name the calls. Raises ``SettingsError`` when
    the API refuses the credentials or a store cannot be used; what is wrong with the data is a difference.
    """
    rows = {row.window_start: row for row in stores.ledger.rows(call_date, call_date)}
    windows = _to_verify(stores, call_date, rows, now)
    return DayCheck(call_date, [_verify_window(stores, window, offline=offline) for window in windows])


def _to_verify(stores: Stores, call_date: date, rows: Mapping[datetime, LedgerRow], now: datetime) -> list[Window]:
    windows = windows_of(call_date, rows, stores.timezone, stores.settings.window)
    return [window for window in windows if window.start in rows or window.end <= now]


def compare_window(stores: Stores, window: Window, row: LedgerRow | None, comparison: Comparison) -> list[Difference]:
    """Add raw copy, lake and warehouse to ``comparison``, and return what is wrong with them.

    A raw copy that was kept for long enough is left out.
    """
    found: list[Difference] = []
    is_raw_gone = is_raw_expired(stores, window, utc_now())
    copies: list[tuple[Place, Callable[[], None]]] = [
        *([] if is_raw_gone else [(Place.RAW, lambda: _add_raw(stores, window, comparison))]),
        (Place.LAKE, lambda: comparison.add_lake(stores.lake)),
        (Place.WAREHOUSE, lambda: comparison.add_warehouse(stores.warehouse)),
    ]
    for place, add in copies:
        try:
            add()
        except DataError as error:
            found.append(Difference(place, CALLS.name, Kind.UNREADABLE, 1, message=str(error)))
    certified = {
        Place.LAKE: (row.lake_rows, row.content_hash) if row else (None, None),
        Place.WAREHOUSE: (row.warehouse_rows, row.warehouse_content_hash) if row else (None, None),
    }
    return found + comparison.differences(certified)


def newest_raw(stores: Stores, window: Window) -> RawFile:
    """Return the newest published state of a window in the raw copy. Raises ``DataError`` when there is none."""
    states = believed_states(stores.lake.storage, window.call_date, window.start, window.end)
    if not states:
        raise DataError(f"there is no raw copy of window {window.label}: bring it back from a backup")
    return states[-1]


def fill_from_raw(stores: Stores, spool: Spool, file: RawFile) -> None:
    """Fill a spool with the rows of a state and seal it. Raises ``DataError`` for a damaged file."""
    for rows in read_raw(stores.lake.storage, file, BATCH_ROWS):
        spool.add(rows)
    spool.seal()


def _verify_window(stores: Stores, window: Window, *, offline: bool) -> WindowCheck:
    row = _ledger_row(stores, window)
    for _ in range(_LOOKS):
        check = _look_at(stores, window, row, offline=offline)
        before, row = row, _ledger_row(stores, window)
        if not check.differences or row == before:
            break
    return check


def _look_at(stores: Stores, window: Window, row: LedgerRow | None, *, offline: bool) -> WindowCheck:
    if row is None or row.status is not WindowStatus.COMPLETE:
        return WindowCheck(window, None, None, None, None, None, (_not_complete(row),))
    with Comparison(window.call_date, window.start, window.end) as comparison:
        found = compare_window(stores, window, row, comparison)
        raw, lake, warehouse = (comparison.counts(place) for place in (Place.RAW, Place.LAKE, Place.WAREHOUSE))
        rejected = raw[2] if raw else warehouse[2] if warehouse else None
        was_closed = row.started_at is not None and row.started_at >= window.end
        api_total = None
        if not offline and was_closed:
            assert isinstance(stores, Pipeline)
            api_total, of_api = _against_api(stores, window, row, comparison)
            found += of_api
    counted = (
        ("raw_rows", row.raw_rows, raw and raw[0] + raw[2]),
        ("lake_rows", row.lake_rows, lake and lake[0]),
        ("content_hash", row.content_hash, lake and lake[1]),
        ("warehouse_rows", row.warehouse_rows, warehouse and warehouse[0]),
        ("warehouse_content_hash", row.warehouse_content_hash, warehouse and warehouse[1]),
        ("rejected", row.rejected, rejected),
    )
    wrong = [name for name, certified, found_now in counted if found_now is not None and certified != found_now]
    if wrong and not found:
        message = f"the certificate says something else than the copies: {', '.join(wrong)}"
        found.append(Difference(Place.LEDGER, EXPORT_WINDOWS.name, Kind.ALTERED, 1, message=message))
    return WindowCheck(
        window,
        api_total,
        raw and raw[0] + raw[2],
        rejected,
        lake and lake[0],
        warehouse and warehouse[0],
        tuple(found),
    )


def _against_api(
    pipeline: Pipeline, window: Window, row: LedgerRow, comparison: Comparison
) -> tuple[int | None, list[Difference]]:
    """Return the API's count, and what it has or lacks compared with the raw copy, or else with the lake."""
    try:
        api_total = count_calls(pipeline.client, pipeline.reader.traits, window.start, window.end)
        place = next((p for p in (Place.RAW, Place.LAKE) if comparison.counts(p)), None)
        held = comparison.counts(place) if place else None
        if place is None or held is None:
            return api_total, []
        known = held[0] + (held[2] if place is Place.RAW else row.rejected or 0)
        if api_total == known:
            return api_total, []
        with window_spool(pipeline, window) as spool:
            for page in pipeline.reader.read(window.start, window.end):
                spool.add(page.rows)
            spool.seal()
            added, removed = comparison.missing_ids(_call_ids(spool), place)
            api_total = spool.calls + spool.rejected
    except SettingsError:
        raise
    except CallHistoryError as error:
        return None, [Difference(Place.API, CALLS.name, Kind.UNREADABLE, 1, message=str(error))]
    found = [
        Difference(Place.API, CALLS.name, kind, len(ids), tuple(ids[:IDS_NAMED]), message)
        for kind, ids, message in (
            (Kind.EXTRA, added, "added at the source since the last read"),
            (Kind.MISSING, removed, "gone at the source since the last read"),
        )
        if ids
    ]
    if not found and api_total != known:
        message = f"the API counts {api_total} calls, {known} were read"
        found.append(Difference(Place.API, CALLS.name, Kind.COUNT, abs(api_total - known), message=message))
    return api_total, found


def _call_ids(spool: Spool) -> Iterable[str]:
    for batch in spool.batches(CALLS):
        ids: list[Any] = batch["call_id"].to_pylist()
        yield from ids


def _add_raw(stores: Stores, window: Window, comparison: Comparison) -> None:
    with window_spool(stores, window) as spool:
        fill_from_raw(stores, spool, newest_raw(stores, window))
        if set_aside := ids_set_aside(stores.warehouse, window.start, window.end):
            spool.set_aside(set_aside)
        comparison.add_raw(spool)


def _ledger_row(stores: Stores, window: Window) -> LedgerRow | None:
    rows = stores.ledger.rows(window.call_date, window.call_date)
    return next((row for row in rows if row.window_start == window.start), None)


def _not_complete(row: LedgerRow | None) -> Difference:
    if row is None or row.attempts == 0:
        message = NEVER_EXPORTED
    elif row.status is WindowStatus.RUNNING:
        message = "an export is at work on it, or was cut off: verify again when it is done"
    elif row.status is WindowStatus.DISPUTED:
        message = f"{'held' if row.held else 'disputed'}: {row.error}"
    else:
        message = "its last export failed: callhistory status says why"
    return Difference(Place.LEDGER, EXPORT_WINDOWS.name, Kind.NOT_COMPLETE, 1, message=message)
