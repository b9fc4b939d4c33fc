"""The SQL that makes roles, from the dictionary and the tables: ``python -m tests.readme`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.dictionary import Relation, dictionary
from sinks.views import MASKED_NAMES, VIEWS
from transforms.columns import Pii
from transforms.schema import (
    CALLS,
    ERASURES,
    EXPORT_WINDOWS,
    METRIC_PARAMETERS,
    PIPELINE_STATE,
    RECORDINGS,
    REQUEST_BUDGET,
    TABLES,
)

FIGURES, MASKED, PEOPLE = "callhistory_figures", "callhistory_masked", "callhistory_people"
WRITER, ARCHIVER = "callhistory_writer", "callhistory_archiver"
SHARED_TABLES = ("metric_parameters",)
"""Tables that explain figures; no other is read by who may not see people."""


def without_people() -> list[str]:
    """Relations for everybody: views no column of which tells of a person, and the tables that explain them."""
    return [relation.name for relation in dictionary() if _is_shown(relation) and not _has_people(relation)]


def with_people() -> list[str]:
    """Further relations, for who may see numbers and names: the other views, and the calls."""
    tables = ("calls", "call_participants", "call_versions", "recordings")
    return [
        relation.name
        for relation in dictionary()
        if (_is_shown(relation) and _has_people(relation)) or relation.name in tables
    ]


def _is_shown(relation: Relation) -> bool:
    return relation.kind == "view" or relation.name in SHARED_TABLES


def _has_people(relation: Relation) -> bool:
    return any(entry.personal_data != Pii.NONE for entry in relation.columns)


_HEAD = f"""-- Three roles that only read, for BI tools. None sees rejected rows or what the export notes for itself.
--   {FIGURES}  figures: no column of these relations tells of a person
--   {MASKED}   the same, and single calls with masked numbers, names and addresses
--   {PEOPLE}   figures, and single calls with numbers and names
-- Run it as the user that exports, and again after each upgrade: a view that was made anew has lost its rights.
"""

_WRITERS_HEAD = f"""-- Who runs callhistory, with no more rights than it needs.
--   {WRITER}    makes the tables and views and fills them: every command
--   {ARCHIVER}  only `callhistory recordings archive` and what else is about recordings, in tables that are there
-- Run it as an administrator in the warehouse's database, the second part once the first export is done.
"""
_ARCHIVER_WRITES = [table.name for table in (RECORDINGS, PIPELINE_STATE, REQUEST_BUDGET)]
_ARCHIVER_READS = [
    table.name
    for table in (CALLS, EXPORT_WINDOWS, RECORDINGS, PIPELINE_STATE, METRIC_PARAMETERS, ERASURES, REQUEST_BUDGET)
]


def postgresql() -> str:
    """The roles on PostgreSQL."""

    def lines() -> Iterator[str]:
        yield _HEAD.rstrip()
        yield "-- A user who may create roles has to run the first three statements, where the exporting one may not."
        yield "-- Then, for a user of a BI tool:  GRANT callhistory_figures TO bi_user;"
        yield from map(_created, (FIGURES, MASKED, PEOPLE))
        yield "-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema: also SET search_path = it."
        yield f"GRANT USAGE ON SCHEMA public TO {FIGURES}, {MASKED}, {PEOPLE};"
        yield "-- What an earlier version gave goes."
        yield f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {FIGURES}, {MASKED}, {PEOPLE};"
        for role, names in _rights().items():
            yield f"GRANT SELECT ON {', '.join(names)} TO {role};"

    return "\n".join(lines()) + "\n"


def mariadb() -> str:
    """The roles on MariaDB."""

    def lines() -> Iterator[str]:
        yield _HEAD.rstrip()
        yield "-- The exporting user needs GRANT OPTION on its database; an administrator can run it as well."
        yield "-- Then, for a user of a BI tool:"
        yield "--   GRANT callhistory_figures TO bi_user;  SET DEFAULT ROLE callhistory_figures FOR bi_user;"
        for role in (FIGURES, MASKED, PEOPLE):
            yield f"CREATE ROLE IF NOT EXISTS {role};"
        yield "-- What an earlier version gave goes, in every database of this server: run it in each that has calls."
        yield from (f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {role};" for role in (FIGURES, MASKED, PEOPLE))
        for role, names in _rights().items():
            yield from (f"GRANT SELECT ON {name} TO {role};" for name in names)

    return "\n".join(lines()) + "\n"


def _rights() -> dict[str, list[str]]:
    figures = without_people()
    return {FIGURES: figures, MASKED: [*figures, *MASKED_NAMES], PEOPLE: [*figures, *with_people()]}


def _created(role: str) -> str:
    return f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"


def postgresql_writers() -> str:
    """The roles on PostgreSQL of who runs the export, and of who only archives."""

    def lines() -> Iterator[str]:
        yield _WRITERS_HEAD.rstrip()
        yield "-- Then, for a user of callhistory:  GRANT callhistory_writer TO exporter;"
        yield "-- What a user makes is theirs: let one user do all exports."
        yield from map(_created, (WRITER, ARCHIVER))
        yield "-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema, made beforehand."
        yield f"GRANT USAGE, CREATE ON SCHEMA public TO {WRITER};"
        yield "-- The second part, as the user that exports:"
        yield f"GRANT USAGE ON SCHEMA public TO {ARCHIVER};"
        yield f"GRANT SELECT ON {', '.join(_ARCHIVER_READS)} TO {ARCHIVER};"
        yield f"GRANT INSERT, UPDATE, DELETE ON {', '.join(_ARCHIVER_WRITES)} TO {ARCHIVER};"

    return "\n".join(lines()) + "\n"


def mariadb_writers() -> str:
    """The same on MariaDB."""

    def lines() -> Iterator[str]:
        yield _WRITERS_HEAD.rstrip()
        yield "-- Both are users: a view is read with the rights of who made it, and those of a role do not count then."
        yield f"-- Before:  CREATE USER {WRITER} IDENTIFIED BY '...';  CREATE USER {ARCHIVER} IDENTIFIED BY '...';"
        yield "-- In place of callhistory.*, the warehouse's database."
        yield f"GRANT {', '.join(_WRITER_RIGHTS)} ON callhistory.* TO {WRITER};"
        yield "-- The second part. Without some right on a relation, MariaDB says that it is not there."
        yield from (f"GRANT SELECT ON {name} TO {ARCHIVER};" for name in _ARCHIVER_READS)
        yield from (f"GRANT INSERT, UPDATE, DELETE ON {name} TO {ARCHIVER};" for name in _ARCHIVER_WRITES)
        others = [table.name for table in TABLES if table.name not in _ARCHIVER_READS]
        yield from (f"GRANT REFERENCES ON {name} TO {ARCHIVER};" for name in (*others, *VIEWS, *MASKED_NAMES))

    return "\n".join(lines()) + "\n"


_WRITER_RIGHTS = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX", "CREATE VIEW", "SHOW VIEW",
    "CREATE TEMPORARY TABLES",
)  # fmt: skip
