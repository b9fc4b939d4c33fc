"""Local days as options of a command."""

from __future__ import annotations

from datetime import date, datetime

from pipelines.cli.command import UsageError


def parse_date(option: str, value: str) -> date:
    """Read a local day. Raises ``UsageError`` that says how to write one."""
    try:
        day = datetime.strptime(value, "%Y-%m-%d").date()  # noqa: DTZ007 - a local day has no time zone
    except ValueError:
        day = None
    if day is None or day.isoformat() != value:
        raise UsageError(f"{option} {value!r} is no date: write it as YYYY-MM-DD, such as 2026-01-31")
    return day


def date_range(first: str | None, last: str | None, today: date) -> tuple[date | None, date | None]:
    """Read ``--from`` and ``--to``, either may be missing; raise ``UsageError`` where they are no range of the past."""
    first_date = None if first is None else parse_date("--from", first)
    last_date = None if last is None else parse_date("--to", last)
    if first_date is not None and first_date > (last_date or today):
        raise UsageError(f"--from {first_date} is after --to {last_date or today}: swap them")
    if last_date is not None and last_date > today:
        raise UsageError(f"--to {last_date} is in the future: today is {today}")
    return first_date, last_date
