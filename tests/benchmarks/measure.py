"""One measurement: a program in a process of its own, from its start to its end, imports included."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.simulator import CREDENTIALS, SpawnedPortal
from tests.benchmarks.sources import Source

DATABASES = ("duckdb", "postgresql")
OURS, DLT, BARE = "callhistory", "dlt", "bare script"
PROGRAMS = (OURS, DLT, BARE)


@dataclass(frozen=True)
class Measurement:
    """What one process took. ``cpu_seconds`` is user and system time, without the database server's."""

    wall_seconds: float
    cpu_seconds: float
    peak_megabytes: float
    requests: int


@dataclass(frozen=True)
class Target:
    """An empty place to load into: a folder, and a database URL as each of the programs spells it."""

    folder: Path
    database: str
    sqlalchemy_url: str
    libpq_url: str


def run(program: str, source: Source, portal: SpawnedPortal, target: Target) -> Measurement:
    """Run ``program`` once; raises RuntimeError with what it said when it fails."""
    command, environment = _command(program, source, portal, target)
    requests_before = portal.counts().get("history", 0)
    began = time.perf_counter()
    with (target.folder / "log").open("w+b") as log:
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError(
                f"{program} failed ({process.returncode}): {log.read()[-2000:].decode(errors='replace')}"
            )
    return Measurement(
        wall_seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1024,
        portal.counts().get("history", 0) - requests_before,
    )


def check(program: str, source: Source, target: Target) -> None:
    """Raise RuntimeError unless the database holds every call once, by number and by different ids."""
    key = "call_id" if program == OURS else "id"
    schema = "call_data." if program == DLT else ""
    query = f"SELECT count(*), count(DISTINCT {key}) FROM {schema}calls"
    if target.database == "duckdb":
        import duckdb

        with duckdb.connect(target.libpq_url.removeprefix("duckdb:///"), read_only=True) as connection:
            found = connection.execute(query).fetchall()[0]
    else:
        import psycopg

        with psycopg.connect(target.libpq_url) as connection:
            found = connection.execute(query).fetchall()[0]
    if tuple(found) != (source.calls, source.calls):
        raise RuntimeError(f"{program} into {target.database}: {found} rows and ids, not {source.calls}")


def _command(
    program: str, source: Source, portal: SpawnedPortal, target: Target
) -> tuple[Sequence[str], Mapping[str, str]]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("STRINGEEX_", "CALLHISTORY_", "ARROW_"))
    }
    environment |= {"PREFECT_API_URL": "", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if program != OURS:
        module = {DLT: "tests.benchmarks.with_dlt", BARE: "tests.benchmarks.bare_script"}[program]
        arguments = [portal.base_url, target.libpq_url, str(target.folder), str(source.start_ms), str(source.end_ms)]
        return [sys.executable, "-m", module, *arguments], environment
    environment |= {
        "STRINGEEX_BASE_URL": portal.base_url,
        "STRINGEEX_API_KEY_SID": CREDENTIALS.api_key_sid,
        "STRINGEEX_API_KEY_SECRET": CREDENTIALS.api_key_secret,
        "STRINGEEX_PAGE_SIZE": "100",
        "STRINGEEX_HISTORY_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_10S": "0",
        "STRINGEEX_REQUESTS_PER_HOUR": "0",
        "CALLHISTORY_WAREHOUSE_URL": target.sqlalchemy_url,
        "CALLHISTORY_LAKE_URL": str(target.folder / "lake"),
    }
    days = ["--from", source.first_day.isoformat(), "--to", source.last_day.isoformat()]
    return [sys.executable, "-m", "pipelines.cli.main", "backfill", *days, "--force", "--json"], environment
