"""The words and the numbers of the report: nothing lacks in a language, and each writes as its readers do."""

from __future__ import annotations

import string
from datetime import UTC, date, datetime

import pytest

from pipelines.report.formats import NOTHING, Formats, Kind
from pipelines.report.language import Language
from pipelines.report.tables import TABLES
from pipelines.report.words import (
    DEFINITIONS,
    LABELS,
    MARKS,
    RECORDING_STATES,
    STATES,
    TEXTS,
    Words,
    definition,
)
from pipelines.watch.status import DayState
from sinks.recordings import RecordingStatus
from transforms.metrics import RATIOS


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_both_languages_say_the_same_with_the_same_values() -> None:
    for english, vietnamese in [*LABELS.values(), *TEXTS.values(), *STATES.values(), *RECORDING_STATES.values()]:
        assert english
        assert vietnamese
        assert placeholders(english) == placeholders(vietnamese), english


def test_every_column_metric_and_state_has_words() -> None:
    assert {name for table in TABLES.values() for name, _ in table.columns} <= LABELS.keys()
    assert {ratio.name for ratio in RATIOS} <= LABELS.keys()
    assert DEFINITIONS.keys() == {ratio.name for ratio in RATIOS}
    assert STATES.keys() == MARKS.keys() == {*DayState, None}
    assert RECORDING_STATES.keys() == set(RecordingStatus)


@pytest.mark.parametrize("language", list(Language))
def test_a_definition_has_its_formula(language: Language) -> None:
    for ratio in RATIOS:
        assert ratio.formula in definition(ratio.name, language)


@pytest.mark.parametrize(
    ("kind", "value", "english", "vietnamese"),
    [
        (Kind.COUNT, 1234567, "1,234,567", "1.234.567"),
        (Kind.SHARE, 0.4567, "45.7%", "45,7%"),
        (Kind.SHARE, 1.0, "100.0%", "100,0%"),
        (Kind.DURATION, 61.4, "0:01:01", "0:01:01"),
        (Kind.DURATION, 100_000, "27:46:40", "27:46:40"),
        (Kind.DAY, date(2026, 1, 5), "Jan 5, 2026", "5 thg 1, 2026"),
        (Kind.INSTANT, datetime(2026, 1, 5, 18, 30, tzinfo=UTC), "Jan 6, 2026 01:30", "6 thg 1, 2026 01:30"),
        (Kind.HOUR, 7, "07:00", "07:00"),
        (Kind.TEXT, "user_1", "user_1", "user_1"),
        *((kind, None, NOTHING, NOTHING) for kind in Kind),
    ],
)
def test_a_value_is_written_as_the_language_does(kind: Kind, value: object, english: str, vietnamese: str) -> None:
    for language, expected in zip(Language, (english, vietnamese), strict=True):
        assert Formats(language, "Asia/Ho_Chi_Minh").write(kind, value) == expected


def test_a_state_or_a_status_is_said_in_the_language() -> None:
    words = Words(Language.VIETNAMESE)
    assert words.state(DayState.FAILED) == "lỗi"
    assert words.recording("archived") == "đã lưu trữ"
    assert words.recording("a status of a later version") == "a status of a later version"
