"""Asking before something is done to the world outside."""

from __future__ import annotations

import logging
import sys

import typer

from pipelines.cli.command import FAILED, UsageError
from pipelines.cli.output import Output, Report


def confirmed(output: Output, deed: str, *, yes: bool) -> bool:
    """Say what is about to be done, and ask unless ``yes``; raises UsageError where there is nobody to ask."""
    output.log(f"about to {deed}", logging.INFO if yes else logging.WARNING)
    if yes:
        return True
    if output.as_json or output.json_logs or not sys.stdin.isatty():
        raise UsageError("nothing was done: add --yes to do it without being asked")
    try:
        return typer.confirm("Do it?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


def declined() -> Report:
    """Return what a command ends with when the answer was no."""
    return Report({"done": False}, lambda console: console.print("Nothing was done."), FAILED)
