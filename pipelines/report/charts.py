"""The charts: Vega-Lite draws each as SVG, in two widths, in the colours of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import vl_convert

WIDE, NARROW = 760, 330
_VERSION = "6.1"
_HEIGHT = 220
_LEGEND_COLUMNS = 2
_INK, _GRID = "var(--ink)", "var(--grid)"
COLOURS = tuple(f"var(--colour-{n})" for n in range(1, 7))
"""The page says which colours these are, in light, in dark and on paper."""

_CONFIG: Mapping[str, Any] = {
    "aria": False,  # The table beside each chart is what a screen reader reads.
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        **dict.fromkeys(("gridColor", "domainColor", "tickColor"), _GRID),
        "labelFontSize": 12,
        "labelOverlap": "greedy",
    },
    "legend": {
        "labelColor": _INK,
        "labelFontSize": 12,
        "labelLimit": 0,
        "columnPadding": 24,
        "symbolStrokeWidth": 0,
        "orient": "top",
        "title": None,
    },
}


@dataclass(frozen=True)
class Separators:
    """How the language writes numbers on an axis."""

    decimal: str
    thousands: str

    def for_vega(self) -> dict[str, Any]:
        """Return them as d3-format takes them."""
        return {"decimal": self.decimal, "thousands": self.thousands, "grouping": [3], "currency": ["", ""]}


@dataclass(frozen=True)
class Chart:
    """A drawing in both widths; ``label`` says in words what it shows."""

    label: str
    wide: str
    narrow: str


def bars(
    label: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[int]],
    separators: Separators,
    marks: Sequence[str] = (),
) -> Chart:
    """Draw a stacked bar for each of ``groups``, with a part for each of ``series``.

    Where ``marks`` has a character for a group, the bar is pale and has the character above it.
    """
    marks = marks or [""] * len(groups)
    values = [
        {"group": group, "series": name, "order": order, "value": numbers[place], "mark": marks[place]}
        for order, (name, numbers) in enumerate(series.items())
        for place, group in enumerate(groups)
    ]
    tops = [
        {"group": group, "value": sum(numbers[place] for numbers in series.values()), "mark": marks[place]}
        for place, group in enumerate(groups)
    ]
    legend: dict[str, Any] | None = {} if len(series) > 1 else None
    bar = {
        "data": {"values": values},
        "mark": "bar",
        "encoding": {
            "x": _by_group(groups),
            "y": _number(",.0f"),
            "color": {"field": "series", "scale": _scale(list(series)), "sort": list(series), "legend": legend},
            "order": {"field": "order"},
            "opacity": _pale_where_marked(),
        },
    }
    return _drawn(label, {"layer": [bar, _marked(tops, groups)]}, separators)


def line(
    label: str,
    groups: Sequence[str],
    values: Sequence[float | None],
    separators: Separators,
    marks: Sequence[str] = (),
    *,
    is_share: bool = False,
) -> Chart:
    """Draw a line over ``groups``, with a gap where the value is null; ``marks`` as in `bars`."""
    marks = marks or [""] * len(groups)
    points = [
        {"group": group, "value": value, "mark": mark} for group, value, mark in zip(groups, values, marks, strict=True)
    ]
    y = _number(".0%" if is_share else ",.0f") | ({"scale": {"domain": [0, 1]}} if is_share else {})
    x = _by_group(groups)
    drawn = {
        "data": {"values": points},
        "layer": [
            {"mark": {"type": "line", "color": COLOURS[0], "strokeWidth": 2}, "encoding": {"x": x, "y": y}},
            {
                "transform": [{"filter": "isValid(datum.value)"}],
                "mark": {"type": "point", "filled": True, "size": 36, "color": COLOURS[0]},
                "encoding": {"x": x, "y": y, "opacity": _pale_where_marked()},
            },
        ],
    }
    marked = [point for point in points if point["value"] is not None]
    return _drawn(label, {"layer": [drawn, _marked(marked, groups)]}, separators)


def heatmap(
    label: str,
    rows: Sequence[str],
    columns: Sequence[str],
    values: Mapping[tuple[str, str], int],
    separators: Separators,
) -> Chart:
    """Draw a cell for each row and column, the darker the larger its value; without a value there is none."""
    cells = [{"row": row, "column": column, "value": value} for (row, column), value in values.items()]
    spec = {
        "data": {"values": cells},
        "mark": {"type": "rect", "fill": COLOURS[0]},
        "encoding": {
            "x": _by_group(columns, "column"),
            "y": {
                "field": "row",
                "type": "ordinal",
                "sort": list(rows),
                "scale": {"domain": list(rows)},
                "title": None,
            },
            "opacity": {
                "field": "value",
                "type": "quantitative",
                "scale": {"domainMin": 0, "range": [0.04, 1]},
                "legend": None,
            },
        },
    }
    return _drawn(label, spec, separators)


def _by_group(groups: Sequence[str], field: str = "group") -> dict[str, Any]:
    return {
        "field": field,
        "type": "ordinal",
        "sort": list(groups),
        "scale": {"domain": list(groups)},
        "axis": {"title": None, "labelAngle": 0},
    }


def _number(form: str) -> dict[str, Any]:
    # Vega-Lite would have marks at 0.5 of a call.
    axis = {"format": form, "title": None, "tickCount": 5, "tickMinStep": 0.1 if "%" in form else 1}
    return {"field": "value", "type": "quantitative", "axis": axis}


def _scale(names: Sequence[str]) -> dict[str, Any]:
    return {"domain": list(names), "range": list(COLOURS[: len(names)])}


def _pale_where_marked() -> dict[str, Any]:
    return {"condition": {"test": "datum.mark !== ''", "value": 0.45}, "value": 1}


def _marked(values: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, Any]:
    return {
        "data": {"values": list(values)},
        "mark": {"type": "text", "dy": -8, "fontSize": 13, "fontWeight": "bold", "color": _INK},
        "encoding": {
            "x": _by_group(groups),
            "y": {"field": "value", "type": "quantitative"},
            "text": {"field": "mark"},
        },
    }


def _drawn(label: str, spec: Mapping[str, Any], separators: Separators) -> Chart:
    wide, narrow = (_svg({**spec, **_frame(width)}, separators) for width in (WIDE, NARROW))
    return Chart(label, wide, narrow)


def _frame(width: int) -> dict[str, Any]:
    columns = _LEGEND_COLUMNS if width == NARROW else 0
    return {
        "width": width,
        "height": _HEIGHT,
        # The last label of an axis may be wider in the reader's font.
        "padding": {"left": 5, "top": 5, "bottom": 5, "right": 20},
        "autosize": {"type": "fit", "contains": "padding"},
        "config": {**_CONFIG, "legend": {**_CONFIG["legend"], "columns": columns}},
    }


def _svg(spec: Mapping[str, Any], separators: Separators) -> str:
    return vl_convert.vegalite_to_svg(dict(spec), vl_version=_VERSION, format_locale=separators.for_vega())
