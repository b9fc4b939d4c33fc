"""The data dictionary: it is current, complete, and says of personal data what the tables say."""

from __future__ import annotations

import re
from datetime import date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.dictionary import Entry, as_html, as_json, as_markdown, dictionary
from sinks.views import VIEWS
from tests.e2e.command import callhistory_here
from tests.readme import DICTIONARY
from transforms.columns import Pii
from transforms.schema import CALL_PARTICIPANTS, CALLS, REQUEST_BUDGET, TABLES

RELATIONS = {relation.name: relation for relation in dictionary()}
ENTRIES = [
    pytest.param(entry, id=f"{relation.name}.{entry.name}")
    for relation in RELATIONS.values()
    for entry in relation.columns
]
READS = {
    "integer": int,
    "double": float,
    "boolean": {"true": True, "false": False}.__getitem__,
    "instant": datetime.fromisoformat,
    "local_time": datetime.fromisoformat,
    "date": date.fromisoformat,
}


def test_the_page_is_as_the_code_has_it() -> None:
    assert DICTIONARY.read_text() == as_markdown(dictionary()), "python -m tests.readme"


def test_every_table_and_view_is_there() -> None:
    assert list(RELATIONS) == [*(table.name for table in TABLES), REQUEST_BUDGET.name, *VIEWS]


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_column_has_a_meaning_and_an_example_of_its_type(entry: Entry) -> None:
    assert entry.meaning.endswith(".")
    assert entry.example
    if entry.type in READS:
        READS[entry.type](entry.example)
    else:
        assert entry.type in ("text", "json")
    if entry.name.endswith("_seconds"):
        assert entry.unit == "seconds"


def test_a_view_hands_personal_data_on_as_what_it_is() -> None:
    personal = {
        column.name: column.pii.value
        for column in (*CALLS.columns, *CALL_PARTICIPANTS.columns)
        if column.pii is not Pii.NONE
    }
    told = {
        (name, entry.name): entry.personal_data
        for name in VIEWS
        for entry in RELATIONS[name].columns
        if entry.name in personal
    }
    assert len(told) > 20
    assert all(personal[column] == class_ for (_, column), class_ in told.items())


def test_the_formula_of_a_ratio_is_its_source() -> None:
    formulas = {entry.name: entry.source for entry in RELATIONS["daily_metrics"].columns if entry.type == "double"}
    assert formulas["service_level"] == "answered_in_time / (answered + abandoned)"
    assert formulas["service_level_short_abandons_ignored"] == (
        "answered_in_time / (answered + abandoned - short_abandoned)"
    )
    assert len(formulas) == 13


def test_the_html_page_is_whole_and_shows_text_as_text() -> None:
    open_tags: list[str] = []
    cells: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("meta", "!doctype"):
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_data(self, data: str) -> None:
            if open_tags and open_tags[-1] == "td":
                cells.append(data)

    page = as_html(dictionary())
    Parser().feed(page)
    assert open_tags == []
    assert "Whether it is complete, and will not be read again." in cells
    assert not re.search(r'(src|href)="(?!#)', page), "it needs no other file"


def test_the_command_writes_each_form(tmp_path: Path) -> None:
    assert callhistory_here("dictionary", cwd=tmp_path, settings={}).stdout == as_markdown(dictionary())
    done = callhistory_here("dictionary", "--format", "html", "--output", "page.html", cwd=tmp_path, settings={})
    assert (done.exit_code, (tmp_path / "page.html").read_text()) == (0, as_html(dictionary()))
    assert callhistory_here("dictionary", "--json", cwd=tmp_path, settings={}).json["relations"] == [
        {**relation, "key": list(relation["key"])} for relation in as_json(dictionary())["relations"]
    ]
    refused = callhistory_here("dictionary", "--output", "missing/page.md", cwd=tmp_path, settings={})
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "cannot write missing/page.md: No such file or directory" in refused.stderr


def test_a_field_of_the_lake_says_what_it_is(tmp_path: Path) -> None:
    pq.write_table(CALLS.lake_schema.empty_table(), tmp_path / "calls.parquet")
    schema = pq.read_schema(tmp_path / "calls.parquet")
    assert schema.field("talk_seconds").metadata[b"unit"] == b"seconds"
    told = {name: text for name, text in schema.field("agent_name").metadata.items() if b":" not in name}
    assert told == {b"description": b"The agent's name.", b"personal_data": b"name"}
