"""The page for developers names what is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_path_exists() -> None:
    paths = re.findall(r"(?<![\w/.])(?:pipelines|sinks|transforms|tests|\.ci)/[\w/.]*\w/?", PAGE)
    assert len(paths) > 30
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_room_is_told() -> None:
    rooms = {path.name for path in (ROOT / "pipelines").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert {room for room in rooms if f"| `pipelines/{room}/` |" not in PAGE} == set()


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)`", PAGE)) <= targets
