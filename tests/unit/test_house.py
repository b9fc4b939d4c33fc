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


def imports(path: Path, *, at_run_time_only: bool = False) -> set[str]:
    """Return the absolute names that a module imports.

    ``from a import b`` counts as ``a.b``, and as ``a`` too unless ``b`` is one of our modules.
    ``at_run_time_only`` leaves out what a function imports when it is called, and what only type checkers see.
    """
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its direction"
            assert node.module is not None
            imported = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= imported if imported <= MODULES.keys() else {node.module, *imported}
        elif at_run_time_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        elif at_run_time_only and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
    return found


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
    graph = {name: (imports(path, at_run_time_only=True) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("name", MODULES)
def test_no_module_grows_past_a_sitting(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= MAX_LINES
