"""The report's rows as CSV files that spreadsheets open without changing or running anything in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pipelines.report.figures import Figures
from pipelines.report.queries import QUERIES

_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_BYTE_ORDER_MARK = "\ufeff"
"""Without it, Excel takes UTF-8 for the machine's old code page."""


def csv_files(figures: Figures) -> dict[str, bytes]:
    """Return a file for each query of the report that has rows: its name, and UTF-8 with a byte order mark.

    The first line has the names of the query's columns. Numbers and durations (seconds) are plain numbers, days are
    ISO 8601, instants too, in the time zone's local time with its offset; null is empty. A text that a spreadsheet
    would take for a formula has an apostrophe before it: so ``+84...`` stays a phone number with all its digits.
    """
    written = {}
    for name in QUERIES:
        rows = figures.rows[name]
        if rows:
            written[f"{name}.csv"] = csv_file(rows, figures.zone)
    return written


def csv_file(rows: Sequence[Mapping[str, Any]], zone: ZoneInfo) -> bytes:
    """Return one such file; instants in ``zone``."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows([_cell(value, zone) for value in row.values()] for row in rows)
    return (_BYTE_ORDER_MARK + text.getvalue()).encode()


def _cell(value: Any, zone: ZoneInfo) -> Any:
    if isinstance(value, datetime):
        return value.isoformat() if value.tzinfo is None else value.astimezone(zone).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and value.lstrip(" ").startswith(_STARTS_FORMULA):
        return f"'{value}"
    return "" if value is None else value
