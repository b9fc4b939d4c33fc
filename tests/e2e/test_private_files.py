"""Whatever the umask: what holds people is for its owner alone, or for the group that a folder was given to."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.storage import Storage
from tests.e2e.command import Finished, account, callhistory
from tests.exports import FIRST

DAYS = ("--from", str(FIRST), "--to", str(FIRST))
ANYBODY = 0


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedPortal]:
    calls = generate(seed=3, start_date=FIRST, days=1, calls_total=12, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server


@pytest.fixture
def run(server: SimulatedPortal, tmp_path: Path) -> Callable[..., Finished]:
    def run(*arguments: str, **settings: str) -> Finished:
        found = account(server.base_url, STRINGEEX_REQUESTS_PER_HOUR="9000", **settings)
        done = callhistory(*arguments, cwd=tmp_path, settings=found, umask=ANYBODY)
        assert done.exit_code == 0, done.output
        return done

    return run


def modes(folder: Path) -> dict[str, str]:
    """Return what may be done with each file and folder, as ``ls -l`` writes it."""
    return {str(path.relative_to(folder)): stat.filemode(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("database", ["duckdb", "sqlite"])
def test_every_file_was_readable_by_anybody(run: Callable[..., Finished], tmp_path: Path, database: str) -> None:
    url = f"{database}:///data/warehouse.{database}"
    run("backfill", *DAYS, CALLHISTORY_WAREHOUSE_URL=url)
    run("recordings", "archive", CALLHISTORY_WAREHOUSE_URL=url)
    run("report", *DAYS, "--output", "data/report.html", "--csv", "data/csv", CALLHISTORY_WAREHOUSE_URL=url)
    run("replay", *DAYS, CALLHISTORY_WAREHOUSE_URL=url)
    found = modes(tmp_path / "data")
    kinds = {"warehouse", ".jsonl.zst", "calls.parquet", ".json", ".html", ".csv"}
    assert {kind for kind in kinds if any(kind in name for name in found)} == kinds
    assert any(name.startswith("recordings/call_date=") for name in found)
    assert set(found.values()) == {"drwx------", "-rw-------"}, found


def test_a_folder_given_to_a_group_shares_with_it_and_with_nobody_else(
    run: Callable[..., Finished], tmp_path: Path
) -> None:
    lake = tmp_path / "shared"
    lake.mkdir()
    lake.chmod(0o2750)
    run("backfill", *DAYS, CALLHISTORY_LAKE_URL="shared")
    found = modes(lake)
    assert any(name.endswith("calls.parquet") for name in found)
    assert set(found.values()) == {"drwxr-s---", "-rw-r-----"}, found
    assert set(modes(tmp_path / "data").values()) == {"drwx------", "-rw-------"}


def test_a_file_system_that_keeps_no_rights_withholds_no_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    (tmp_path / "file").write_bytes(b"calls")
    storage = Storage(str(tmp_path / "mounted"))
    assert storage.publish(tmp_path / "file", "calls/day.parquet")
    with storage.open("calls/day.parquet") as file:
        assert file.read() == b"calls"


def test_metrics_can_be_read_by_whoever_collects_them(run: Callable[..., Finished], tmp_path: Path) -> None:
    run("backfill", *DAYS)
    run("metrics", "--output", "callhistory.prom")
    assert stat.filemode((tmp_path / "callhistory.prom").stat().st_mode) == "-rw-r--r--"


def test_check_tells_what_anybody_can_read(run: Callable[..., Finished], tmp_path: Path) -> None:
    run("backfill", *DAYS)
    assert "every user of this machine" not in run("check").stdout
    for name in ("data/lake", "data/warehouse.duckdb"):
        (tmp_path / name).chmod(0o755)
    said = run("check").stdout
    assert said.count("every user of this machine can read it: chmod -R o= ") == 2
    assert str(tmp_path / "data/lake") in said


def test_a_day_that_an_earlier_version_left_open_is_closed_when_it_is_written_anew(
    run: Callable[..., Finished], server: SimulatedPortal, tmp_path: Path
) -> None:
    run("backfill", *DAYS)
    file = tmp_path / f"data/lake/calls/call_date={FIRST}/calls.parquet"
    file.chmod(0o644)
    [first, *_] = server.portal.rows(0, 2 * 10**12)
    server.portal.update_call(first["id"], contactname=str(timedelta()))
    run("backfill", *DAYS, "--force")
    assert stat.filemode(file.stat().st_mode) == "-rw-------"
