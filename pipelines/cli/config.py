"""``callhistory config``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report

if TYPE_CHECKING:
    from pipelines.settings.in_force import SettingInForce

config = typer.Typer(name="config", help="The settings as they stand.", no_args_is_help=True)


@config.callback()
def _group() -> None:
    # With a callback, the one command keeps its name: config show.
    pass


@config.command("show")
@command
def show(output: Output) -> Report:
    """Show every setting in force, where it came from, and which place it means. Secrets are not shown."""
    from pipelines.settings.in_force import settings_in_force

    found = settings_in_force()
    data = [
        {"name": setting.name, "value": setting.value, "origin": setting.origin, "means": setting.means or None}
        for setting in found
    ]
    return Report({"settings": data}, lambda console: _show(console, found), DONE)


def _show(console: Console, found: Sequence[SettingInForce]) -> None:
    """Show what is not the default first: that is what somebody looks for."""
    from pipelines.settings.in_force import DEFAULT

    for setting in sorted(found, key=lambda setting: setting.origin == DEFAULT):
        means = f"  ({setting.means})" if setting.means else ""
        console.print(f"{setting.name}={setting.value}{means}  # {setting.origin}", highlight=False, soft_wrap=True)
