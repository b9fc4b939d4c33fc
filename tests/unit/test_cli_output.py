"""How sizes and spans of time are written for a reader."""

from __future__ import annotations

import pytest

from pipelines.cli.output import file_size, time_taken


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0, "less than a minute"),
        (0.005, "less than a minute"),
        (1 / 60, "1 minute"),
        (0.5, "30 minutes"),
        (26.25, "26.2 hours"),
    ],
)
def test_a_short_time_was_0_00_hours(hours: float, text: str) -> None:
    assert time_taken(hours) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (48_044, "48 kB"), (12_345_678, "12.3 MB")]
)
def test_a_small_size_was_0_0_megabytes(size: int, text: str) -> None:
    assert file_size(size) == text
