"""The changelog tells of the version that is here, and has a place for what comes next."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]

TEXT = (REPOSITORY / "CHANGELOG.md").read_text()
SECTIONS = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)


def test_the_version_of_this_code_has_a_section_and_the_next_one_too() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert SECTIONS[0] == "[Unreleased]"
    assert any(section.startswith(f"[{version}] - ") for section in SECTIONS)


def test_versions_come_newest_first_each_once_and_with_its_day() -> None:
    found = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", section) for section in SECTIONS[1:]]
    assert None not in found
    releases = [(tuple(map(int, match.groups()[:3])), date.fromisoformat(match[4])) for match in found if match]
    assert releases == sorted(releases, reverse=True)
    assert len({version for version, _ in releases}) == len(releases)


def test_each_section_uses_the_kinds_of_keep_a_changelog_in_their_order() -> None:
    for section in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", section, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
