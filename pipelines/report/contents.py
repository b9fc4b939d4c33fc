"""What stands on the page: sections of figures, charts and tables, in the words of a language."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from babel.numbers import get_decimal_symbol, get_group_symbol

from pipelines.report.charts import Chart, Separators, bars, heatmap, line
from pipelines.report.figures import PROVEN, Figures, Row
from pipelines.report.formats import Formats, Kind
from pipelines.report.language import Language
from pipelines.report.tables import TABLES, Shown, show_table
from pipelines.report.words import MARKS, Words, definition
from pipelines.watch.status import DayState
from pipelines.windows import ONE_DAY, day_ranges
from transforms.metrics import RATIOS

ROWS_SHOWN = 500

_HEADLINES = (
    ("calls", Kind.COUNT),
    ("inbound", Kind.COUNT),
    ("outbound", Kind.COUNT),
    ("offered", Kind.COUNT),
    ("answered", Kind.COUNT),
    ("missed", Kind.COUNT),
    ("service_level", Kind.SHARE),
    ("abandonment_rate", Kind.SHARE),
    ("asa_seconds", Kind.DURATION),
    ("aht_seconds", Kind.DURATION),
    ("outbound_connect_rate", Kind.SHARE),
    ("customers", Kind.COUNT),
)
_SERVICE_LEVELS = [ratio.name for ratio in RATIOS if ratio.name.startswith("service_level")]
_SERVICE = (*_SERVICE_LEVELS, "abandonment_rate", "asa_seconds", "aht_seconds", "acw_average_seconds", "hold_share")
_DEFINED = tuple(ratio.name for ratio in RATIOS)


@dataclass(frozen=True)
class Figure:
    """One number of the page: its ``value`` as the query has it, and as it is shown; ``change`` against before."""

    name: str
    label: str
    value: Any
    shown: str
    change: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under one heading."""

    id: str
    title: str
    texts: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    note: str = ""
    tables: Sequence[Shown] = ()
    definitions: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Page:
    """The whole page; ``warning`` is whether some day is not proven complete."""

    language: str
    title: str
    range: str
    written: str
    warning: bool
    sections: Sequence[Section] = field(default_factory=list)


def page_of(figures: Figures, language: Language) -> Page:
    """Return the page in a language."""
    return _Contents(figures, language).page()


