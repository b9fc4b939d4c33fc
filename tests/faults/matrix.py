"""The matrix of faults and databases: declared here, filled by the tests, written to README.md by a full run.

A plugin of pytest, because with pytest-xdist only the process that hands out the tests sees all of them end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DATABASES = ("duckdb", "sqlite", "postgresql", "mariadb")
README = Path(__file__).with_name("README.md")
_PROPERTY = "fault_cell"
_TITLES = {"duckdb": "DuckDB", "sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}

SURVIVED = "complete"
THEN_COMPLETE = "undone; complete after"
FAILED_THEN_COMPLETE = "failed, with the reason; complete after"
DISPUTED_THEN_COMPLETE = "disputed, what was served is there; complete after"
HELD_THEN_COMPLETE = "held, nothing is changed; complete after"

Outcomes = dict[tuple[str, str], str]


@dataclass(frozen=True)
class Fault:
    """A fault, what happens, and the databases where it is not tried, with the reason."""

    name: str
    description: str
    left_out: Mapping[str, str] = field(default_factory=dict)


_NO_SERVER = "no server"
_NO_FILE = "no file"
_ONE_WRITER = "one writer at a time: the second waits"
_OTHERS = ("sqlite", "postgresql", "mariadb")
_NO_MATTER = dict.fromkeys(_OTHERS, "as DuckDB: it ends before any database")
_HELD = dict.fromkeys(_OTHERS, "as a field under another name")
_DISPUTED = dict.fromkeys(_OTHERS, "as a `totalCount` that is too large")
_ONE_OF_A_KIND = {"sqlite": "as DuckDB", "mariadb": "as PostgreSQL"}
_SERVERS_ONLY = {"duckdb": _NO_SERVER, "sqlite": _NO_SERVER}


_ENDS_BEFORE_ANY_DATABASE = (
    "repeats",
    "larger-pages",
    "total-text",
    "other-window",
    "huge-page",
    "stalls",
    "stalls-head",
    "continues",
    "redirects",
    "cookie-bomb",
    "gzip-bomb",
    "blocks",
)
_PORTAL_LEFT_OUT: Mapping[str, Mapping[str, str]] = {
    **dict.fromkeys(_ENDS_BEFORE_ANY_DATABASE, _NO_MATTER),
    **dict.fromkeys(("loops", "total-ignores-window", "total-too-small", "total-missing", "drops-rows"), _DISPUTED),
    **dict.fromkeys(("unreadable", "mostly-gone", "another-portal"), _HELD),
}

GROUPS: Mapping[str, tuple[Fault, ...]] = {
    "The process dies": (
        Fault("kill-first", "SIGKILL before and after every durable write of a first export"),
        Fault("kill-changed", "the same while a re-read finds a late, a changed and a vanished call"),
        Fault("sigterm", "SIGTERM, or Ctrl-C, to the command"),
    ),
    "Two at once": (
        Fault("two-at-once", "Two processes begin the same range at the same instant"),
        Fault("stalled", "A process stands still for longer than its lease, and another takes its day over"),
    ),
    "Storage": (
        Fault(
            "lake-full",
            "The lake's disk is full: before the raw copy, before the calls, before the participants",
            _ONE_OF_A_KIND,
        ),
        Fault("lake-read-only", "The lake becomes read-only in flight, at the same three points", _ONE_OF_A_KIND),
        Fault("database-full", "The database's disk is full when a window is to be published"),
        Fault("spool-full", "The disk of the temporary files is full while a window is read"),
    ),
    "Database": (
        Fault("server-restarted", "The server dies and comes back in mid-commit", _SERVERS_ONLY),
        Fault("server-gone", "The server dies in mid-commit and stays away until the run has ended", _SERVERS_ONLY),
        Fault(
            "connection-cut", "The connection is cut by the server: staged, merged, before the commit", _SERVERS_ONLY
        ),
        Fault("deadlock", "A deadlock with another connection, which wins", dict.fromkeys(_SERVERS_ONLY, _ONE_WRITER)),
        Fault("lock-short", "Another process holds the rows, or the file, for a while"),
        Fault("lock-long", "Another process holds them for longer than the time-out"),
    ),
    "Portal": tuple(
        Fault(f"portal-{name}", description, _PORTAL_LEFT_OUT.get(name, {}))
        for name, description in {
            "dies": "Dies between pages, and comes back later",
            "repeats": "Repeats a page",
            "larger-pages": "Serves pages larger than was asked for",
            "loops": "Loops its `search_after`",
            "other-window": "Answers another window's rows",
            "grows": "Grows while it is read",
            "shrinks": "Shrinks while it is read",
            "ids-twice": "Serves ids twice, with rows that differ",
            "field-renamed": "Serves a field that every call needs under another name, after a good day",
            "unreadable": "Serves what cannot be read in a field, after a good day",
            "mostly-gone": "Serves a few of a day's calls, after a good day",
            "another-portal": "Serves another portal's calls, after a good day",
            "total-ignores-window": "`totalCount` is three billion, whatever the window is",
            "blocks": "Answers 429 with `Retry-After` of a second, now and then",
            "total-too-small": "`totalCount` is too small",
            "total-too-large": "`totalCount` is too large",
            "total-text": "`totalCount` is a string",
            "total-missing": "`totalCount` is missing",
            "drops-rows": "Leaves rows of a page out",
            "huge-page": "Sends a page of 200 MB",
            "stalls": "Stalls: its answer trickles in a byte at a time, each within the read time-out",
            "stalls-head": "Stalls from the first byte on: status line and headers trickle in, too",
            "continues": "Says `100 Continue` for ever",
            "no-utf8": "Sends a byte that is no UTF-8 inside a name",
            "redirects": "Redirects to another host",
            "cookie-bomb": "Sends a cookie bomb",
            "gzip-bomb": "Sends a gzip bomb",
            "clock": "Its clock is set back by a day while it is read, and forward again",
        }.items()
    ),
    "Clock": (
        Fault(
            "clock-forward",
            "The machine's clock jumps forward by a day in the middle of a window, and back later",
            _ONE_OF_A_KIND,
        ),
        Fault("clock-backward", "The machine's clock jumps back by a day in the middle of a window", _ONE_OF_A_KIND),
    ),
    "Data": (Fault("any-json", "Any JSON: rows of documented fields and others, with arbitrary values"),),
}
FAULTS = {fault.name: fault for group in GROUPS.values() for fault in group}

Cell = Callable[[str, str, str], None]


def databases_of(*names: str) -> list[str]:
    """Return the databases on which these faults, all alike in this, are to be tried."""
    return [database for database in DATABASES if not any(database in FAULTS[name].left_out for name in names)]


def tried(*names: str) -> list[tuple[str, str]]:
    """Return the pairs of a fault and a database that are to be tried."""
    return [(name, database) for name in names for database in DATABASES if database not in FAULTS[name].left_out]


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Cell:
    """Return a function that notes what became of a fault on a database, to be called last."""

    def note(fault: str, database: str, outcome: str) -> None:
        assert database not in FAULTS[fault].left_out, "declared as left out"
        assert database in DATABASES
        request.node.user_properties.append((_PROPERTY, (fault, database, outcome)))

    return note


def render(outcomes: Mapping[tuple[str, str], str]) -> str:
    """Return the text of README.md."""
    lines = [
        "# Every fault, on every database",
        "",
        "Written by the test run itself (`python -m pytest tests/faults`); a run in CI fails when it would write"
        " something else. In every cell nothing was lost and nothing doubled: afterwards lake and warehouse hold what"
        " the portal serves, call for call and value for value.",
        "",
        f"- **{SURVIVED}**: the run that met the fault ended complete.",
        f"- **{THEN_COMPLETE}**: nothing of the run is seen; the next one ended complete, and equal to one that was"
        " never disturbed.",
        f"- **{FAILED_THEN_COMPLETE}**: the run said what was wrong, with numbers where there are any; its windows"
        " were due again, and complete once the fault was over.",
        f"- **{DISPUTED_THEN_COMPLETE}**: what was served was published, and marked as not proven to be all; its"
        " windows were due again, and complete once the fault was over.",
        f"- **{HELD_THEN_COMPLETE}**: what was read was kept raw, and nothing that was published before has changed;"
        " its windows were due again, and complete once the fault was over.",
        "- *in italics*: why it is not tried there.",
    ]
    for title, faults in GROUPS.items():
        lines += ["", f"## {title}", "", "| fault | " + " | ".join(_TITLES.values()) + " |", "|---" * 5 + "|"]
        for fault in faults:
            cells = [f"*{fault.left_out[d]}*" if d in fault.left_out else outcomes[fault.name, d] for d in DATABASES]
            lines.append(f"| {fault.description} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


class Matrix:
    """Collects the cells of a run and, at the end of a full one, holds README.md to them."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outcomes: Outcomes = {}
        self._problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the cells of a test that has passed."""
        if report.when == "call" and report.passed:
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    fault, database, outcome = value  # type: ignore[misc]
                    known = self._outcomes.setdefault((fault, database), outcome)
                    if known != outcome:
                        self._problem = f"{fault} on {database} ended as {known!r} and as {outcome!r}"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write README.md; in CI, fail when it was another one, or when a cell is missing."""
        if not self._outcomes:
            return
        missing = [
            f"{name} on {database}"
            for name, fault in FAULTS.items()
            for database in DATABASES
            if database not in fault.left_out and (name, database) not in self._outcomes
        ]
        in_ci = bool(os.environ.get("CI"))
        if missing:
            self._problem = self._problem or (f"no outcome of {', '.join(missing)}" if in_ci else "")
        else:
            text = render(self._outcomes)
            if not README.exists() or README.read_text() != text:
                README.write_text(text)
                self._problem = self._problem or "the matrix has changed: commit tests/faults/README.md"
        if self._problem and (in_ci or not missing):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what is wrong with the matrix."""
        if self._problem:
            terminalreporter.write_line(f"fault matrix: {self._problem}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Collect where the reports of all tests arrive."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Matrix(config), "fault-matrix")
