"""The parts of the README that derive from the code: ``python -m tests.readme`` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from pipelines.cli.main import app
from pipelines.settings import settings_reference
from pipelines.watch.metrics import GAUGES, UP, UP_MEANING

README = Path(__file__).parents[1] / "README.md"


def settings_table() -> str:
    """Every setting: name, default, meaning."""
    rows = [
        f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in settings_reference()
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def commands_table() -> str:
    """Every command and the first sentence of its help, sub-commands included."""
    rows: list[str] = []

    def walk(command: object, path: str) -> None:
        for name, child in getattr(command, "commands", {}).items():
            if not hasattr(child, "commands") or child.invoke_without_command:
                summary = " ".join((child.help or "").split("\n\n")[0].split())
                rows.append(f"| `{path}{name}` | {summary} |")
            walk(child, f"{path}{name} ")

    walk(typer.main.get_command(app), "")
    return "\n".join(["| command | does |", "|---|---|", *rows])


def metrics_table() -> str:
    """Every metric: name, label, meaning."""
    rows = [f"| `{UP}` |  | {UP_MEANING} |"]
    rows += [f"| `{g.name}` | {f'`{g.label}`' if g.label else ''} | {g.meaning} |" for g in GAUGES]
    return "\n".join(["| metric | label | meaning |", "|---|---|---|", *rows])


def expected(text: str) -> str:
    """Return the README's ``text`` with its derived parts as the code has them now."""
    tables = {"settings": settings_table(), "commands": commands_table(), "metrics": metrics_table()}
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
        assert count == 1, f"the README has no place for its {name}"
    return text


if __name__ == "__main__":
    README.write_text(expected(README.read_text()))
