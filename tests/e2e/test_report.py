"""``report``: every number is a query's, the doubtful days are marked, and any browser shows it."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.report.contents import ROWS_SHOWN
from pipelines.report.formats import Formats, Kind
from pipelines.report.language import Language
from pipelines.report.tables import TABLES
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from tests.deployments import browser
from tests.e2e.place import Place
from transforms.metrics import RATIOS

FIRST = date(2026, 1, 5)
DAYS = 10
LAST = FIRST + timedelta(days=DAYS - 1)
WEEK = ("--from", str(LAST - timedelta(days=4)), "--to", str(LAST))
EVIL = "<script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Ten days, of which the last but one is disputed and the last failed; a campaign with a bad name."""
    portal = Portal(
        generate(11, FIRST, DAYS, 900, late_arrival_share=0, late_change_share=0), PortalOptions(rate_limits=NO_LIMITS)
    )
    for number, row in enumerate(portal.rows(0, 2**50)):
        if number % 3 == 0:
            portal.update_call(row["id"], campaign_name=EVIL)
    folder = tmp_path_factory.mktemp("report")
    with SimulatedPortal(portal) as server:
        place = Place(server, folder, "duckdb:///warehouse.duckdb")
        done = place.run("backfill", "--from", str(FIRST), "--to", str(LAST))
        assert done.exit_code == 0, done.output
        with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
            for status, day in (("disputed", LAST - timedelta(days=1)), ("failed", LAST)):
                connection.execute("UPDATE export_windows SET status = ? WHERE call_date = ?", [status, day])
        yield place


