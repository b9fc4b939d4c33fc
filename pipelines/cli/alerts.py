"""``callhistory alerts``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, command
from pipelines.cli.output import Output, Report
from transforms.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.watch.alerts import Alert


@command
def alerts(
    output: Output,
    notify: Annotated[
        bool,
        typer.Option("--notify", help="Tell CALLHISTORY_NOTIFY_URLS of alerts that began or are over since last time."),
    ] = False,
) -> Report:
    """Show what has to be looked at: incomplete days, stale data, rejects, abnormal volumes; from the warehouse alone.

    Ends with exit code 3 when there is anything.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    if notify and not settings.notify_urls:
        raise SettingsError("CALLHISTORY_NOTIFY_URLS: not set; --notify needs to know whom to tell")
    from pipelines.context import open_stores_to_read, utc_now
    from pipelines.watch.alerts import read_alerts
    from pipelines.watch.notifications import send_alerts

    with open_stores_to_read(settings) as stores:
        found = (send_alerts if notify else read_alerts)(stores, utc_now())
    data = {"alerts": [alert.to_dict() for alert in found]}
    return Report(data, lambda console: _show(console, found), INCOMPLETE if found else DONE)


def _show(console: Console, found: Sequence[Alert]) -> None:
    if not found:
        console.print("Nothing to look at.")
    for alert in found:
        kind = alert.kind.value.replace("_", " ")
        console.print(f"{kind}: {alert.what}", style="bold", soft_wrap=True)
        console.print(f"  since {alert.since:%Y-%m-%d %H:%M} UTC", soft_wrap=True)
        console.print(f"  to do: {alert.what_to_do}", soft_wrap=True)
