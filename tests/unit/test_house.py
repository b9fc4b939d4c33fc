"""The shape of the house: which way imports run, what is pure, and that no module outgrows a sitting."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("transforms", "sinks", "pipelines")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
MAY_IMPORT = {"transforms": {"transforms"}, "sinks": {"transforms", "sinks"}, "pipelines": set(PACKAGES)}
PREFECT_PACKAGE = "pipelines.flows"
MAX_LINES = 450

NOT_PURE = {
    "os",
    "time",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "tempfile",
    "shutil",
    "io",
    "threading",
    "asyncio",
    "logging",
    "urllib",
    "http",
    "glob",
    "httpx",
    "requests",
    "fsspec",
    "duckdb",
    "psycopg",
    "pymysql",
    "sqlite3",
    "prefect",
}
"""What reads or writes something, asks for the time or draws lots."""
CLOCK_READERS = frozenset({"now", "utcnow", "today", "time", "monotonic", "perf_counter", "open", "print", "input"})


ROOMS = {
    "logs": "",
    "windows": "",
    "redaction": "",
    "settings": "redaction",
    "simulator": "settings",
    "stringeex": "logs redaction settings",
    "context": "settings stringeex windows",
    "export": "context logs stringeex windows",
    "watch": "context export logs settings stringeex windows",
    "report": "context watch windows",
    "proof": "context export report settings stringeex watch windows",
    "recordings": "context settings stringeex windows",
    "erasure": "context export logs recordings settings stringeex windows",
    "dictionary": "report",
    "flows": "context erasure export logs proof recordings report settings stringeex watch windows",
    "api": "context erasure export settings stringeex watch",
    "cli": "context dictionary erasure export flows logs proof recordings redaction report settings simulator "
    "stringeex watch windows",
}
"""The rooms of ``pipelines``, each with those it may import: only such as stand above it here."""


def imports(path: Path) -> set[str]:
    """Return the absolute names that a module imports, inside of functions and for type checkers too.

    ``from a import b`` counts as ``a.b``, and as ``a`` too unless ``b`` is one of our modules.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its direction"
            assert node.module is not None
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= imported if imported <= MODULES.keys() else {node.module, *imported}
    return found


def room(name: str) -> str:
    """Return the room of a module of ``pipelines``; "" for the package itself."""
    return name.split(".")[1] if "." in name else ""


def test_each_room_is_declared_and_imports_only_what_stands_above_it() -> None:
    assert {room(name) for name in MODULES if name.startswith("pipelines.")} == ROOMS.keys()
    above: set[str] = set()
    for name, imported in ROOMS.items():
        assert set(imported.split()) <= above, name
        above.add(name)


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("pipelines.")])
def test_a_module_imports_from_the_rooms_below_its_own(name: str) -> None:
    ours = imports(MODULES[name]) & MODULES.keys()
    rooms = {room(imported) for imported in ours if imported.startswith("pipelines.")} - {room(name)}
    assert rooms <= set(ROOMS[room(name)].split())


def test_the_three_packages_are_found() -> None:
    assert {name.split(".")[0] for name in MODULES} == set(PACKAGES)
    assert "transforms.calls" in MODULES


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_from_pipelines_to_sinks_to_transforms(name: str) -> None:
    ours = {imported.split(".")[0] for imported in imports(MODULES[name])} & {*PACKAGES, "tests"}
    assert ours <= MAY_IMPORT[name.split(".")[0]]


@pytest.mark.parametrize("name", [name for name in MODULES if not f"{name}.".startswith(f"{PREFECT_PACKAGE}.")])
def test_only_the_flows_import_prefect(name: str) -> None:
    assert not {imported for imported in imports(MODULES[name]) if imported.split(".")[0].startswith("prefect")}


@pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] == "transforms"])
def test_transforms_are_pure(name: str) -> None:
    assert {imported.split(".")[0] for imported in imports(MODULES[name])} & NOT_PURE == set()
    calls = [node.func for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.Call)]
    called = {
        f.attr if isinstance(f, ast.Attribute) else f.id for f in calls if isinstance(f, (ast.Attribute, ast.Name))
    }
    assert called & CLOCK_READERS == set()


def test_no_circle_of_imports() -> None:
    graph = {name: (imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", MODULES)
def test_no_module_grows_past_a_sitting(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= MAX_LINES
