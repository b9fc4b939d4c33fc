"""Disks that are full, and folders that become read-only in flight: nothing half-written, and complete afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipelines.export.window import Event, Outcome, Step
from pipelines.simulator import Portal
from sinks.identity import IDENTITY_FILE
from tests.exports import FIRST, assert_holds, range_ms
from tests.faults import processes
from tests.faults.changes import change, whole_rows
from tests.faults.conftest import DAY_AFTER
from tests.faults.matrix import FAILED_THEN_COMPLETE, Cell, databases_of
from tests.faults.processes import ExportError, Job
from tests.faults.sites import Site
from transforms.errors import StorageError

POINTS = (Step.FETCHED, Step.MERGED, Step.LAKE_CALLS_PUBLISHED)
"""Before the raw copy is published, before the calls are, before their participants are."""


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Have a file system of ``size`` at ``folder``; needs the right to mount, as in CI."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        message = "not allowed to mount a small file system"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no byte free on the file system of ``folder``."""
    with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
        while ballast.write(b"x" * 4096) == 4096:
            pass


def make_room(folder: Path) -> None:
    (folder / "ballast").unlink()


def remount(folder: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)


def calls_of(place: Site) -> list[dict[str, Any]]:
    with place.export.open():
        return processes.tables_of(place.export.settings)["calls"]


def assert_fails_and_recovers(
    portal: Portal, place: Site, at: Step, break_it: Callable[[], None], mend_it: Callable[[], None], message: str
) -> None:
    """The run that meets the fault says so and moves nothing in the warehouse; the next one is complete."""
    before = calls_of(place)
    struck: list[Step] = []

    def strike(event: Event) -> None:
        if event.step is at and not struck:
            struck.append(event.step)
            break_it()

    with pytest.raises(StorageError, match=message) as caught:
        place.export.run(FIRST, FIRST, now=DAY_AFTER, force=True, on_event=strike)
    assert "\n" not in str(caught.value)
    mend_it()
    assert calls_of(place) == before
    processes.expire_claims(place.export.settings)
    again = place.export.run(FIRST, FIRST, now=DAY_AFTER)
    assert [result.outcome for result in again.results] == [Outcome.COMPLETE]
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    hidden = [name for name in processes.files_below(place.data / "lake") if Path(name).name.startswith(".")]
    assert set(hidden) <= {IDENTITY_FILE}


@pytest.mark.parametrize("database", databases_of("lake-full"), indirect=True)
def test_the_lakes_disk_is_full(portal: Portal, place: Site, cell: Cell) -> None:
    with small_disk(place.data / "lake", "512k") as disk:
        for number, at in enumerate(POINTS):
            if number:
                change(portal, number)
            assert_fails_and_recovers(
                portal, place, at, lambda: fill(disk), lambda: make_room(disk), "No space left on device"
            )
    cell("lake-full", place.database, FAILED_THEN_COMPLETE)


@pytest.mark.parametrize("database", databases_of("lake-read-only"), indirect=True)
def test_the_lake_becomes_read_only_in_flight(portal: Portal, place: Site, cell: Cell) -> None:
    with small_disk(place.data / "lake", "4m") as disk:
        for number, at in enumerate(POINTS):
            if number:
                change(portal, number)
            assert_fails_and_recovers(
                portal, place, at, lambda: remount(disk, "ro"), lambda: remount(disk, "rw"), "Read-only file system"
            )
    cell("lake-read-only", place.database, FAILED_THEN_COMPLETE)


@contextmanager
def database_on_a_small_disk(place: Site, tmp_path: Path) -> Iterator[Path]:
    """Have the database's files, and nothing else, on a file system of their own."""
    match place.database:
        case "duckdb" | "sqlite":
            with small_disk(place.data, "16m") as disk:
                place.more["CALLHISTORY_LAKE_URL"] = str(tmp_path / "lake")
                yield disk
        case "postgresql":
            assert place.server is not None
            with small_disk(place.server.data.parent / "small", "24m") as disk:
                owner = place.server.data.stat()
                os.chown(disk, owner.st_uid, owner.st_gid)
                place.server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
                place.server.execute(f"ALTER DATABASE {place.database_name} SET TABLESPACE small")
                try:
                    yield disk
                finally:
                    place.drop()
                    place.server.execute("DROP TABLESPACE small")
        case "mariadb":
            assert place.server is not None
            with small_disk(place.server.data.parent / "small", "24m") as disk:
                folder = place.server.data / place.database_name
                owner = folder.stat()
                os.chown(disk, owner.st_uid, owner.st_gid)
                subprocess.run(["cp", "-a", f"{folder}/.", disk], check=True)
                subprocess.run(["rm", "-r", folder], check=True)
                folder.symlink_to(disk)
                try:
                    yield disk
                finally:
                    place.drop_tables()
                    folder.unlink()
                    folder.mkdir()
                    os.chown(folder, owner.st_uid, owner.st_gid)


def test_the_databases_disk_is_full(portal: Portal, place: Site, tmp_path: Path, cell: Cell) -> None:
    with database_on_a_small_disk(place, tmp_path) as disk:
        place.export.run(FIRST, FIRST, now=DAY_AFTER)
        add_many(portal)
        assert_fails_and_recovers(
            portal, place, Step.FETCHED, lambda: fill(disk), lambda: make_room(disk), "has no space left"
        )
    cell("database-full", place.database, FAILED_THEN_COMPLETE)


def add_many(portal: Portal) -> None:
    """Have so many more calls that the database needs more room for them than it has by chance."""
    model = whole_rows(portal)[0]
    for number in range(800):
        portal.add_call(model | {"id": f"call-vn-1-MORE{number:06d}-1767600000000", "unknown": os.urandom(200).hex()})


def test_the_disk_of_the_temporary_files_is_full(portal: Portal, place: Site, cell: Cell) -> None:
    with small_disk(place.temporary, "512k") as disk:
        job = Job(place.overrides, place.folder, FIRST, FIRST, "full", DAY_AFTER)
        running = processes.start(export_and_fill, job, Step.PAGE_READ, disk, temporary=disk)
        with pytest.raises(ExportError, match=r"StorageError: cannot write temporary files .*No space left.*TMPDIR"):
            running.result()
        make_room(disk)
        processes.start(processes.export, job, temporary=disk).result()
        assert [path for path in disk.rglob("*") if path.is_file()] == []
    assert_holds(place.export, portal.rows(*range_ms(FIRST, FIRST)), FIRST, FIRST)
    cell("spool-full", place.database, FAILED_THEN_COMPLETE)


def export_and_fill(job: Job, at: Step, disk: Path) -> Any:
    """Do a job, and leave no room on ``disk`` from a step on."""
    return processes.export(job, lambda event: fill(disk) if event.step is at else None)
