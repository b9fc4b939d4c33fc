"""The SQL that makes roles for BI tools, from the dictionary: ``python -m tests.readme`` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.dictionary import Relation, dictionary
from transforms.columns import Pii

FIGURES, PEOPLE = "callhistory_figures", "callhistory_people"
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


_HEAD = f"""-- Two roles that only read, for BI tools. Neither sees rejected rows or what the export notes for itself.
--   {FIGURES}  figures: no column of these relations tells of a person
--   {PEOPLE}   the same, and numbers, names and single calls
-- Run it as the user that exports, and again after each upgrade: a view that was made anew has lost its rights.
"""


def postgresql() -> str:
    """The roles on PostgreSQL."""

    def lines() -> Iterator[str]:
        yield _HEAD.rstrip()
        yield "-- A user who may create roles has to run the first two statements, where the exporting one may not."
        yield "-- Then, for a user of a BI tool:  GRANT callhistory_figures TO bi_user;"
        for role in (FIGURES, PEOPLE):
            yield f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        yield "-- With CALLHISTORY_WAREHOUSE_SCHEMA set, that schema: also SET search_path = it."
        yield f"GRANT USAGE ON SCHEMA public TO {FIGURES}, {PEOPLE};"
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
        for role in (FIGURES, PEOPLE):
            yield f"CREATE ROLE IF NOT EXISTS {role};"
        for role, names in _rights().items():
            yield from (f"GRANT SELECT ON {name} TO {role};" for name in names)

    return "\n".join(lines()) + "\n"


def _rights() -> dict[str, list[str]]:
    figures = without_people()
    return {FIGURES: figures, PEOPLE: [*figures, *with_people()]}
