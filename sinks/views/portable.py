"""SQL functions that every database has under another name: one name here, and what each database calls it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

_SAME_AS = {"mariadb": "mysql"}


class PortableFunction(FunctionElement[Any]):
    """Base of the functions below, which are named as in SQL; ``spellings`` says what each database calls one."""

    inherit_cache = True
    spellings: ClassVar[Mapping[str, str]]


@compiles(PortableFunction)
def _spelled(element: PortableFunction, compiler: Any, **options: Any) -> str:
    name = compiler.dialect.name
    spelling = element.spellings[_SAME_AS.get(name, name)]
    return spelling.format(*(compiler.process(clause, **options) for clause in element.clauses))


class epoch_ms(PortableFunction):  # noqa: N801
    """An instant as milliseconds since 1970-01-01 UTC; of a local time or a day, as if it were UTC's."""

    type = sa.BigInteger()
    spellings: ClassVar = {
        # A double has more digits than milliseconds need, and is faster than the numeric that EXTRACT gives.
        "postgresql": "CAST(date_part('epoch', {0}) * 1000 AS BIGINT)",
        "duckdb": "epoch_ms({0})",
        "mysql": "(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {0}) DIV 1000)",
        # Instants are text there, with six digits of a second.
        "sqlite": "(CAST(strftime('%s', {0}) AS INTEGER) * 1000 + CAST(substr({0}, 21, 3) AS INTEGER))",
    }


class thousandth(PortableFunction):  # noqa: N801
    """A whole number divided by 1,000, as a whole number: the rest is cut off."""

    type = sa.BigInteger()
    spellings: ClassVar = {
        "postgresql": "({0} / 1000)",
        "duckdb": "({0} // 1000)",
        "mysql": "({0} DIV 1000)",
        "sqlite": "({0} / 1000)",
    }


class days_before(PortableFunction):  # noqa: N801
    """The day that is a number of days before a day."""

    type = sa.Date()
    spellings: ClassVar = {
        "postgresql": "({0} - CAST({1} AS INTEGER))",
        "duckdb": "({0} - CAST({1} AS INTEGER))",
        "mysql": "DATE_SUB({0}, INTERVAL {1} DAY)",
        "sqlite": "date({0}, '-' || {1} || ' days')",
    }


class quarter_hour(PortableFunction):  # noqa: N801
    """A local time's quarter of an hour, as the local time that it begins at."""

    type = sa.DateTime()
    spellings: ClassVar = {
        "postgresql": "(date_trunc('hour', {0}) + INTERVAL '15 minutes' * floor(EXTRACT(MINUTE FROM {0}) / 15))",
        "duckdb": "time_bucket(INTERVAL '15 minutes', {0})",
        "mysql": "(TIMESTAMP'1970-01-01 00:00:00' + INTERVAL"
        " ((TIMESTAMPDIFF(SECOND, TIMESTAMP'1970-01-01 00:00:00', {0}) DIV 900) * 900) SECOND)",
        "sqlite": "(datetime(CAST(strftime('%s', {0}) AS INTEGER) / 900 * 900, 'unixepoch') || '.000000')",
    }


class weekday(PortableFunction):  # noqa: N801
    """A day's place in its week, 1 (Monday) to 7."""

    type = sa.Integer()
    spellings: ClassVar = {
        "postgresql": "CAST(EXTRACT(ISODOW FROM {0}) AS INTEGER)",
        "duckdb": "CAST(isodow({0}) AS INTEGER)",
        "mysql": "(WEEKDAY({0}) + 1)",
        "sqlite": "((CAST(strftime('%w', {0}) AS INTEGER) + 6) % 7 + 1)",
    }


class iso_week(PortableFunction):  # noqa: N801
    """A day's week by ISO 8601, 1 to 53."""

    type = sa.Integer()
    spellings: ClassVar = {
        "postgresql": "CAST(EXTRACT(WEEK FROM {0}) AS INTEGER)",
        "duckdb": "CAST(weekofyear({0}) AS INTEGER)",
        "mysql": "WEEK({0}, 3)",
        # A week's number is that of its Thursday.
        "sqlite": "((CAST(strftime('%j', date({0}, '-3 days', 'weekday 4')) AS INTEGER) - 1) / 7 + 1)",
    }


class iso_year(PortableFunction):  # noqa: N801
    """The year that a day's week belongs to by ISO 8601."""

    type = sa.Integer()
    spellings: ClassVar = {
        "postgresql": "CAST(EXTRACT(ISOYEAR FROM {0}) AS INTEGER)",
        "duckdb": "CAST(isoyear({0}) AS INTEGER)",
        "mysql": "(YEARWEEK({0}, 3) DIV 100)",
        "sqlite": "CAST(strftime('%Y', date({0}, '-3 days', 'weekday 4')) AS INTEGER)",
    }


class by_bytes(PortableFunction):  # noqa: N801
    """A text that compares by its bytes, in any database: the tables do so, but for PostgreSQL's."""

    type = sa.Text()
    spellings: ClassVar = {"postgresql": '({0} COLLATE "C")', "duckdb": "{0}", "mysql": "{0}", "sqlite": "{0}"}
