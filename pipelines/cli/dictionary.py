"""``callhistory dictionary``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipelines.cli.command import DONE, command
from pipelines.cli.output import Output, Report
from transforms.errors import StorageError


class Form(StrEnum):
    """In which form the dictionary is written."""

    MARKDOWN = "markdown"
    HTML = "html"


@command
def dictionary(
    output: Output,
    form: Annotated[Form, typer.Option("--format", help="In which form.")] = Form.MARKDOWN,
    file: Annotated[
        Path | None, typer.Option("--output", help="Write to this file, not to the terminal.", dir_okay=False)
    ] = None,
) -> Report:
    """Show the data dictionary: every table, view and column, with its unit, meaning, source and an example."""
    from pipelines import dictionary as pages

    relations = pages.dictionary()
    text = pages.as_html(relations) if form is Form.HTML else pages.as_markdown(relations)
    if file is not None:
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StorageError(f"cannot write {file}: {error.strerror}. Name another file with --output.") from error

    def show(console: Console) -> None:
        if file is None:
            console.file.write(text)
        else:
            console.print(f"{file} is written.", highlight=False, soft_wrap=True)

    return Report(pages.as_json(relations), show, DONE)
