"""``callhistory drift``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report, table

_WORDS = {"new_field": "new field", "type_changed": "other type", "disappeared": "disappeared"}


drift = typer.Typer(
    name="drift",
    help="Show how the fields of the source have changed: new ones, other types, gone ones, each with since when.",
)


@drift.callback(invoke_without_command=True)
@command
def show(output: Output, context: typer.Context) -> Report:
    """Show how the fields of the source have changed: new ones, other types, gone ones, each with since when."""
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.export.drift import read_drift

    with open_stores_to_read(settings) as stores:
        found = [change.to_dict() for change in read_drift(stores, utc_now())]
    return Report({"drift": found}, lambda console: _show(console, found), DONE)


@drift.command("accept")
@command
def accept(
    output: Output,
    field: Annotated[str, typer.Argument(metavar="FIELD", help="The field, by the source's name for it.")],
) -> Report:
    """Believe the source, where a window is held for a field that is gone or cannot be read, and go on without it.

    Such windows are published by the next export. A field that every call needs is looked after again once it is back.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_in_use, utc_now
    from pipelines.export.drift import accept_field

    with open_stores_in_use(settings) as stores:
        accept_field(stores.state, field, utc_now())
    return Report(
        {"accepted": field},
        lambda console: console.print(f"{field}: accepted. Next: callhistory export"),
    )


def drift_line(change: Mapping[str, Any]) -> str:
    """Return a change, as `Drift.to_dict` gives it, in one line."""
    types = ", ".join(change["json_types"])
    before = f", before {', '.join(change['before'])}" if change["before"] else ""
    return f"{_WORDS[change['kind']]}: {change['field']} ({types}{before}) since {change['since']}"


def _show(console: Console, found: Iterable[Mapping[str, Any]]) -> None:
    rows = [
        (
            change["field"][:60],
            _WORDS[change["kind"]],
            ", ".join(change["json_types"]),
            ", ".join(change["before"]) or None,
            change["since"],
            change["rows"],
        )
        for change in found
    ]
    if rows:
        console.print(table(("field", "change", "JSON type", "before", "since", "rows"), rows))
    else:
        console.print("All fields are as they always were.")
