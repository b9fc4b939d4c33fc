"""Exports in processes of their own, which die, or stand still, exactly where a test wants them to.

A process is forked from a server that has imported everything already, which takes milliseconds instead of seconds.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import resource
import signal
import stat
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpcore  # noqa: F401 - httpx would import it in every process anew
import sqlalchemy as sa
import stamina

from pipelines.context import open_pipeline
from pipelines.export.run import RunSummary, plan_days, run_plans
from pipelines.export.window import Event, Step
from pipelines.settings import Settings, load_settings
from sinks.warehouse import Warehouse
from transforms.errors import StorageError
from transforms.schema import TABLES

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(
    [
        "tests.faults.processes",
        "pipelines.erasure.receipt",
        "pipelines.erasure.run",
        "duckdb_engine",
        "psycopg",
        "pymysql",
        "adbc_driver_manager",
    ]
)

_ = load_settings(None, overrides={"STRINGEEX_BASE_URL": "http://127.0.0.1"}, require_api=False)
"""Read once before there are processes: the first time takes a tenth of a second."""

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Job:
    """An export to do: of which account and range, by the name ``run_id``, with the clock standing at ``now``."""

    settings: dict[str, str]
    folder: Path
    first: date
    last: date
    run_id: str
    now: datetime
    force: bool = False


class ExportError(Exception):
    """The process ended with an exception; the text is its traceback."""


class Places:
    """The places that an export passes, by name, in order; the process dies at the one with the number ``dies_at``."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.passed: list[str] = []
        self._dies_at = dies_at
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """Pass the place, or die there."""
        with self._lock:
            if len(self.passed) == self._dies_at:
                os.kill(os.getpid(), signal.SIGKILL)
            self.passed.append(name)

    def reach_event(self, event: Event) -> None:
        """Pass a step of a window."""
        self.reach(f"step {event.step}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Pass a place before and after each commit and each rename, and before each write is made durable."""
        real_fsync, real_replace, real_commit = os.fsync, Path.replace, sa.Transaction.commit
        places = self

        def fsync(descriptor: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                places.reach("before a file is durable")
            real_fsync(descriptor)

        def replace(path: Path, target: Path) -> Path:
            places.reach(f"before the rename to {Path(target).name.split('.')[-1]}")
            replaced = real_replace(path, target)
            places.reach("after the rename")
            return replaced

        def commit(transaction: sa.Transaction) -> None:
            places.reach("before commit")
            real_commit(transaction)
            places.reach("after commit")

        os.fsync, Path.replace, sa.Transaction.commit = fsync, replace, commit  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            os.fsync, Path.replace, sa.Transaction.commit = real_fsync, real_replace, real_commit  # type: ignore[method-assign]


def export(job: Job, on_event: Callable[[Event], None] | None = None) -> RunSummary:
    """Do a job here and now."""
    with open_pipeline(load_settings(None, overrides=job.settings)) as pipeline:
        plans = plan_days(pipeline, job.first, job.last, job.now, force=job.force)
        return run_plans(pipeline, plans, on_event=on_event, run_id=job.run_id, clock=lambda: job.now)


def export_until(job: Job, dies_at: int | None) -> tuple[RunSummary, list[str]]:
    """Do a job and return also the places it passed, unless the process dies at one of them."""
    places = Places(dies_at)
    with places.watched():
        summary = export(job, places.reach_event)
    return summary, places.passed


def barrier(parties: int) -> Any:
    """Return a barrier that as many processes can meet at."""
    return _PROCESSES.Barrier(parties, timeout=60)


def export_together(job: Job, together: Any) -> tuple[RunSummary, list[tuple[Step, datetime]]]:
    """Plan, wait for the others to have planned too, and only then begin; return also the steps done."""
    stamina.set_testing(False)  # one waits for the other
    steps: list[tuple[Step, datetime]] = []
    with open_pipeline(load_settings(None, overrides=job.settings)) as pipeline:
        plans = plan_days(pipeline, job.first, job.last, job.now, force=job.force)
        together.wait()
        summary = run_plans(
            pipeline,
            plans,
            on_event=lambda event: steps.append((event.step, event.window.start)),
            run_id=job.run_id,
            clock=lambda: job.now,
        )
    return summary, steps


def export_and_stand_still(job: Job, at: Step) -> RunSummary:
    """Do a job, but stop there, as a machine that is suspended does, until SIGCONT."""

    def stand_still(event: Event) -> None:
        if event.step is at:
            # Others open the database meanwhile: one that goes on then has to wait for its turn.
            stamina.set_testing(False)
            # To this thread, which then goes no step further; any other would stop it only a moment later.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return export(job, stand_still)


def export_and_die(job: Job, at: Step) -> None:
    """Do a job, but die there."""
    export(job, lambda event: os.kill(os.getpid(), signal.SIGKILL) if event.step is at else None)


def event() -> Any:
    """Return an event that processes share."""
    return _PROCESSES.Event()


def hold_calls(warehouse_url: str, taken: Any, release: Any) -> None:
    """Keep all calls, or the file they are in, to this process until ``release`` is set; nothing is changed."""
    with Warehouse(warehouse_url) as warehouse:
        calls = warehouse.tables["calls"]
        with suppress(_ReleasedError), warehouse.transaction() as connection:
            connection.execute(sa.update(calls).values(contact_name="held"))
            taken.set()
            release.wait(60)
            raise _ReleasedError


class _ReleasedError(Exception):
    """Rolls the holder's transaction back."""


def export_and_weigh(job: Job) -> tuple[RunSummary, int]:
    """Do a job; return also by how many bytes the process grew at most."""
    stamina.set_testing(True, attempts=1, cap=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summary = export(job)
    return summary, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024


def take_over(job: Job, dead_run: str) -> tuple[RunSummary, dict[str, Any], dict[str, bytes]]:
    """Have the claims of a dead run expire, do the job, and return everything that is there then."""
    settings = load_settings(None, overrides=job.settings)
    expire_claims(settings, dead_run)
    summary = export(job)
    return summary, tables_of(settings), files_below(Path(settings.lake_url))


def expire_claims(settings: Settings, run_id: str | None = None, after: timedelta | None = None) -> None:
    """Have the leases of ``run_id``, or of everybody, run out now, or soon, instead of in some minutes."""
    with Warehouse(settings.warehouse_url.get_secret_value()) as warehouse:
        windows = warehouse.tables["export_windows"]
        with suppress(StorageError), warehouse.transaction() as connection:  # killed before there were tables
            whose = (
                windows.c.claimed_by.is_not(None) if run_id is None else windows.c.claimed_by.startswith(f"{run_id}/")
            )
            expires_at = LONG_AGO if after is None else warehouse.utc_now(connection) + after
            connection.execute(sa.update(windows).where(whose).values(claim_expires_at=expires_at))


def tables_of(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, sorted by key."""
    with Warehouse(settings.warehouse_url.get_secret_value()) as warehouse, warehouse.reading() as connection:
        return {
            table.name: [
                dict(row)
                for row in connection.execute(
                    sa.select(warehouse.tables[table.name]).order_by(
                        *(warehouse.tables[table.name].c[name] for name in table.key)
                    )
                ).mappings()
            ]
            for table in TABLES
        }


def files_below(folder: Path) -> dict[str, bytes]:
    """Return every file, hidden and half-written ones too, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@dataclass
class Running:
    """A process at work; ``result`` waits for its end."""

    process: ForkServerProcess
    _answer: Connection

    def result(self) -> Any:
        """Return what the function returned, or null when the process was killed; raises ``ExportError``."""
        try:
            value, error = self._answer.recv()
        except EOFError:
            value, error = None, None
        self.process.join()
        self._answer.close()
        if error is not None:
            raise ExportError(error)
        return value

    @property
    def was_killed(self) -> bool:
        """Whether it died of SIGKILL."""
        return self.process.exitcode == -signal.SIGKILL


def start(function: Callable[..., Any], *arguments: Any, temporary: Path) -> Running:
    """Begin ``function(*arguments)`` in a new process, whose temporary files lie in ``temporary``."""
    ours, theirs = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_answer_with, args=(theirs, temporary, function, arguments))
    process.start()
    theirs.close()
    return Running(process, ours)


def at_hand(temporary: Path) -> ProcessPoolExecutor:
    """Return one process that stays, whose temporary files lie in ``temporary``."""
    return ProcessPoolExecutor(1, mp_context=_PROCESSES, initializer=_settle, initargs=(temporary,))


def _settle(temporary: Path) -> None:
    temporary.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(temporary)
    # Its retries do not wait either.
    stamina.set_testing(True, attempts=8, cap=True)


def _answer_with(answer: Connection, temporary: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    _settle(temporary)
    try:
        answer.send((function(*arguments), None))
    except BaseException:
        answer.send((None, traceback.format_exc()))
    finally:
        atexit._run_exitfuncs()  # as a process does that was started by a user
