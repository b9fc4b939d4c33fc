"""Writes the page: one HTML file that needs no network and no other file."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipelines.report.contents import page_of
from pipelines.report.figures import Figures
from pipelines.report.language import Language
from pipelines.report.words import Words


def report_page(figures: Figures, language: Language) -> str:
    """Return the report as HTML. What comes from the data is escaped, whatever it holds."""
    return _environment().get_template("page.html").render(page=page_of(figures, language), words=Words(language))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipelines.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
