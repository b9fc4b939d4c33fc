"""``callhistory greetings upload``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.calls import Yes
from pipelines.cli.command import UsageError, command
from pipelines.cli.confirm import confirmed, declined
from pipelines.cli.output import Output, Report

greetings = typer.Typer(name="greetings", help="Greeting files of the portal.", no_args_is_help=True)


@greetings.callback()
def _group() -> None:
    # With a callback, the one command keeps its name: greetings upload.
    pass


@greetings.command("upload")
@command
def upload(
    output: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="WAV or MP3 audio.")],
    description: Annotated[str, typer.Option("--desc", help="What the portal shows for it.")],
    yes: Yes = False,
) -> Report:
    """Upload a greeting; the file is checked before it is sent."""
    from pipelines.settings import load_settings

    settings = load_settings()
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.operations import StringeeX, check_greeting
    from pipelines.stringeex.request_budget import Priority

    try:
        with file.open("rb") as opened:
            audio = check_greeting(opened)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    deed = f"upload {file.name} ({audio.extension.upper()}, {audio.duration_seconds:.1f} seconds) as a greeting"
    if not confirmed(output, deed, yes=yes):
        return declined()
    with StringeeXClient(settings, priority=Priority.INTERACTIVE) as client:
        greeting = StringeeX(client).upload_greeting(file, description)
    data = {"done": True, "filename": greeting.filename, "file_sid": greeting.file_sid}
    return Report(
        data,
        lambda console: console.print(
            f"Done: the API calls it {greeting.file_sid or '(no id)'} ({greeting.filename or 'no name'})."
        ),
    )
