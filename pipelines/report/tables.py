"""The tables of the report: their columns, and how they are shown and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from pipelines.report.figures import Row
from pipelines.report.formats import Formats, Kind
from pipelines.report.words import Words

_COUNTS = tuple((name, Kind.COUNT) for name in ("calls", "inbound", "offered", "answered", "missed", "abandoned"))
_RATES = (
    ("service_level", Kind.SHARE),
    ("abandonment_rate", Kind.SHARE),
    ("asa_seconds", Kind.DURATION),
    ("aht_seconds", Kind.DURATION),
)
_OUTBOUND = (("outbound", Kind.COUNT), ("outbound_answered", Kind.COUNT))


@dataclass(frozen=True)
class ReportTable:
    """A table of the report, over the rows of the query of the same name; the first column names each row."""

    name: str
    columns: Sequence[tuple[str, Kind]]


TABLES: Mapping[str, ReportTable] = {
    table.name: table
    for table in (
        ReportTable("days", (("call_date", Kind.DAY), ("state", Kind.TEXT), *_COUNTS, *_RATES, *_OUTBOUND)),
        ReportTable("hours", (("call_hour", Kind.HOUR), *_COUNTS, *_RATES, *_OUTBOUND)),
        ReportTable(
            "weekday_hours",
            (
                ("weekday", Kind.TEXT),
                ("call_hour", Kind.HOUR),
                ("offered", Kind.COUNT),
                ("answered", Kind.COUNT),
                ("service_level", Kind.SHARE),
                ("asa_seconds", Kind.DURATION),
            ),
        ),
        ReportTable(
            "agents",
            (
                ("agent_name", Kind.TEXT),
                ("agent_id", Kind.TEXT),
                ("calls", Kind.COUNT),
                ("answered", Kind.COUNT),
                ("missed", Kind.COUNT),
                *_OUTBOUND,
                ("internal", Kind.COUNT),
                ("talk_seconds", Kind.DURATION),
                ("hold_seconds", Kind.DURATION),
                ("acw_seconds", Kind.DURATION),
                ("aht_seconds", Kind.DURATION),
            ),
        ),
        ReportTable("numbers", (("stringee_number", Kind.TEXT), *_COUNTS, *_RATES, *_OUTBOUND)),
        ReportTable("campaigns", (("campaign_name", Kind.TEXT), *_COUNTS, *_RATES, *_OUTBOUND)),
        ReportTable(
            "to_recover",
            (
                ("customer_number_e164", Kind.TEXT),
                ("contact_name", Kind.TEXT),
                ("stringee_number", Kind.TEXT),
                ("missed_calls", Kind.COUNT),
                ("first_missed_at", Kind.INSTANT),
                ("last_missed_at", Kind.INSTANT),
                ("callback_attempts", Kind.COUNT),
            ),
        ),
        ReportTable(
            "repeat_callers",
            (("customer_number_e164", Kind.TEXT), ("repeat_calls", Kind.COUNT), ("last_call_date", Kind.DAY)),
        ),
        ReportTable("concurrency", (("call_date", Kind.DAY), ("peak_calls", Kind.COUNT), ("peak_at", Kind.INSTANT))),
        ReportTable("recordings", (("status", Kind.TEXT), ("recordings", Kind.COUNT))),
    )
}


@dataclass(frozen=True)
class Cell:
    """A value as it is shown, and what rows are sorted by."""

    text: str
    sort_key: str


@dataclass(frozen=True)
class Shown:
    """A table in the words of a language: no more than the first rows, and how many there are."""

    name: str
    labels: Sequence[str]
    are_numbers: Sequence[bool]
    rows: Sequence[Sequence[Cell]]
    count: int


_NUMBERS = frozenset({Kind.COUNT, Kind.SHARE, Kind.DURATION})


def show_table(table: ReportTable, rows: Sequence[Row], words: Words, formats: Formats, most: int) -> Shown:
    """Return the first ``most`` of the rows, as a reader sees them."""
    return Shown(
        table.name,
        [words.label(name) for name, _ in table.columns],
        [kind in _NUMBERS for _, kind in table.columns],
        [[_cell(formats, kind, row[name]) for name, kind in table.columns] for row in rows[:most]],
        len(rows),
    )


def _cell(formats: Formats, kind: Kind, value: Any) -> Cell:
    key = value.isoformat() if isinstance(value, date | datetime) else "" if value is None else str(value)
    return Cell(formats.write(kind, value), key)
