"""``callhistory stores``: which warehouse, lake and archive belong together."""

from __future__ import annotations

import typer

from pipelines.cli.calls import Yes
from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report

stores = typer.Typer(name="stores", help="Say which warehouse, lake and archive belong together.", no_args_is_help=True)


@stores.command("adopt")
@command
def adopt(output: Output, yes: Yes = False) -> Report:
    """Take the lake and the archive of the settings on as the warehouse's own, whatever they were before."""
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.cli.confirm import confirmed, declined
    from pipelines.context import adopt_stores

    if not confirmed(output, f"make {settings.lake_url} and {settings.archive_url} the warehouse's own", yes=yes):
        return declined()
    places = adopt_stores(settings)
    return Report(
        {"adopted": places},
        lambda console: console.print(
            f"The lake is {places['lake']}, the archive {places['archive']}. Next: callhistory export"
        ),
        DONE,
    )
