"""``callhistory person``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report, counted, table
from pipelines.cli.people import AgentId, CustomerNumber, Email, named_person


@command
def person(
    output: Output,
    folder: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="A new folder for what is found.")],
    customer_number: CustomerNumber = None,
    email: Email = None,
    agent_id: AgentId = None,
) -> Report:
    """Write down everything that is held of a person, for them: tables, rows as served, recordings.

    The calls are there as a whole, so they name others, too: look before you hand it on. Only you can read the folder.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    who = named_person(customer_number, email, agent_id, settings.region)
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