class Page(HTMLParser):
    """What a page shows: figures by name (value, as shown, change), tables by name, texts, and every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.figures: dict[str, list[list[str]]] = {}
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._rows: list[list[tuple[str, str]]] | None = None
        self._cell: list[str] | None = None
        self._figure: list[str] | None = None
        self._part: int | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self.links += [given[name] for name in ("src", "href") if name in given]
        if "data-figure" in given:
            self._figure = [given["data-value"], "", ""]
            self.figures.setdefault(given["data-figure"], []).append(self._figure)
        if tag == "dl":
            self._figure = None  # the definitions have none
        if tag in ("dd", "small", "dt"):
            self._part = {"dd": 1, "small": 2}.get(tag)
        if tag == "table":
            self._rows = self.tables.setdefault(given["id"].removeprefix("table-"), [])
        if tag == "tr" and self._rows is not None:
            self._rows.append([])
        if "data-sort" in given:
            self._cell = [given["data-sort"], ""]

    def handle_endtag(self, tag: str) -> None:
        if tag in ("dd", "small"):
            self._part = None
        if tag in ("td", "th") and self._cell is not None and self._rows is not None:
            self._rows[-1].append((self._cell[0], self._cell[1]))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._part is not None and self._figure is not None:
            self._figure[self._part] += data
        if self._cell is not None:
            self._cell[1] += data


def page_of(place: Place, *arguments: str) -> Page:
    done = place.run("report", "--output", "page.html", *arguments)
    assert done.exit_code == 0, done.output
    return Page((place.folder / "page.html").read_text())


def queries(place: Place, days_earlier: int = 0) -> dict[str, list[dict[str, Any]]]:
    """What the queries give that the dictionary prints, over the days of `WEEK` or earlier ones."""
    earlier = timedelta(days=days_earlier)
    printed = place.run("dictionary", "--json").json["report_queries"]
    with duckdb.connect(str(place.folder / "warehouse.duckdb"), read_only=True) as connection:
        found = {}
        for query in printed:
            sql = re.sub(r":(first|last)_date", r"$\1_date", query["sql"])
            first, last = (date.fromisoformat(day) - earlier for day in (WEEK[1], WEEK[3]))
            bounds = {"first_date": first, "last_date": last}
            result = connection.execute(sql, {name: day for name, day in bounds.items() if f"${name}" in sql})
            names = [column[0] for column in result.description]
            found[query["name"]] = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        return found


@pytest.mark.parametrize("language", list(Language))
def test_every_number_is_that_of_a_query_in_the_dictionary(place: Place, language: Language) -> None:
    page, rows = page_of(place, *WEEK, "--language", language), queries(place)
    sources = [rows[name][0] for name in ("summary", "customers", "recovery", "repeat_calls", "resolution")]
    assert len(page.figures) > 20
    formats = Formats(language, "Asia/Ho_Chi_Minh")
    for name, values in page.figures.items():
        [value] = {source[name] for source in sources if name in source}
        for raw, shown, _ in values:
            assert raw == ("" if value is None else str(value)), name
            assert shown == formats.write(kind_of(name), value), name

    assert page.tables.keys() == {name for name in TABLES if rows[name]}
    assert {"days", "hours", "agents", "numbers", "campaigns", "to_recover", "concurrency"} <= page.tables.keys()
    for name, (_, *shown) in page.tables.items():
        assert len(shown) == len(rows[name]) <= ROWS_SHOWN
        for cells, row in zip(shown, rows[name], strict=True):
            for (key, text), (column, kind) in zip(cells, TABLES[name].columns, strict=True):
                if kind is not Kind.TEXT:
                    assert text == formats.write(kind, row[column]), (name, column)
                if kind in (Kind.COUNT, Kind.SHARE, Kind.DURATION):
                    assert key == ("" if row[column] is None else str(row[column]))
                if column in ("agent_id", "customer_number_e164", "contact_name") and row[column] is not None:
                    assert text == row[column]


def kind_of(name: str) -> Kind:
    if name.endswith("_seconds"):
        return Kind.DURATION
    shares = {ratio.name for ratio in RATIOS if ratio.unit == "ratio"} | {"recovery_rate", "resolution_rate"}
    return Kind.SHARE if name in shares else Kind.COUNT


def test_a_figure_is_compared_with_the_same_one_of_as_many_days_before(place: Place) -> None:
    figures = page_of(place, *WEEK).figures
    now, before = (queries(place, days)["summary"][0] for days in (0, 5))
    assert before["calls"] not in (0, now["calls"])
    changes = {name: figures[name][0][2].replace("−", "-") for name in ("calls", "service_level", "asa_seconds")}
    assert changes == {
        "calls": f"{(now['calls'] / before['calls'] - 1) * 100:+.1f} %",
        "service_level": f"{(now['service_level'] - before['service_level']) * 100:+.1f} points",
        "asa_seconds": f"{(now['asa_seconds'] / before['asa_seconds'] - 1) * 100:+.1f} %",
    }
    assert {change for _, _, change in figures["recovery_rate"]} == {""}, "it is not compared"


def test_days_that_are_not_proven_are_told_first_and_marked_in_every_chart(place: Place) -> None:
    page = page_of(place, *WEEK)
    assert "2 of 5 days are not proven complete" in page.text
    html = (place.folder / "page.html").read_text()
    assert html.index("not proven complete") < html.index('id="summary-title"')
    sections = {found[1]: found[0] for found in re.finditer(r'<section id="(\w+)".*?</section>', html, re.DOTALL)}
    with_charts = [name for name, text in sections.items() if "<svg" in text]
    assert with_charts == ["days", "hours", "weekday_hours", "service_level", "concurrency"]
    for name in with_charts:
        assert "disputed" in sections[name], name
    for name in ("days", "service_level", "concurrency"):
        [wide] = re.findall(r'<div class="wide".*?</div>', sections[name], re.DOTALL)
        assert re.findall(r">([?×○])</text>", wide) == ["?", "×"], name
    assert "disputed: Jan 13, 2026" in page.text
    states = [cells[1][1] for cells in page.tables["days"][1:]]
    assert states == ["complete, settled"] * 3 + ["disputed", "failed"]

    proven = page_of(place, "--from", str(FIRST), "--to", str(FIRST))
    assert "Every day is proven complete" in proven.text
    assert "not all in the warehouse" in proven.text, "there is no day before the first"
    compared = page_of(place, "--from", str(LAST), "--to", str(LAST)).text
    assert "1 of those days are not proven complete" in compared


def test_a_day_that_was_never_asked_for_is_no_day_without_calls(place: Place) -> None:
    page = page_of(place, "--from", str(LAST), "--to", str(LAST + timedelta(days=1)))
    assert f"not exported: {Formats(Language.ENGLISH, 'UTC').day(LAST + timedelta(days=1))}" in page.text
    longer = page_of(place, "--from", str(LAST), "--to", str(LAST + timedelta(days=90)))
    assert "not exported: Jan 15, 2026 to Apr 14, 2026" in longer.text, "a range, and no list of ninety days"


def test_the_page_needs_nothing_else_and_runs_nothing_of_the_data(place: Place) -> None:
    page = page_of(place, *WEEK)
    assert {link for link in page.links if not link.startswith("#")} == {"data:,"}
    assert page.tags.count("script") == 1
    assert EVIL in page.text
    html = (place.folder / "page.html").read_text()
    assert "url(" not in html
    assert "@import" not in html
    assert (place.folder / "page.html").stat().st_mode & 0o077 == 0, "it names people"


def test_a_warehouse_that_nobody_wrote_to_since_an_upgrade_has_no_parameters_yet(place: Place) -> None:
    """Only what writes fills that table: the report ended with a KeyError."""
    with duckdb.connect(str(place.folder / "warehouse.duckdb")) as connection:
        connection.execute("CREATE TABLE kept AS FROM metric_parameters")
        connection.execute("DELETE FROM metric_parameters")
    try:
        page = page_of(place, *WEEK)
    finally:
        with duckdb.connect(str(place.folder / "warehouse.duckdb")) as connection:
            connection.execute("INSERT INTO metric_parameters FROM kept")
            connection.execute("DROP TABLE kept")
    assert "Answered within 20 seconds" in page.text


AXE = """<script>{axe}</script><script>
addEventListener("load", () => axe.run().then(found => {{
  const told = found.violations.map(v => ({{id: v.id, impact: v.impact, nodes: v.nodes.map(n => n.html)}}));
  const paper = getComputedStyle(document.body).backgroundColor;
  document.head.textContent = "";
  document.body.textContent = JSON.stringify({{violations: told, passes: found.passes.length, paper}});
}}));
</script>"""


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_it_and_axe_finds_nothing(place: Place, tmp_path: Path, language: str, theme: str) -> None:
    page_of(place, *WEEK, "--language", language)
    html = (place.folder / "page.html").read_text()
    axe = (files("axe_core_python") / "axe.min.js").read_text()
    page = tmp_path / "axe.html"
    page.write_text(html.replace("</body>", AXE.format(axe=axe) + "</body>"))
    shown = browser.open_page(page.as_uri(), tmp_path / "profile", dark=theme == "dark")
    assert shown.console == []
    found = json.loads(shown.text)
    assert found["violations"] == []
    assert found["passes"] > 20
    assert found["paper"] == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 25, 34)"}[theme]


SORTS = """<script>addEventListener("load", () => {
  const numbers = () => [...document.querySelectorAll("#table-agents tbody tr")].map(r => r.cells[3].dataset.sort);
  const button = document.querySelectorAll("#table-agents .sort")[3];
  const heading = button.closest("th");
  const seen = [];
  for (const click of [1, 2]) { button.click(); seen.push([heading.getAttribute("aria-sort"), numbers()]); }
  document.head.textContent = "";
  document.body.textContent = JSON.stringify(seen);
});</script>"""


def test_a_table_is_sorted_by_the_column_that_is_clicked(place: Place, tmp_path: Path) -> None:
    page_of(place, *WEEK)
    page = tmp_path / "sorted.html"
    page.write_text((place.folder / "page.html").read_text().replace("</body>", SORTS + "</body>"))
    up, down = json.loads(browser.open_page(page.as_uri(), tmp_path / "profile").text)
    assert (up[0], down[0]) == ("ascending", "descending")
    answered = [int(value) for value in up[1]]
    assert answered == sorted(answered)
    assert len(set(answered)) > 5
    assert [int(value) for value in down[1]] == sorted(answered, reverse=True)


def test_csv_files_have_all_rows_and_no_formula(place: Place) -> None:
    done = place.run("report", *WEEK, "--csv", "figures", "--json")
    assert done.exit_code == 0, done.output
    assert not (place.folder / "report.html").exists(), "only what was asked for"
    rows = queries(place)
    assert {Path(name).name for name in done.json["files"]} == {f"{name}.csv" for name in rows if rows[name]}
    for path in map(Path, done.json["files"]):
        content = path.read_bytes()
        assert content.startswith(b"\xef\xbb\xbf"), "a byte order mark, for Excel"
        read = list(csv.DictReader(content.decode("utf-8-sig").splitlines()))
        wanted = rows[path.stem]
        assert len(read) == len(wanted)
        assert list(read[0]) == list(wanted[0])
        for cells, row in zip(read, wanted, strict=True):
            assert not [cell for cell in cells.values() if re.match(r"\s*[=+@\t]|\s*-\D", cell)]
            for column, value in row.items():
                if isinstance(value, int | float | date) and not isinstance(value, datetime):
                    assert cells[column] == str(value), (path.stem, column)
    numbers = [row["customer_number_e164"] for row in rows["to_recover"]]
    written = list(csv.DictReader((place.folder / "figures/to_recover.csv").read_text("utf-8-sig").splitlines()))
    assert [row["customer_number_e164"] for row in written] == [f"'{number}" for number in numbers]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "says"),
    [
        (("--from", "2026-01-09", "--to", "2026-01-07"), 2, "swap them"),
        (("--from", "2026-01-32"), 2, "is no date"),
        (("--from", "2020-01-01", "--to", "2020-01-07"), 1, "has nothing of 2020-01-01 to 2020-01-07"),
        (("--from", "2024-01-01", "--to", "2026-01-07"), 2, "more than 400 days"),
        ((*WEEK, "--language", "fr"), 2, "choose en or vi"),
        ((*WEEK, "--output", "warehouse.duckdb/page.html"), 1, "Name another place with --output or --csv"),
        ((*WEEK, "--csv", "taken"), 1, "cannot write taken"),
        ((*WEEK, "--output", "."), 1, "cannot write ."),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_half_written(
    place: Place, arguments: tuple[str, ...], exit_code: int, says: str
) -> None:
    (place.folder / "taken").write_text("a file")
    before = place.files()
    done = place.run("report", *arguments)
    assert (done.exit_code, done.stdout) == (exit_code, ""), done.output
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert place.files() == before


def test_a_warehouse_that_is_not_there_is_one_line_and_is_not_made(place: Place) -> None:
    done = place.run("report", *WEEK, CALLHISTORY_WAREHOUSE_URL="duckdb:///elsewhere.duckdb")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "run callhistory export first" in done.stderr
    assert not (place.folder / "elsewhere.duckdb").exists()
