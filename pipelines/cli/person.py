"""``callhistory person``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.command import DONE, UsageError, command
from pipelines.cli.output import Output, Report, counted, table


@command
def person(
    output: Output,
    folder: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="A new folder for what is found.")],
    customer_number: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Their phone number, in any usual form.")
    ] = None,
    email: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Their e-mail address.")] = None,
    agent_id: Annotated[str | None, typer.Option(metavar="ID", help="Their id as an agent or a user.")] = None,
) -> Report:
    """Write down everything that is held of a person, for them: tables, rows as served, recordings.

    The calls are there as a whole, so they name others, too: look before you hand it on. Only you can read the folder.
    """
    from pipelines.settings import load_settings
    from transforms.person import Person

    settings = load_settings(require_api=False)
    try:
        who = Person.named(number=customer_number, email=email, agent_id=agent_id, region=settings.region)
    except ValueError as error:
        raise UsageError(f"--customer-number, --email, --agent-id: {error}") from None
    from pipelines.context import open_archive, open_stores_to_read
    from pipelines.proof.person import find_person, write_holdings
    from sinks.recordings import Recordings

    with open_stores_to_read(settings, reads_lake=True) as stores:
        archive = open_archive(stores, only_look=True)
        output.log("looking through every table and every row that was ever served")
        found = find_person(stores, who)
        recordings = write_holdings(found, archive, Recordings(stores.warehouse), folder, settings.timezone)
    counts = found.counts
    return Report(
        {"folder": str(folder.absolute()), "rows": counts, "recordings_copied": recordings},
        lambda console: console.print(
            table(("where", "rows"), counts.items()),
            f"\n{folder.absolute()} has them, and {counted(recordings, 'recording')}. The calls name others, too.",
            sep="",
            soft_wrap=True,
        ),
        DONE,
    )
