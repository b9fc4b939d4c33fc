"""At 80 columns nothing that matters is cut: tables, and the help of every command."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from pipelines.cli.main import app
from pipelines.cli.output import table

CELL = st.text("abcXYZ019-_/.:", min_size=1, max_size=40)


def shown(columns: list[str], rows: list[list[Any]], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(table(columns, rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@given(rows=st.lists(st.lists(CELL, min_size=4, max_size=4), min_size=1, max_size=5), width=st.integers(20, 200))
def test_no_cell_is_ever_cut(rows: list[list[str]], width: int) -> None:
    text = shown(["call", "started", "agent", "number"], rows, width)
    assert all(len(line) <= width for line in text.splitlines())
    together = "".join(text.split())
    assert "…" not in text
    for row in rows:
        assert all(cell in together for cell in row)


def test_ids_of_live_calls_were_cut_at_80_columns() -> None:
    call_id = "call-vn-1-ABCDEFGHIJ-1767600000000"
    row = [call_id, "10:20:30", "inbound", "talking", "12:34", "agent_with_a_long_id", "84900000001", "Hotline"]
    columns = ["call", "started", "direction", "state", "for", "agent", "customer", "number"]
    narrow = shown(columns, [row, row], 80)
    assert narrow.count(f"call       {call_id}\n") == 2
    assert f"{call_id}  10:20:30" in shown(columns, [row], 160).replace("   ", "  ")


def commands() -> Iterator[tuple[str, ...]]:
    def walk(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, child in getattr(command, "commands", {}).items():
            yield from walk(child, (*path, name))

    return walk(typer.main.get_command(app), ())


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: " ".join(command) or "callhistory")
def test_every_help_fits_into_80_columns(command: tuple[str, ...]) -> None:
    done = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
    assert done.stdout.startswith("Usage:")
