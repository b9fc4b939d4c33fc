"""``callhistory move``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.output import Output, Report, table

if TYPE_CHECKING:
    from pipelines.proof.move import Move

_SECONDS_BETWEEN_LINES = 5.0


@command
def move(output: Output) -> Report:
    """Copy the warehouse to CALLHISTORY_NEW_WAREHOUSE_URL, an empty database, and prove that both hold the same.

    Changes nothing in the warehouse there is, and needs no credentials of the API. All or nothing: killed, it leaves
    nothing behind, and is done again. Ends with exit code 3 when a table differs afterwards.
    """
    from pipelines.cli.progress import tell_retries
    from pipelines.proof.move import move as move_warehouse
    from pipelines.settings import load_settings

    tell_retries(output)
    told_at = time.monotonic()

    def on_rows(table_name: str, rows: int) -> None:
        nonlocal told_at
        if output.verbose or time.monotonic() - told_at >= _SECONDS_BETWEEN_LINES:
            told_at = time.monotonic()
            output.log(f"{table_name}: {rows:,} rows copied")

    done = move_warehouse(load_settings(require_api=False), on_rows)
    return Report(done.to_dict(), lambda console: _show(console, done), DONE if done.is_proven else INCOMPLETE)


def _show(console: Console, done: Move) -> None:
    rows = ((t.name, t.old.rows, t.new.rows, t.old.content_hash, t.is_equal) for t in done.tables)
    console.print(table(("table", "rows", "rows there", "hash of the contents", "equal"), rows))
    what = "Copied" if done.has_copied else "Nothing to copy"
    console.print(f"\n{what}: from the {done.old} to the {done.new}.", soft_wrap=True)
    if done.is_proven:
        console.print("Both hold the same. Now set CALLHISTORY_WAREHOUSE_URL to the new one.", soft_wrap=True)
    else:
        console.print("They DIFFER: did a run write meanwhile? Empty the new database and move again.", soft_wrap=True)
