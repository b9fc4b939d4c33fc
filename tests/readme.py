"""The parts of README.md and REFERENCE.md that derive from the code: ``python -m tests.readme`` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa
import typer.main

from pipelines.cli.main import app
from pipelines.dictionary import as_markdown, dictionary
from pipelines.settings import settings_reference
from pipelines.watch.metrics import GAUGES, UP, UP_MEANING
from sinks.views import views
from tests import roles
from tests.dbt_sources import sources
from transforms.schema import REQUEST_BUDGET, TABLES

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
REFERENCE = ROOT / "deployments/REFERENCE.md"
RESULTS = ROOT / "tests/benchmarks/RESULTS.md"


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


def tables_table() -> str:
    """Every table and view: name, key, meaning."""
    tables = (*TABLES, REQUEST_BUDGET)
    rows = [f"| `{t.name}` | {', '.join(f'`{name}`' for name in t.key)} | {t.description} |" for t in tables]
    metadata = sa.MetaData()
    declared = views({table.name: table.sql_table(metadata) for table in TABLES})
    rows += [f"| `{view.name}` (view) |  | {view.description} |" for view in declared]
    return "\n".join(["| table | key | meaning |", "|---|---|---|", *rows])


def results_table() -> str:
    """What `make bench` last measured of a first export: seconds and peak memory, by database and program."""
    programs: tuple[str, ...] = ()
    rows = []
    for section in RESULTS.read_text().split("\n## ")[1:]:
        lines = re.findall(r"^\| first \| ([^|]+) \| ([\d.]+) \([^|]+\|.*\| (\d+) \| \d+ \|$", section, re.MULTILINE)
        if lines:
            names, seconds, peaks = zip(*lines, strict=True)
            assert programs in ((), names), "each database has the same programs"
            programs = names
            cells = [f"{time} s, {peak} MB" for time, peak in zip(seconds, peaks, strict=True)]
            rows.append(f"| {section.splitlines()[0]} | {' | '.join(cells)} |")
    assert rows, "RESULTS.md has no figures of a first export: make bench"
    return "\n".join([f"| into | {' | '.join(programs)} |", f"|---|{'--:|' * len(programs)}", *rows])


PARTS = {
    README: {"results": results_table},
    REFERENCE: {
        "commands": commands_table,
        "settings": settings_table,
        "tables": tables_table,
        "metrics": metrics_table,
    },
}
"""The derived parts of each page, by the name that stands before and after them."""


def expected(page: Path) -> str:
    """Return the text of ``page`` with its derived parts as the code has them now."""
    text = page.read_text()
    for name, table in PARTS[page].items():
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
        part = f"<!-- {name} -->\n{table()}\n<!-- /{name} -->"
        text, count = pattern.subn(part.replace("\\", r"\\"), text)
        assert count == 1, f"{page.name} has no place for its {name}"
    return text


DICTIONARY = ROOT / "transforms/DICTIONARY.md"
DBT_SOURCES = ROOT / "deployments/bi/dbt/models/sources.yml"
ROLES = {
    ROOT / "deployments/bi/roles-postgresql.sql": roles.postgresql,
    ROOT / "deployments/bi/roles-mariadb.sql": roles.mariadb,
    ROOT / "deployments/writers-postgresql.sql": roles.postgresql_writers,
    ROOT / "deployments/writers-mariadb.sql": roles.mariadb_writers,
}

if __name__ == "__main__":
    DICTIONARY.write_text(as_markdown(dictionary()))
    DBT_SOURCES.write_text(sources())
    for file, text in ROLES.items():
        file.write_text(text())
    for page in PARTS:
        page.write_text(expected(page))
