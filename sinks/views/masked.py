"""``*_masked``: what tells of people, for readers who may see how calls went and not whose they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import sqlalchemy as sa

from sinks.views.declaration import Relations, View
from sinks.views.portable import PortableFunction
from transforms.columns import Pii
from transforms.schema import COLUMNS, TABLES

MASKED = (
    "calls",
    "call_participants",
    "call_versions",
    "calls_with_live",
    "call_facts",
    "number_daily",
    "agent_daily",
    "agents",
    "repeat_calls",
    "missed_call_recovery",
    "missed_calls_to_recover",
)
"""Tables and views that have a masked one, in the order to create them in."""
SUFFIX = "_masked"
LEFT_OUT = "row_hash"
"""A hash of the whole call: whoever has the rest of it could try out the few numbers that a mask leaves possible."""

_HIDDEN = "***"
_SHOWN_AT_THE_END = 3
_SHOWN_OR_HIDDEN = 6
"""Characters at the end of which the last are shown, and the others never."""

Text = sa.ColumnElement[Any]


class initials(PortableFunction):  # noqa: N801
    """The first character of each word, with a full stop for the rest of it."""

    type = sa.Text()
    # The name of a function and its last argument differ; the pattern is one that both read alike.
    spellings: ClassVar = {
        "postgresql": r"regexp_replace({0}, '(?<=\S)\S+', '.', 'g')",
        "mysql": r"REGEXP_REPLACE({0}, '(?<=\\S)\\S+', '.')",
    }


class place_of_at(PortableFunction):  # noqa: N801
    """Where the first ``@`` of a text is, counted from 1; 0 where there is none."""

    type = sa.Integer()
    spellings: ClassVar = dict.fromkeys(("postgresql", "mysql"), "POSITION('@' IN {0})")


def _without_the_middle(text: Text) -> Text:
    length = sa.func.char_length(text)
    end = sa.literal(_HIDDEN).concat(sa.func.right(text, _SHOWN_AT_THE_END))
    # The beginning tells the country and the network of a number. Of anything else it could be a name.
    return sa.case(
        (length <= _SHOWN_OR_HIDDEN, _HIDDEN),
        (_is_number(text), sa.func.left(text, length - _SHOWN_OR_HIDDEN).concat(end)),
        else_=end,
    )


def _number_only(text: Text) -> Text:
    return sa.case((_is_number(text), text), else_=_without_the_middle(text))


def _is_number(text: Text) -> sa.ColumnElement[bool]:
    return text.regexp_match("^[+]?[0-9]+$")


def _domain(text: Text) -> Text:
    domain = sa.func.substr(text, place_of_at(text))
    return sa.case((place_of_at(text) > 0, sa.literal(_HIDDEN).concat(domain)), (text.is_not(None), _HIDDEN))


@dataclass(frozen=True)
class Mask:
    """What a masked view shows of a value of one class, in words and in SQL."""

    rule: str
    of: Callable[[Text], Text]

    @property
    def note(self) -> str:
        """What is said of a column besides what it holds."""
        return "" if self is MASKS[Pii.NONE] else f" {self.rule}"


_MIDDLE = Mask(
    f"The last {_SHOWN_AT_THE_END} characters; of a number also what stands before its last {_SHOWN_OR_HIDDEN}: "
    "`84988***868`.",
    _without_the_middle,
)
MASKS: Mapping[Pii, Mask] = {
    Pii.NONE: Mask("As it is.", lambda value: value),
    Pii.PHONE: _MIDDLE,
    # An id can be a number.
    Pii.IDENTIFIER: _MIDDLE,
    Pii.LINE: Mask("A number as it is; anything else: the last three characters.", _number_only),
    Pii.NAME: Mask("Initials: `N. V. A.`", initials),
    Pii.EMAIL: Mask("The domain: `***@example.com`.", _domain),
    Pii.PAYLOAD: Mask("Null.", lambda _: sa.null()),
}
"""What is left of each class of personal data."""


def masked_views(relations: Relations, declared: Mapping[str, View]) -> list[View]:
    """Return the masked view of each of `MASKED`; ``declared`` are the views among ``relations``."""
    told = {table.name: {c.name: c.description for c in table.columns} for table in TABLES}
    told |= {name: dict(view.columns) for name, view in declared.items()}
    return [_masked(relations[name], name, told[name]) for name in MASKED]


def _masked(relation: sa.FromClause, name: str, told: Mapping[str, str]) -> View:
    columns = {column.name: column for column in relation.columns if column.name != LEFT_OUT}
    masks = {name: MASKS[COLUMNS[name].pii if name in COLUMNS else Pii.NONE] for name in columns}
    query = sa.select(*(masks[name].of(column).label(name) for name, column in columns.items()))
    return View(
        name + SUFFIX,
        f"{name}, without what tells who somebody is.",
        query.select_from(relation),
        {column: told[column] + mask.note for column, mask in masks.items()},
    )
