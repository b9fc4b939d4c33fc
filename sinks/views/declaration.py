"""What a view is: its query, and what its readers are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import visitors

from transforms.metric_parameters import PARAMETERS

Relations = Mapping[str, sa.FromClause]
"""Tables, and the views declared so far, by name: what the query of a view may select from."""


@dataclass(frozen=True)
class View:
    """A view of the warehouse; ``columns`` says what its columns hold, where their table does not."""

    name: str
    description: str
    query: sa.SelectBase
    columns: Mapping[str, str] = field(default_factory=dict)

    def relation(self, schema: str | None) -> sa.TableClause:
        """Return the view as something to select from."""
        columns: list[sa.ColumnClause[Any]] = [sa.column(c.name, c.type) for c in self.query.selected_columns]
        return sa.table(self.name, *columns, schema=schema)

    @property
    def selects_from(self) -> set[str]:
        """Names of the tables and views that the query reads."""
        return {part.name for part in visitors.iterate(self.query) if isinstance(part, sa.TableClause)}


def parameter_value(relations: Relations, name: str) -> sa.ColumnElement[int]:
    """Return a parameter's value as SQL; its default where the table has none."""
    t = relations["metric_parameters"]
    value = sa.select(t.c.value).where(t.c.name == name).scalar_subquery()
    return sa.func.coalesce(value, PARAMETERS[name].default)


def whole(number: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a sum or a count as a 64-bit integer: databases widen sums to decimals."""
    return sa.cast(number, sa.BigInteger)


def total(number: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the sum over a group as a 64-bit integer, 0 where there is nothing to sum."""
    return whole(sa.func.coalesce(sa.func.sum(number), 0))


def how_many(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[Any]:
    """Return the number of rows of the group that meet ``condition``."""
    return whole(sa.func.sum(sa.case((condition, 1), else_=0)))


def is_so(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Return ``condition`` as a boolean that is never null."""
    return sa.case((condition, sa.true()), else_=sa.false())
