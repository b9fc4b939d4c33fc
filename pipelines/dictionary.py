"""The data dictionary: every table, view and column, as the declarations have them, for people and programs."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from pipelines.report.queries import printed_queries
from sinks.views import MASKED_NAMES, View, views
from sinks.views.call_facts import ONE_OR_ZERO
from sinks.views.masked import LEFT_OUT, MASKS
from transforms.columns import Column, Pii, Role, Table
from transforms.metrics import COUNTS, RATIOS, TOTALS
from transforms.schema import CALLS, COLUMNS, REQUEST_BUDGET, TABLES
from transforms.types import Instant

_EXAMPLE_OF_UNIT = {
    "seconds": "61",
    "minutes": "2",
    "hour of day": "14",
    "participants": "2",
    "calls": "120",
    "rows": "120",
    "days": "3",
    "bytes": "48044",
    "ratio": "0.81",
}
_EXAMPLE_OF_TYPE = {
    "instant": "2026-01-05 02:03:04.567+00",
    "local_time": "2026-01-05 09:03:04.567",
    "date": "2026-01-05",
    "boolean": "true",
    "integer": "1",
    "double": "61.5",
    "text": "Monday",
}
_DERIVED = "derived"


@dataclass(frozen=True)
class Entry:
    """A column: its ``type`` (text, json, integer, double, boolean, instant, local_time or date) and ``unit``.

    ``source`` is the portal's field, or the formula; empty for what the export itself notes. ``personal_data`` is the
    class of what it tells of a person: phone, name, email, identifier, line, payload or none.
    """

    name: str
    type: str
    unit: str
    meaning: str
    source: str
    personal_data: str
    example: str


@dataclass(frozen=True)
class Relation:
    """A table or a view; ``key`` names the columns of which each row has other values, where that is declared."""

    name: str
    kind: str
    meaning: str
    key: Sequence[str]
    columns: Sequence[Entry]


def dictionary() -> list[Relation]:
    """Return every table of the warehouse, then every view."""
    metadata = sa.MetaData()
    declared = views({table.name: table.sql_table(metadata) for table in TABLES})
    return [*map(_of_table, (*TABLES, REQUEST_BUDGET)), *map(_of_view, declared)]


def as_json(relations: Sequence[Relation]) -> dict[str, Any]:
    """Return the dictionary as JSON can hold it."""
    return {
        "relations": [asdict(relation) for relation in relations],
        "masked_views": list(MASKED_NAMES),
        "masks": {personal_data.value: mask.rule for personal_data, mask in MASKS.items()},
        "report_queries": [asdict(query) for query in printed_queries()],
    }


def as_markdown(relations: Sequence[Relation]) -> str:
    """Return the dictionary as one page of Markdown."""
    return "\n".join(_markdown(relations)) + "\n"


def as_html(relations: Sequence[Relation]) -> str:
    """Return the dictionary as one HTML page that needs no other file."""
    return "\n".join(_html(relations)) + "\n"


_TITLE = "Data dictionary"
_INTRODUCTION = (
    "Every table and view of the warehouse. The Parquet files have the columns of `calls` and `call_participants`. "
    "Instants are UTC; durations are whole seconds. In a view, a ratio is null where its denominator is 0, and both of "
    "its parts stand beside it. Occupancy (handle time by time at work) is not offered: call history does not say when "
    "an agent was idle."
)
_MASKED_TITLE = "Masked views"
_QUERIES_TITLE = "Queries of the report"
_QUERIES_INTRODUCTION = (
    "Every figure of `callhistory report` is a value of one of these, as DuckDB and PostgreSQL read them. "
    "`:first_date` and `:last_date` are the first and the last local day, both included."
)
_HEADINGS = ("column", "type", "unit", "meaning", "source", "personal data", "example")


def _masked_introduction() -> str:
    names = ", ".join(f"`{name}`" for name in MASKED_NAMES)
    return (
        f"On PostgreSQL and MariaDB there are also {names}: the same rows and columns (but `{LEFT_OUT}`), for "
        "readers who may not see who was called. By the class of personal data of a column they show:"
    )


def _of_table(table: Table) -> Relation:
    return Relation(table.name, "table", table.description, table.key, [_entry(column) for column in table.columns])


def _entry(column: Column) -> Entry:
    return Entry(
        column.name,
        _named(column),
        column.unit,
        column.description,
        "" if column.role is Role.BOOKKEEPING else column.source,
        column.pii.value,
        column.example or _EXAMPLE_OF_UNIT.get(column.unit) or _EXAMPLE_OF_TYPE[_named(column)],
    )


def _named(column: Column) -> str:
    """Return the column's type; that some whole numbers are small is of no use to a reader."""
    return column.type.name.removeprefix("small_")


def _of_view(view: View) -> Relation:
    entries = [_entry_of_view(view, column) for column in view.query.selected_columns]
    return Relation(view.name, "view", view.description, (), entries)


_UNIT = {
    **dict.fromkeys(COUNTS, "calls"),
    **dict.fromkeys(
        ("missed_calls", "callback_attempts", "answered_calls", "followed_up", "resolved", "peak_calls"), "calls"
    ),
    "customers": "phone numbers",
    **{total.name: "seconds" for total in TOTALS},
    **{ratio.name: ratio.unit for ratio in RATIOS},
}
_EXAMPLES = {
    **dict.fromkeys(("year", "iso_year"), "2026"),
    **dict.fromkeys(("previous_call_id", "recovered_by_call_id"), CALLS["call_id"].example),
    **dict.fromkeys(("previous_status",), CALLS["status"].example),
}
_FORMULA = {ratio.name: ratio.formula for ratio in RATIOS}


