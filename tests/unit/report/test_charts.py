"""What a chart draws is what it was given."""

from __future__ import annotations

import re

from pipelines.report.charts import COLOURS, Separators, bars, heatmap, line

ENGLISH = Separators(".", ",")


def heights(svg: str, colour: str) -> list[float]:
    """The heights of the bars of one colour, from left to right."""
    drawn = re.findall(r'd="M([\d.]+),[\d.]+h[\d.]+v([\d.]+)h-[\d.]+Z"[^>]*fill="' + re.escape(colour) + '"', svg)
    return [float(height) for _, height in sorted(drawn, key=lambda bar: float(bar[0]))]


def test_a_bar_is_as_high_as_its_number_in_both_widths() -> None:
    chart = bars("Calls", ["Mon", "Tue"], {"answered": [10, 30], "missed": [20, 10]}, ENGLISH, ["", "?"])
    for svg in (chart.wide, chart.narrow):
        first, second = heights(svg, COLOURS[0]), heights(svg, COLOURS[1])
        assert [round(height / first[0], 2) for height in (*first, *second)] == [1, 3, 2, 1]
        assert re.findall(r">([?])</text>", svg) == ["?"]
        assert {"answered", "missed", "Mon", "Tue"} <= set(re.findall(r">([^<>]+)</text>", svg))
    assert chart.wide != chart.narrow


def test_a_line_has_a_gap_where_nothing_is_known() -> None:
    chart = line("Level", ["a", "b", "c", "d"], [0.5, None, 0.25, 1.0], ENGLISH, is_share=True)
    [path] = re.findall(r'd="(M[^"]*)"[^>]*stroke="' + re.escape(COLOURS[0]) + '"', chart.wide)
    assert path.count("M") == 2
    points = re.findall(
        r'transform="translate\(([\d.]+),([\d.]+)\)" d="[^"]*" fill="' + re.escape(COLOURS[0]), chart.wide
    )
    below_top = [float(y) for _, y in points]
    assert len(below_top) == 3
    half, quarter, whole = below_top
    assert whole == 0
    assert round(quarter / half, 2) == 1.5


def test_a_cell_is_the_stronger_the_larger_its_number() -> None:
    chart = heatmap("By hour", ["Mon", "Tue"], ["00", "01"], {("Mon", "00"): 10, ("Tue", "01"): 5}, ENGLISH)
    strengths = [
        float(opacity)
        for opacity in re.findall(r'fill="' + re.escape(COLOURS[0]) + r'"[^>]*opacity="([\d.]+)"', chart.wide)
    ]
    assert sorted(strengths) == [0.52, 1.0]


def test_numbers_on_an_axis_are_written_as_the_language_does() -> None:
    chart = bars("Calls", ["Mon"], {"answered": [3_000]}, Separators(",", "."))
    assert "3.000" in re.findall(r">([^<>]+)</text>", chart.wide)
