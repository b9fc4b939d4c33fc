"""``callhistory status``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.output import Output, Report, counted, time_taken

if TYPE_CHECKING:
    from pipelines.watch.status import DayStatus, LateChanges, Status

_MARKS = {
    "settled": ("s", "green"),
    "complete": ("c", "green"),
    "provisional": ("p", "cyan"),
    "running": ("r", "yellow"),
    "disputed": ("D", "bold yellow"),
    "failed": ("F", "bold red"),
    "missing": ("-", "bold red"),
}
_LEGEND = (
    "s settled, c complete and to be read again, p provisional (the day is not over), r running, "
    "D disputed or held, F failed, - missing; blank: not asked for"
)
_LINES_SHOWN = 10
_CALENDAR_INDENT = len("2026-01  ")


@command
def status(output: Output) -> Report:
    """Show coverage by local day, gaps, freshness, and what is due; from the warehouse alone.

    Ends with exit code 3 when a window failed or is disputed, a day is missing, or a recording is failing.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.watch.alerts import find_alerts
    from pipelines.watch.status import read_status

    with open_stores_to_read(settings) as stores:
        found = read_status(stores, utc_now())
    alerts = find_alerts(found, settings.stale_after, settings.reject_alert)
    data = {**found.to_dict(), "alerts": [alert.to_dict() for alert in alerts]}
    return Report(data, lambda console: _show(console, found, len(alerts)), DONE if found.is_whole else INCOMPLETE)


def _show(console: Console, found: Status, alerts: int) -> None:
    for month in _calendar(found.days):
        console.print(month)
    console.print(_LEGEND)
    gaps = [str(first) if first == last else f"{first} to {last}" for first, last in found.gaps]
    newest = found.newest_instant
    lines = {
        "days": f"{counted(len(found.days), 'local day')} of {found.timezone} since {found.days[0].call_date}, "
        f"{counted(sum(day.calls for day in found.days), 'call')}",
        "states": ", ".join(f"{n:,} {state.value}" for state, n in found.states.items() if n),
        "newest": f"complete up to {newest:%Y-%m-%d %H:%M:%S} UTC, {_hours(found.at - newest)} ago"
        if newest
        else "nothing is complete yet",
        "gaps": _shortened(gaps) or "none",
        "alerts": f"{alerts:,} (callhistory alerts says which)" if alerts else "none",
        "due": f"{counted(found.due.windows, 'window')}, about {counted(found.due.requests, 'request')}, "
        f"{time_taken(found.due.hours)} within the request budget",
        "late": f"{counted(found.late_changes, 'call')} came or changed after their day was closed",
        "": "of these, by age: " + ", ".join(_late(late) for late in found.late_changes_by_age),
        "drift": f"{counted(len(found.drift), 'change')} of the source's fields"
        + (" (callhistory drift says which)" if found.drift else ""),
        "rejected": f"{counted(found.rejected_rows, 'row')} in rejected_rows",
        "recordings": ", ".join(f"{n:,} {state.value}" for state, n in found.recordings.items() if n) or "none known",
    }
    if found.doubtful_recordings:
        lines["recordings"] += (
            f"; {found.doubtful_recordings:,} of them doubtful (callhistory recordings verify says which)"
        )
    for name, line in lines.items():
        console.print(f"{name:10} {line}", soft_wrap=True)
    told = [("held" if window.held else "disputed", window.error) for window in found.disputed_windows]
    told += [("failed", window.error) for window in found.failed_windows]
    for name, error in told[:_LINES_SHOWN]:
        console.print(f"{name:10} {error}", soft_wrap=True)
    if len(told) > _LINES_SHOWN:
        console.print(f"           and {len(told) - _LINES_SHOWN:,} more; --json has all")


def _late(late: LateChanges) -> str:
    rate = "-" if late.rate is None else f"{late.rate:.2%}"
    return f"{late.age_days} d {late.calls_changed:,} ({rate})"


def _hours(age: timedelta) -> str:
    return time_taken(max(age, timedelta()) / timedelta(hours=1))


def _calendar(days: Sequence[DayStatus]) -> list[Text]:
    """Return a line per month, with a mark per day under the day's place in the month."""
    lines = [Text(" " * 8 + "".join(str(day // 10 or " ") if day % 10 == 0 else "." for day in range(1, 32)))]
    month = ""
    for day in days:
        if f"{day.call_date:%Y-%m}" != month:
            month = f"{day.call_date:%Y-%m}"
            lines.append(Text(f"{month} "))
        lines[-1].append(" " * (_CALENDAR_INDENT + day.call_date.day - 1 - len(lines[-1])))
        mark, style = _MARKS[day.state.value]
        lines[-1].append(mark, style)
    return lines


def _shortened(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LINES_SHOWN:,} more" if len(items) > _LINES_SHOWN else ""
    return ", ".join(items[:_LINES_SHOWN]) + more
