"""The sources of the dbt package, from the dictionary: ``python -m tests.readme`` writes them anew."""

from __future__ import annotations

from typing import Any

import yaml

from pipelines.dictionary import Entry, Relation, dictionary
from transforms.calls import DIRECTIONS, STATUSES
from transforms.schema import REQUEST_BUDGET, TABLES

UNKNOWN = "unknown"
VIEW_KEYS = {
    "call_facts": "call_id",
    "dates": "call_date",
    "daily_metrics": "call_date",
    "completeness": "call_date",
    "agents": "agent_id",
    "repeat_calls": "call_id",
    "missed_call_recovery": "call_id",
    "missed_calls_to_recover": "customer_number_e164",
    "first_contact_resolution": "call_date",
    "concurrency_daily": "call_date",
}
"""The views of which each row has another value in one column."""
_WORDS = {"direction": [*DIRECTIONS.values(), UNKNOWN], "status": [*STATUSES.values(), UNKNOWN]}


def sources() -> str:
    """Return the file of sources: every relation with its meaning, its columns, and what dbt is to test."""
    source = {
        "name": "callhistory",
        "description": "The warehouse of callhistory: calls, certificates, and the views for analysts.",
        "database": "{{ 'callhistory' if target.type == 'duckdb' else target.database }}",
        "schema": "{{ var('callhistory_schema', 'main' if target.type == 'duckdb' else 'public') }}",
        "tables": [_table(relation) for relation in dictionary() if relation.name != REQUEST_BUDGET.name],
    }
    head = "# Written by python -m tests.readme, from the data dictionary.\n"
    return head + yaml.safe_dump({"version": 2, "sources": [source]}, sort_keys=False, allow_unicode=True, width=110)


def _table(relation: Relation) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": relation.name, "description": relation.meaning}
    if relation.name == "export_windows":
        # The newest certificate tells when an export last worked; how new the calls are depends on whether any came.
        declared["config"] = {
            "loaded_at_field": "completed_at",
            "freshness": {
                "warn_after": {"count": 36, "period": "hour"},
                "error_after": {"count": 72, "period": "hour"},
            },
        }
    declared["columns"] = [_column(relation, entry) for entry in relation.columns]
    return declared


def _column(relation: Relation, entry: Entry) -> dict[str, Any]:
    unit = f" In {entry.unit}." if entry.unit in ("seconds", "minutes", "bytes") else ""
    declared: dict[str, Any] = {"name": entry.name, "description": entry.meaning + unit}
    tests = _tests(relation, entry)
    return declared | {"data_tests": tests} if tests else declared


def _tests(relation: Relation, entry: Entry) -> list[Any]:
    tests: list[Any] = []
    key = tuple(relation.key) or (VIEW_KEYS.get(relation.name, ""),)
    if key == (entry.name,):
        tests.append("unique")
    if entry.name in key or entry.name in _NEVER_NULL.get(relation.name, ()):
        tests.append("not_null")
    if relation.name == "calls" and entry.name in _WORDS:
        tests.append({"accepted_values": {"arguments": {"values": _WORDS[entry.name]}}})
    if relation.name in ("call_participants", "recordings", "repeat_calls") and entry.name == "call_id":
        calls = {"to": "source('callhistory', 'calls')", "field": "call_id"}
        tests.append({"relationships": {"arguments": calls}})
    return tests


_NEVER_NULL = {table.name: [column.name for column in table.columns if not column.nullable] for table in TABLES}
