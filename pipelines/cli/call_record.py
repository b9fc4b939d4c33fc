"""``callhistory calls show``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report

if TYPE_CHECKING:
    from pipelines.proof.call_record import CallRecord

_NAME_WIDTH = 24


@command
def show(
    output: Output,
    call_id: Annotated[str, typer.Argument(metavar="CALL_ID", help="The call's id.")],
    raw: Annotated[bool, typer.Option("--raw", help="Also the row as it was served.")] = False,
) -> Report:
    """Show everything that is held of one exported call: what it is, what it was, its recording, its proof."""
    from pipelines.settings import load_settings

    settings = load_settings(require_api=False)
    from pipelines.context import open_stores_to_read
    from pipelines.proof.call_record import read_call

    with open_stores_to_read(settings, reads_lake=raw) as stores:
        found = read_call(stores, call_id, with_raw=raw)
    return Report(vars(found), lambda console: _show(console, found), DONE)


def _show(console: Console, found: CallRecord) -> None:
    from transforms.schema import CALLS

    units = {column.name: column.unit for column in CALLS.columns if column.unit in ("seconds", "minutes")}
    _section(console, "call", found.call, units)
    for entry in found.participants:
        _section(console, f"participant {entry['position']}", {n: entry[n] for n in ("participant", "kind")})
    for change in found.changes:
        fields = {
            name: f"{_text(field['was'])} -> {_text(field['became'])}" for name, field in change["fields"].items()
        }
        _section(console, f"changed {change['replaced_at']} (as it was since {change['read_at']})", fields)
    _section(console, "recording", found.recording or {})
    _section(console, "certificate of its window", found.certificate or {})
    if found.raw is not None:
        _line(console, "\nas it was served")
        for row in found.raw:
            _line(console, row)


def _section(console: Console, title: str, values: Mapping[str, Any], units: Mapping[str, str] | None = None) -> None:
    """Show what has a value, a line each: nothing is cut, however narrow the terminal is."""
    _line(console, f"\n{title}" if values else f"\n{title}: none")
    for name, value in values.items():
        if value is not None:
            _line(console, f"  {name:{_NAME_WIDTH}} {_text(value)} {(units or {}).get(name, '')}".rstrip())


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)