def _entry_of_view(view: View, column: sa.ColumnElement[Any]) -> Entry:
    name = str(column.name)  # SQLAlchemy's own kind of text for names is of no use to who writes YAML
    meaning = view.columns[name]
    known = COLUMNS.get(name)
    if known is not None and meaning == known.description:
        return _entry(known)
    type_ = _type_name(column.type) if known is None else _named(known)
    unit = "" if meaning.startswith(ONE_OR_ZERO) else _UNIT.get(name) or _unit_by_name(name)
    is_double = isinstance(column.type, sa.Double)
    example = known.example if known is not None else _EXAMPLES.get(name, "")
    return Entry(
        name,
        "double" if is_double else type_,
        unit,
        meaning,
        _FORMULA.get(name, _DERIVED),
        known.pii.value if known is not None else Pii.NONE.value,
        example or ("61.5" if is_double and unit == "seconds" else "") or _example(unit, type_),
    )


def _example(unit: str, type_: str) -> str:
    return _EXAMPLE_OF_UNIT.get(unit) or _EXAMPLE_OF_TYPE[type_]


def _unit_by_name(name: str) -> str:
    if name.endswith("_seconds") or name.startswith("seconds_"):
        return "seconds"
    if name.endswith("_at"):
        return "UTC instant"
    if name.endswith("_local"):
        return "local time"
    return "days" if name.endswith("_days") else ""


def _type_name(type_: sa.types.TypeEngine[Any]) -> str:
    kinds = (
        (Instant, "instant"),
        (sa.Double, "double"),
        (sa.Boolean, "boolean"),
        (sa.Integer, "integer"),
        (sa.DateTime, "local_time"),
        (sa.Date, "date"),
        (sa.String, "text"),
    )
    return next((name for kind, name in kinds if isinstance(type_, kind)), "instant")


def _cells(entry: Entry) -> tuple[str, ...]:
    return tuple(asdict(entry).values())


def _markdown(relations: Sequence[Relation]) -> Iterator[str]:
    yield f"# {_TITLE}\n\n{_INTRODUCTION}"
    for relation in relations:
        yield f"\n## {relation.name}\n\n{_kind(relation)} {relation.meaning}\n"
        yield f"| {' | '.join(_HEADINGS)} |"
        yield f"|{'---|' * len(_HEADINGS)}"
        for entry in relation.columns:
            name, *cells = (cell.replace("|", "\\|") for cell in _cells(entry))
            *cells, example = cells
            yield f"| `{name}` | {' | '.join(cells)} | `{example}` |"
    yield f"\n# {_MASKED_TITLE}\n\n{_masked_introduction()}\n"
    yield "| personal data | what is shown |\n|---|---|"
    yield from (f"| {personal_data.value} | {mask.rule} |" for personal_data, mask in MASKS.items())
    yield f"\n# {_QUERIES_TITLE}\n\n{_QUERIES_INTRODUCTION}"
    for query in printed_queries():
        yield f"\n## Query: {query.name}\n\n{query.question}\n\n```sql\n{query.sql}\n```"


def _kind(relation: Relation) -> str:
    if not relation.key:
        return f"A {relation.kind}."
    return f"A {relation.kind}, with the key {', '.join(f'`{name}`' for name in relation.key)}."


def _html(relations: Sequence[Relation]) -> Iterator[str]:
    yield f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_TITLE}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield (
        "<style>body{font-family:sans-serif;margin:1rem}table{border-collapse:collapse}"
        "th,td{border:1px solid #999;padding:.2rem .5rem;text-align:left;vertical-align:top}"
        "td:first-child{font-family:monospace}</style>\n</head>\n<body>"
    )
    yield f"<h1>{_TITLE}</h1>\n<p>{html.escape(_INTRODUCTION).replace('`', '')}</p>\n<ul>"
    yield from (f'<li><a href="#{relation.name}">{relation.name}</a></li>' for relation in relations)
    yield "</ul>"
    for relation in relations:
        yield f'<h2 id="{relation.name}">{relation.name}</h2>'
        yield f"<p>{html.escape(f'{_kind(relation)} {relation.meaning}').replace('`', '')}</p>\n<table>"
        yield f"<tr>{''.join(f'<th>{heading}</th>' for heading in _HEADINGS)}</tr>"
        for entry in relation.columns:
            yield f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(entry))}</tr>"
        yield "</table>"
    yield f"<h1>{_MASKED_TITLE}</h1>\n<p>{_masked_introduction().replace('`', '')}</p>\n<table>"
    yield "<tr><th>personal data</th><th>what is shown</th></tr>"
    yield from (
        f"<tr><td>{personal_data.value}</td><td>{html.escape(mask.rule).replace('`', '')}</td></tr>"
        for personal_data, mask in MASKS.items()
    )
    yield f"</table>\n<h1>{_QUERIES_TITLE}</h1>\n<p>{html.escape(_QUERIES_INTRODUCTION).replace('`', '')}</p>"
    for query in printed_queries():
        yield f'<h2 id="query-{query.name}">{query.name}</h2>\n<p>{html.escape(query.question)}</p>'
        yield f"<pre>{html.escape(query.sql)}</pre>"
    yield "</body>\n</html>"
