"""Local days as options of a command, as people say them: a day, a month, ``yesterday``, the last seven days."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from typing import Annotated

import typer

from pipelines.cli.command import UsageError

_HOW = "a day such as 2026-01-31, a month such as 2026-01, today, or yesterday"
From = Annotated[str | None, typer.Option("--from", metavar="DATE", help=f"First local day: {_HOW}.")]
To = Annotated[
    str | None, typer.Option("--to", metavar="DATE", help="Last local day, included; a month means its end.")
]
Last = Annotated[
    str | None,
    typer.Option("--last", metavar="DAYS", help="The last local days up to yesterday, such as 7d, in place of --from."),
]

_ONE_DAY = timedelta(days=1)
_NAMED = {"today": timedelta(), "yesterday": _ONE_DAY}


def parse_date(option: str, value: str, today: date) -> date:
    """Read a local day, of a month its first. Raises ``UsageError`` that says how to write one."""
    return _span(option, value, today)[0]


def date_range(
    first: str | None, last: str | None, now: datetime, newest: str | None = None
) -> tuple[date | None, date | None]:
    """Read ``--from``, ``--to`` and ``--last``; null where a bound was not given. ``now`` is in the zone of the days.

    A month alone, as ``--from``, means that month, as far as it has come. Raises ``UsageError`` where they are no range
    of the past.
    """
    today = now.date()
    if newest is not None:
        if first is not None or last is not None:
            raise UsageError("--last goes without --from and --to: it means the days up to yesterday")
        return _newest(newest, today)
    first_date, end_of_first = (None, None) if first is None else _span("--from", first, today)
    last_date = end_of_first if last is None and _is_month(first) else None
    if last is not None:
        last_date = _span("--to", last, today)[1]
    if first_date is not None and first_date > (last_date or today):
        raise UsageError(f"--from {first_date} is after --to {last_date or today}: swap them")
    if last_date is not None and last_date > today:
        raise UsageError(f"--to {last_date} is in the future: in {now.tzinfo} it is {today}")
    return first_date, last_date


def given_range(first: str | None, last: str | None, now: datetime, newest: str | None) -> tuple[date, date]:
    """Read a range that has to be given, up to today where its end is not. Raises ``UsageError`` as `date_range`."""
    first_date, last_date = date_range(first, last, now, newest)
    if first_date is None:
        raise UsageError("which days? Give --from and --to, or --last 7d")
    return first_date, last_date or now.date()


def _newest(newest: str, today: date) -> tuple[date, date]:
    found = re.fullmatch(r"([1-9]\d{0,3})d", newest)
    if found is None:
        raise UsageError(f"--last {newest!r}: write a number of days, such as 7d")
    return today - int(found[1]) * _ONE_DAY, today - _ONE_DAY


def _is_month(value: str | None) -> bool:
    return value is not None and re.fullmatch(r"\d{4}-\d\d", value) is not None


def _span(option: str, value: str, today: date) -> tuple[date, date]:
    """Return the first and the last day that ``value`` means; of the month that it is, the last is today."""
    if value in _NAMED:
        day = today - _NAMED[value]
        return day, day
    try:
        if _is_month(value):
            return _month(date.fromisoformat(f"{value}-01"), today)
        day = date.fromisoformat(value)
        if day.isoformat() == value:
            return day, day
    except ValueError:
        pass  # told below, as is a day written in another of the forms of ISO 8601
    raise UsageError(f"{option} {value!r} is no date: write it as YYYY-MM-DD, or 2026-01 for a month, today, yesterday")


def _month(first: date, today: date) -> tuple[date, date]:
    end = first.replace(day=monthrange(first.year, first.month)[1])
    return first, min(end, today) if first <= today else end
