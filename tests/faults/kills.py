"""Kill an export at each place that it passes, run it again, and compare everything with an undisturbed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sinks.certificates import links
from sinks.identity import IDENTITY_FILE
from tests.exports import FIRST
from tests.faults import processes
from tests.faults.conftest import DAY_AFTER
from tests.faults.processes import Job
from tests.faults.sites import Site

ATTEMPT, NEXT_ATTEMPT = DAY_AFTER, DAY_AFTER + timedelta(minutes=20)
DEAD_RUN, NEXT_RUN = "dead", "next"

OF_THE_ATTEMPT = {
    "export_windows": {"attempts", "started_at", "completed_at", "run_id"},
    "certificates": {"number", "completed_at", "run_id", "previous_hash", "certificate_hash"},
    "pipeline_state": {"updated_at"},
}
"""What tells how often and when it was tried, which is not what was exported."""
IDENTITY = "stores_identity"
CHAIN = "certificate_chain"


@dataclass(frozen=True)
class State:
    """Everything that an export leaves: each table's rows, and each file's bytes."""

    tables: Mapping[str, list[dict[str, Any]]]
    files: Mapping[str, bytes]


def job(place: Site, run_id: str, now: datetime, *, force: bool) -> Job:
    return Job(place.overrides, place.folder, FIRST, FIRST, run_id, now, force)


def undisturbed(place: Site, now: datetime, *, force: bool) -> tuple[State, list[str]]:
    """What is there after an export that nothing disturbs, and the places it passes."""
    running = processes.start(
        processes.export_until, job(place, NEXT_RUN, now, force=force), None, temporary=place.temporary
    )
    summary, passed = running.result()
    assert summary.is_complete
    return state_of(place), passed


def state_of(place: Site) -> State:
    settings = place.export.settings
    return stripped(processes.tables_of(settings), processes.files_below(place.data / "lake"))


def stripped(tables: Mapping[str, list[dict[str, Any]]], files: Mapping[str, bytes]) -> State:
    """Leave out what is another one in each run; the identity of warehouse and lake is, but it is the same in both."""
    [identity] = [row["value"] for row in tables["pipeline_state"] if row["name"] == IDENTITY]
    assert json.loads(files[IDENTITY_FILE])["identity"] == json.loads(identity)
    assert links(tables["certificates"]) == []
    kept = {
        table: [
            {k: v for k, v in row.items() if k not in OF_THE_ATTEMPT.get(table, ())}
            for row in rows
            # A run that found nothing to do has not found out again what the server can do.
            if not str(row.get("name")).startswith(("server_traits", IDENTITY, CHAIN))
        ]
        for table, rows in tables.items()
    }
    # A window that was certified, and then read again, is certified twice.
    kept["certificates"] = list({row["window_start"]: row for row in kept["certificates"]}.values())
    return State(kept, {name: content for name, content in files.items() if name != IDENTITY_FILE})


def kill(place: Site, dies_at: int, *, force: bool) -> None:
    """Die at a place."""
    dying = processes.start(
        processes.export_until, job(place, DEAD_RUN, ATTEMPT, force=force), dies_at, temporary=place.temporary
    )
    dying.result()
    assert dying.was_killed


def assert_equals_one_of(state: State, references: list[State], passed: str) -> None:
    """The state is that of a run undisturbed at the first attempt, or else at the second, as a whole."""
    reference = next((r for r in references if r.files == state.files), None)
    assert reference is not None, (
        f"killed at {passed!r}: the lake's files are others than those of an undisturbed run: "
        f"{sorted(state.files)}, not {sorted(references[0].files)}"
    )
    for name, rows in reference.tables.items():
        assert state.tables[name] == rows, f"killed at {passed!r}: table {name}"


def decisive(passed: list[str], first: str) -> list[int]:
    """Return the places, from ``first`` on, right before something becomes durable, and the first and the last one.

    Between two of them nothing that outlives the process has changed, so to die there is to die at the second one.
    """
    begin, end = passed.index(first), len(passed) - 1
    return [n for n in range(begin, end + 1) if passed[n].startswith("before") or n in (begin, end)]


def assert_survives_each_kill(place: Site, put_back: Callable[[], None], first: str, *, force: bool) -> None:
    """Killed at each place from ``first`` on, the next run, in another process, ends as if nothing had been."""
    references = []
    for now in (ATTEMPT, NEXT_ATTEMPT):
        put_back()
        state, passed = undisturbed(place, now, force=force)
        references.append(state)
    assert all(reference.tables["calls"] for reference in references)
    with processes.at_hand(place.temporary) as another_process:
        for number in decisive(passed, first):
            put_back()
            kill(place, number, force=force)
            again = job(place, NEXT_RUN, NEXT_ATTEMPT, force=force)
            summary, tables, files = another_process.submit(processes.take_over, again, DEAD_RUN).result()
            assert summary.is_complete
            assert_equals_one_of(stripped(tables, files), references, passed[number])
            left = [path for path in place.temporary.rglob("*") if path.is_file()]
            assert not left, f"killed at {passed[number]!r}: temporary files are left"
