"""Local days as people say them."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cli.command import UsageError
from pipelines.cli.dates import date_range, given_range, parse_date

TODAY = date(2026, 3, 11)
NOW = datetime(2026, 3, 11, 2, tzinfo=ZoneInfo("Asia/Ho_Chi_Minh"))


@pytest.mark.parametrize(
    ("first", "last", "newest", "expected"),
    [
        (None, None, None, (None, None)),
        ("2026-03-01", None, None, (date(2026, 3, 1), None)),
        (None, "2026-03-01", None, (None, date(2026, 3, 1))),
        ("yesterday", "today", None, (date(2026, 3, 10), TODAY)),
        ("2026-02", None, None, (date(2026, 2, 1), date(2026, 2, 28))),
        ("2024-02", "2024-02", None, (date(2024, 2, 1), date(2024, 2, 29))),
        ("2025-12", "2026-01", None, (date(2025, 12, 1), date(2026, 1, 31))),
        ("2026-03", None, None, (date(2026, 3, 1), TODAY)),
        (None, None, "7d", (date(2026, 3, 4), date(2026, 3, 10))),
        (None, None, "1d", (date(2026, 3, 10), date(2026, 3, 10))),
    ],
)
def test_a_range_is_read(first: str | None, last: str | None, newest: str | None, expected: object) -> None:
    assert date_range(first, last, NOW, newest) == expected


@pytest.mark.parametrize(
    ("first", "last", "newest", "says"),
    [
        ("2026-03-12", None, None, "is after"),
        ("2026-03-02", "2026-03-01", None, "swap them"),
        (None, "2026-03-12", None, "in the future: in Asia/Ho_Chi_Minh it is 2026-03-11"),
        ("2026-04", None, None, "in the future"),
        ("2026-13", None, None, "is no date"),
        ("2026-3", None, None, "is no date"),
        ("20260301", None, None, "is no date"),
        ("2026-W10-1", None, None, "is no date"),
        ("2026-02-30", None, None, "is no date"),
        ("tomorrow", None, None, "is no date"),
        ("", None, None, "is no date"),
        (None, None, "0d", "such as 7d"),
        (None, None, "7", "such as 7d"),
        (None, None, "-7d", "such as 7d"),
        (None, None, "12h", "such as 7d"),
        ("yesterday", None, "7d", "without --from and --to"),
    ],
)
def test_what_is_no_range_is_told(first: str | None, last: str | None, newest: str | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        date_range(first, last, NOW, newest)


def test_a_range_that_has_to_be_given_ends_today_at_the_latest() -> None:
    assert given_range("yesterday", None, NOW, None) == (TODAY - timedelta(days=1), TODAY)
    assert given_range(None, None, NOW, "2d") == (TODAY - timedelta(days=2), TODAY - timedelta(days=1))
    for last in (None, "2026-03-01"):
        with pytest.raises(UsageError, match="which days"):
            given_range(None, last, NOW, None)


@given(st.dates(date(1970, 1, 1), TODAY))
def test_every_day_is_read_as_it_is_written(day: date) -> None:
    assert parse_date("--from", day.isoformat(), TODAY) == day


@given(st.text(max_size=12))
def test_any_other_text_is_refused_and_not_misread(text: str) -> None:
    try:
        day = parse_date("--from", text, TODAY)
    except UsageError:
        return
    assert text in ("today", "yesterday") or day.isoformat().startswith(text)