class _Contents:
    def __init__(self, figures: Figures, language: Language) -> None:
        self._figures = figures
        self._words = Words(language)
        self._formats = Formats(language, figures.timezone)
        locale = language.value
        self._separators = Separators(get_decimal_symbol(locale), get_group_symbol(locale))
        self._unproven = figures.unproven
        spans_years = figures.first.year != figures.last.year
        self._days = [(self._formats.day if spans_years else self._formats.short_day)(day) for day in figures.states]
        self._marks = [MARKS[state] for state in figures.states.values()]

    def page(self) -> Page:
        figures, words, formats = self._figures, self._words, self._formats
        newest = formats.instant(figures.newest_instant) if figures.newest_instant else formats.write(Kind.TEXT, None)
        return Page(
            words.language.value,
            words("title"),
            self._range(figures.first, figures.last),
            words("written", at=formats.instant(figures.at), timezone=figures.timezone, newest=newest),
            bool(self._unproven),
            list(self._sections()),
        )

    def _sections(self) -> Iterator[Section]:
        yield self._completeness()
        yield self._glance()
        yield self._by_day()
        yield self._by_hour()
        yield self._by_weekday()
        yield self._service()
        yield self._listed("agents")
        yield self._listed("numbers", missing=self._words("no_number"))
        yield self._listed("campaigns")
        yield self._recovery()
        yield self._to_recover()
        yield self._repeat()
        yield self._resolution()
        yield self._concurrency()
        yield self._recordings()
        yield self._definitions()

    def _range(self, first: date, last: date) -> str:
        long_day = self._formats.long_day
        if first == last:
            return long_day(first)
        return self._words("range", first=long_day(first), last=long_day(last))

    def _short_range(self, first: date, last: date) -> str:
        day = self._formats.day
        return day(first) if first == last else self._words("range", first=day(first), last=day(last))

    @property
    def _note(self) -> str:
        """What a chart of several days says of those that are not proven."""
        if not self._unproven:
            return ""
        counted = [
            f"{len(days)} × {self._words.state(state)}"
            for state in (*DayState, None)
            if state not in PROVEN and (days := self._figures.days_in(state))
        ]
        return ", ".join(counted)

    def _completeness(self) -> Section:
        figures, words = self._figures, self._words
        if self._unproven:
            texts = [words("not_proven", count=len(self._unproven), days=len(figures.states))]
        else:
            texts = [words("all_proven")]
        for first, last, state in day_ranges(figures.states.items()):
            if state not in PROVEN:
                texts.append(words("state_days", state=words.state(state), days=self._short_range(first, last)))
        unknown = ("unknown_status", "unknown_direction", "answered_without_talk")
        if any(figures.summary[name] for name in unknown):
            counts = {name: self._formats.write(Kind.COUNT, figures.summary[name]) for name in unknown}
            texts.append(words("unknown", **counts))
        return Section("completeness", words("completeness"), texts)

    def _glance(self) -> Section:
        figures, words = self._figures, self._words
        days = len(figures.states)
        earlier = (figures.first - days * ONE_DAY, figures.first - ONE_DAY)
        text = (
            words("not_compared")
            if figures.before is None
            else words("compared", first=self._formats.day(earlier[0]), last=self._formats.day(earlier[1]))
        )
        texts = [text]
        if figures.before is not None and figures.unproven_before:
            texts.append(words("unproven_before", count=figures.unproven_before))
        shown = [self._figure(name, kind, figures.summary, figures.before) for name, kind in _HEADLINES]
        return Section("summary", words("glance"), texts, shown, note=self._note)

    def _figure(self, name: str, kind: Kind, row: Row, before: Row | None = None) -> Figure:
        value = row[name]
        change = "" if before is None else self._change(kind, value, before[name])
        return Figure(name, _full_label(self._words, name), value, self._formats.write(kind, value), change)

    def _change(self, kind: Kind, value: float | None, before: float | None) -> str:
        if value is None or before is None or (not before and kind is not Kind.SHARE):
            return ""
        unit, difference = ("points", value - before) if kind is Kind.SHARE else ("percent", value / before - 1)
        if not difference:
            return self._words("no_change")
        return self._words(unit, change=self._formats.change(difference))

    def _by_day(self) -> Section:
        figures, words = self._figures, self._words
        by_date = {row["call_date"]: row for row in figures.rows["days"]}
        parts = {
            name: [_part(name, by_date.get(day)) for day in figures.states]
            for name in ("answered", "missed", "other_inbound", "outbound", "internal", "unknown_direction")
        }
        series = {words.label(name): numbers for name, numbers in parts.items() if any(numbers)}
        drawn = [bars(words("by_day"), self._days, series, self._separators, self._marks)] if series else []
        rows = [{**row, "state": words.state(figures.states[row["call_date"]])} for row in figures.rows["days"]]
        note = words("marks") if self._unproven else ""
        return Section("days", words("by_day"), charts=drawn, note=note, tables=[self._table("days", rows)])

    def _by_hour(self) -> Section:
        words, rows = self._words, self._figures.rows["hours"]
        by_hour = {row["call_hour"]: row for row in rows}
        hours = range(24)
        answered = [by_hour[hour]["answered"] if hour in by_hour else 0 for hour in hours]
        offered = [by_hour[hour]["offered"] if hour in by_hour else 0 for hour in hours]
        series = {
            words.label("answered"): answered,
            words("not_answered"): [all_ - some for all_, some in zip(offered, answered, strict=True)],
        }
        drawn = (
            [bars(words("by_hour"), [f"{hour:02}" for hour in hours], series, self._separators)] if any(offered) else []
        )
        text = [words("by_hour_text")]
        return Section(
            "hours", words("by_hour"), text, charts=drawn, note=self._note, tables=[self._table("hours", rows)]
        )

    def _by_weekday(self) -> Section:
        words, rows = self._words, self._figures.rows["weekday_hours"]
        days = [self._formats.weekday(day) for day in range(1, 8)]
        hours = [f"{hour:02}" for hour in range(24)]
        values = {(days[row["weekday"] - 1], hours[row["call_hour"]]): row["offered"] for row in rows}
        drawn = [heatmap(words("by_weekday"), days, hours, values, self._separators)] if any(values.values()) else []
        named = [{**row, "weekday": days[row["weekday"] - 1]} for row in rows]
        return Section(
            "weekday_hours",
            words("by_weekday"),
            [words("by_weekday_text")],
            charts=drawn,
            note=self._note,
            tables=[self._table("weekday_hours", named)],
        )

    def _service(self) -> Section:
        figures, words = self._figures, self._words
        kinds = {ratio.name: Kind.SHARE if ratio.unit == "ratio" else Kind.DURATION for ratio in RATIOS}
        by_date = {row["call_date"]: row for row in figures.rows["days"]}
        levels = [by_date[day]["service_level"] if day in by_date else None for day in figures.states]
        drawn = (
            [
                line(
                    words.label("service_level"),
                    self._days,
                    levels,
                    self._separators,
                    self._marks,
                    is_share=True,
                )
            ]
            if any(level is not None for level in levels)
            else []
        )
        shown = [self._figure(name, kinds[name], figures.summary, figures.before) for name in _SERVICE]
        note = words("marks") if self._unproven else ""
        return Section(
            "service_level", words("service"), [words("service_text", **figures.parameters)], shown, drawn, note
        )

    def _listed(self, name: str, missing: str = "") -> Section:
        rows = self._figures.rows[name]
        grain = TABLES[name].columns[0][0]
        if missing:
            rows = [{**row, grain: missing if row[grain] is None else row[grain]} for row in rows]
        if name == "agents":
            rows = [{**row, "agent_name": row["agent_name"] or row["agent_id"]} for row in rows]
        return Section(name, self._words(name), note=self._note, tables=[self._table(name, rows)])

    def _recovery(self) -> Section:
        row, words = self._figures.rows["recovery"][0], self._words
        shown = [
            self._figure(name, kind, row)
            for name, kind in (
                ("missed_calls", Kind.COUNT),
                ("recovered", Kind.COUNT),
                ("recovery_rate", Kind.SHARE),
                ("called_back", Kind.COUNT),
                ("average_recovery_seconds", Kind.DURATION),
            )
        ]
        text = words("recovery_text", **self._figures.parameters)
        return Section("recovery", words("recovery"), [text], shown, note=self._note)

    def _to_recover(self) -> Section:
        at = self._formats.instant(self._figures.at)
        text = self._words("to_recover_text", at=at, **self._figures.parameters)
        table = self._table("to_recover", self._figures.rows["to_recover"])
        return Section("to_recover", self._words("to_recover"), [text], tables=[table])

    def _repeat(self) -> Section:
        row, words = self._figures.rows["repeat_calls"][0], self._words
        shown = [self._figure(name, Kind.COUNT, row) for name in ("repeat_calls", "repeat_customers")]
        text = words("repeat_text", **self._figures.parameters)
        table = self._table("repeat_callers", self._figures.rows["repeat_callers"])
        return Section("repeat_calls", words("repeat"), [text], shown, note=self._note, tables=[table])

    def _resolution(self) -> Section:
        row, words = self._figures.rows["resolution"][0], self._words
        kinds = {
            "resolution_rate": Kind.SHARE,
            "answered_calls": Kind.COUNT,
            "followed_up": Kind.COUNT,
            "resolved": Kind.COUNT,
        }
        texts = [words("resolution_text", **self._figures.parameters)]
        if row["young_days"]:
            texts.append(words("young", days=row["young_days"]))
        shown = [self._figure(name, kind, row) for name, kind in kinds.items()]
        return Section("resolution", words("resolution"), texts, shown, note=self._note)

    def _concurrency(self) -> Section:
        figures, words = self._figures, self._words
        by_date = {row["call_date"]: row["peak_calls"] for row in figures.rows["concurrency"]}
        peaks = [by_date.get(day) for day in figures.states]
        drawn = [line(words("concurrency"), self._days, peaks, self._separators, self._marks)] if by_date else []
        note = words("marks") if self._unproven else ""
        table = self._table("concurrency", figures.rows["concurrency"])
        return Section("concurrency", words("concurrency"), charts=drawn, note=note, tables=[table])

    def _recordings(self) -> Section:
        rows = [{**row, "status": self._words.recording(row["status"])} for row in self._figures.rows["recordings"]]
        return Section("recordings", self._words("recordings"), tables=[self._table("recordings", rows)])

    def _definitions(self) -> Section:
        words = self._words
        defined = [(_full_label(words, name), definition(name, words.language)) for name in _DEFINED]
        defined += [(name, str(value)) for name, value in self._figures.parameters.items()]
        return Section("definitions", words("definitions"), [words("definitions_text")], definitions=defined)

    def _table(self, name: str, rows: Sequence[Row]) -> Shown:
        return show_table(TABLES[name], rows, self._words, self._formats, ROWS_SHOWN)


def _full_label(words: Words, name: str) -> str:
    is_variant = name != "service_level" and name in _SERVICE_LEVELS
    return f"{words.label('service_level')}, {words.label(name)}" if is_variant else words.label(name)


def _part(name: str, row: Mapping[str, Any] | None) -> int:
    if row is None:
        return 0
    if name == "other_inbound":
        return int(row["inbound"] - row["answered"] - row["missed"])
    return int(row[name])
