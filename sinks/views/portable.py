"""SQL functions that every database has under another name: one name here, and what each database calls it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class _Function(FunctionElement[Any]):
    inherit_cache = True


class epoch_ms(_Function):  # noqa: N801 - it reads as a function of SQL
    """An instant as milliseconds since 1970-01-01 UTC; of a local time or a day, as if it were UTC's."""

    name = "epoch_ms"
    type = sa.BigInteger()


class thousandth(_Function):  # noqa: N801
    """A whole number divided by 1,000, as a whole number: the rest is cut off."""

    name = "thousandth"
    type = sa.BigInteger()


class days_before(_Function):  # noqa: N801
    """The day that is a number of days before a day."""

    name = "days_before"
    type = sa.Date()


class quarter_hour(_Function):  # noqa: N801
    """A local time's quarter of an hour, as the local time that it begins at."""

    name = "quarter_hour"
    type = sa.DateTime()


class weekday(_Function):  # noqa: N801
    """A day's place in its week, 1 (Monday) to 7."""

    name = "weekday"
    type = sa.Integer()


class iso_week(_Function):  # noqa: N801
    """A day's week by ISO 8601, 1 to 53."""

    name = "iso_week"
    type = sa.Integer()


class iso_year(_Function):  # noqa: N801
    """The year that a day's week belongs to by ISO 8601."""

    name = "iso_year"
    type = sa.Integer()


class by_bytes(_Function):  # noqa: N801
    """A text that compares by its bytes, in any database."""

    name = "by_bytes"
    type = sa.Text()


_SPELLINGS: dict[type[_Function], dict[str, str]] = {
    epoch_ms: {
        # A double has more digits than milliseconds need, and is faster than the numeric that EXTRACT gives.
        "postgresql": "CAST(date_part('epoch', {0}) * 1000 AS BIGINT)",
        "duckdb": "epoch_ms({0})",
        "mysql": "(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {0}) DIV 1000)",
        # Instants are text there, with six digits of a second.
        "sqlite": "(CAST(strftime('%s', {0}) AS INTEGER) * 1000 + CAST(substr({0}, 21, 3) AS INTEGER))",
    },
    thousandth: {
        "postgresql": "({0} / 1000)",
        "duckdb": "({0} // 1000)",
        "mysql": "({0} DIV 1000)",
        "sqlite": "({0} / 1000)",
    },
    days_before: {
        "postgresql": "({0} - CAST({1} AS INTEGER))",
        "duckdb": "({0} - CAST({1} AS INTEGER))",
        "mysql": "DATE_SUB({0}, INTERVAL {1} DAY)",
        "sqlite": "date({0}, '-' || {1} || ' days')",
    },
    quarter_hour: {
        "postgresql": "(date_trunc('hour', {0}) + INTERVAL '15 minutes' * floor(EXTRACT(MINUTE FROM {0}) / 15))",
        "duckdb": "time_bucket(INTERVAL '15 minutes', {0})",
        "mysql": "(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL"
        " ((TIMESTAMPDIFF(SECOND, TIMESTAMP'1970-01-01 00:00:00', {0}) DIV 900) * 900) SECOND)",
        "sqlite": "(datetime(CAST(strftime('%s', {0}) AS INTEGER) / 900 * 900, 'unixepoch') || '.000000')",
    },
    weekday: {
        "postgresql": "CAST(EXTRACT(ISODOW FROM {0}) AS INTEGER)",
        "duckdb": "CAST(isodow({0}) AS INTEGER)",
        "mysql": "(WEEKDAY({0}) + 1)",
        "sqlite": "((CAST(strftime('%w', {0}) AS INTEGER) + 6) % 7 + 1)",
    },
    iso_week: {
        "postgresql": "CAST(EXTRACT(WEEK FROM {0}) AS INTEGER)",
        "duckdb": "CAST(weekofyear({0}) AS INTEGER)",
        "mysql": "WEEK({0}, 3)",
        # A week's number is that of its Thursday.
        "sqlite": "((CAST(strftime('%j', date({0}, '-3 days', 'weekday 4')) AS INTEGER) - 1) / 7 + 1)",
    },
    iso_year: {
        "postgresql": "CAST(EXTRACT(ISOYEAR FROM {0}) AS INTEGER)",
        "duckdb": "CAST(isoyear({0}) AS INTEGER)",
        "mysql": "(YEARWEEK({0}, 3) DIV 100)",
        "sqlite": "CAST(strftime('%Y', date({0}, '-3 days', 'weekday 4')) AS INTEGER)",
    },
    by_bytes: {
        "postgresql": '({0} COLLATE "C")',
        "duckdb": "{0}",
        # The tables of this package compare so.
        "mysql": "{0}",
        "sqlite": "{0}",
    },
}
_SAME_AS = {"mariadb": "mysql"}


def _compile(element: _Function, compiler: Any, **options: Any) -> str:
    name = compiler.dialect.name
    spelling = _SPELLINGS[type(element)][_SAME_AS.get(name, name)]
    return spelling.format(*(compiler.process(clause, **options) for clause in element.clauses))


for function in _SPELLINGS:
    compiles(function)(_compile)
