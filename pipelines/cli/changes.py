"""``callhistory changes``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, UsageError, command
from pipelines.cli.dates import parse_date
from pipelines.cli.output import Output, Report, table

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo


@command
def changes(
    output: Output,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="yesterday, today, a local day, or how long ago: 12h, 7d."),
    ] = "yesterday",
) -> Report:
    """Show which calls became different, late or gone since then, by day and by field."""
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.proof.changes import changes_since, counted_by_day, counted_by_field

    begin = _instant(since, utc_now(), settings.timezone)
    with open_stores_to_read(settings) as stores:
        found = list(changes_since(stores, begin))
    data = {
        "since": begin.isoformat(),
        "days": [{"call_date": day.isoformat(), **kinds} for day, kinds in counted_by_day(found).items()],
        "fields": dict(counted_by_field(found).most_common()),
        "changes": [change.to_dict() for change in found],
    }
    return Report(data, lambda console: _show(console, data, f"{begin:%Y-%m-%d %H:%M %Z}"), DONE)


def _instant(since: str, now: datetime, zone: ZoneInfo) -> datetime:
    """Read ``--since``: a day begins at its local midnight. Raises ``UsageError``."""
    from pipelines.settings.values import read_duration

    today = now.astimezone(zone).date()
    if since[-1:] in ("d", "h", "m"):
        try:
            return now - read_duration(since)
        except ValueError as error:
            raise UsageError(f"--since {since!r}: {error}") from error
    else:
        day = parse_date("--since", since, today)
    if day > today:
        raise UsageError(f"--since {day} is in the future: today is {today}")
    return datetime.combine(day, time(), zone)


def _show(console: Console, data: Mapping[str, Any], since: str) -> None:
    from pipelines.proof.changes import ChangeKind

    if not data["changes"]:
        console.print(f"No call has changed since {since}.", highlight=False)
        return
    rows = [(day["call_date"], *(day.get(kind, 0) for kind in ChangeKind)) for day in data["days"]]
    console.print(table(["day", *ChangeKind], rows))
    for field, count in data["fields"].items():
        console.print(f"{field}: another value in {count:,}", highlight=False)
    console.print(f"Since {since}. --json names the calls; callhistory calls show CALL_ID has what each was.")
