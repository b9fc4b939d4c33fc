"""The languages of the report; apart from what writes them, so that a command knows them without importing it."""

from __future__ import annotations

from enum import StrEnum


class Language(StrEnum):
    """The languages of the report."""

    ENGLISH = "en"
    VIETNAMESE = "vi"
