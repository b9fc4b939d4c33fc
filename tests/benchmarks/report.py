"""The table of results, as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

from tests.benchmarks.measure import BARE, DATABASES, DLT, OURS, PROGRAMS, Measurement
from tests.benchmarks.sources import Source

Results = Mapping[tuple[str, str, str], Sequence[Measurement]]
"""Measurements by database, program and run."""

FIRST, AGAIN = "first", "again"
MANY = "ten times the calls"
MEMORY_LIMIT_MEGABYTES = 400
MEMORY_GROWTH_LIMIT = 1.3
SPEED_OVER_DLT = 2.0

_VERSIONS = (
    "callhistory",
    "dlt",
    "duckdb",
    "pyarrow",
    "pandas",
    "sqlalchemy",
    "psycopg",
    "adbc-driver-postgresql",
    "httpx",
    "orjson",
)


def report(results: Results, source: Source, many: Source, rounds: int, failed: Sequence[str]) -> str:
    """Return the whole page; ``failed`` names the databases whose run with ten times the calls failed."""
    parts = [
        "# Side by side\n\nWritten by `make bench`; do not edit.",
        _what(source, rounds),
        _machine(),
        *(_table(results, database) for database in DATABASES if any(key[0] == database for key in results)),
        _memory(results, source, many),
        _targets(results, many, failed),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(source: Source, rounds: int) -> str:
    counted = "1 round" if rounds == 1 else f"{rounds} rounds"
    return (
        f"{source.calls:,} calls over {source.days} local days, 100 rows a page, from the simulated portal (a process "
        "of its own, on loopback, without rate limits) into an empty database, and then the same again without any "
        f"change at the source. {counted}, in which the programs take turns; each run is a process of its own, "
        "measured from its start to its end, imports included. Seconds are medians (lowest to highest). CPU is user "
        "and system time of the process, without the database server's; peak is its largest resident memory; requests "
        "are counted by the portal. PostgreSQL runs with fsync off. After each run the database held every call once "
        "(rows and different ids).\n\n"
        f"- **{OURS}**: `callhistory backfill --force`, 4 workers: raw copy, lake, warehouse, certificates.\n"
        f"- **{DLT}**: a resource of its own, merged on the key, Parquet as its file format "
        "(`with_dlt.py` says what was tried).\n"
        f"- **{BARE}**: all pages into memory, one Arrow table, one bulk upsert; none of the promises.\n\n"
        "dlt and the bare script read page after page, as a keyset asks for; callhistory reads four days at once."
    )


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    load = os.getloadavg()[1]
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {_processor()}, {cores} cores, {memory:.0f} GiB of memory, load average at the "
        f"end {load:.1f}. Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _table(results: Results, database: str) -> str:
    lines = [
        f"## {'DuckDB' if database == 'duckdb' else 'PostgreSQL'}\n",
        f"| run | program | seconds | to {OURS} | to {BARE} | CPU s | peak MB | requests |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for run in (FIRST, AGAIN):
        for program in PROGRAMS:
            measured = results.get((database, program, run))
            if measured:
                ratios = (_ratio(results, database, run, program, other) for other in (OURS, BARE))
                cells = [
                    run,
                    program,
                    _spread(measured, lambda m: m.wall_seconds),
                    *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
                    _spread(measured, lambda m: m.cpu_seconds),
                    f"{max(m.peak_megabytes for m in measured):.0f}",
                    f"{median(m.requests for m in measured):.0f}",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _memory(results: Results, source: Source, many: Source) -> str:
    lines = [
        f"## Memory of {OURS}\n",
        f"| database | peak MB, {source.calls:,} calls | peak MB, {many.calls:,} calls | growth |",
        "|---|--:|--:|--:|",
    ]
    for database in DATABASES:
        few, lots = _peak(results, database, FIRST), _peak(results, database, MANY)
        if few is not None and lots is not None:
            lines.append(f"| {database} | {few:.0f} | {lots:.0f} | {lots / few:.2f} |")
    return "\n".join(lines) if len(lines) > 3 else ""


def _targets(results: Results, many: Source, failed: Sequence[str]) -> str:
    lines = [f"- {database}: {many.calls:,} calls: **failed**" for database in failed]
    for database in DATABASES:
        speed = _ratio(results, database, FIRST, DLT, OURS)
        if speed is not None:
            lines.append(
                _target(f"{database}: {speed:.2f} times as fast as dlt", f"{SPEED_OVER_DLT}", speed >= SPEED_OVER_DLT)
            )
        few, lots = _peak(results, database, FIRST), _peak(results, database, MANY)
        if few is not None:
            lines.append(
                _target(
                    f"{database}: peak memory {few:.0f} MB",
                    f"at most {MEMORY_LIMIT_MEGABYTES}",
                    few <= MEMORY_LIMIT_MEGABYTES,
                )
            )
        if few is not None and lots is not None:
            growth = lots / few
            lines.append(
                _target(
                    f"{database}: {growth:.2f} times the memory for ten times the calls",
                    f"at most {MEMORY_GROWTH_LIMIT}",
                    growth <= MEMORY_GROWTH_LIMIT,
                )
            )
    return "\n".join(["## Targets\n", *lines]) if lines else ""


def _target(found: str, wanted: str, met: bool) -> str:
    return f"- {found} (target {wanted}): {'met' if met else '**missed**'}"


def _ratio(results: Results, database: str, run: str, program: str, other: str) -> float | None:
    """Median seconds of ``program`` over those of ``other``."""
    mine, others = results.get((database, program, run)), results.get((database, other, run))
    if not mine or not others:
        return None
    return median(m.wall_seconds for m in mine) / median(m.wall_seconds for m in others)


def _peak(results: Results, database: str, run: str) -> float | None:
    measured = results.get((database, OURS, run))
    return max(m.peak_megabytes for m in measured) if measured else None


def _spread(measured: Sequence[Measurement], value: Callable[[Measurement], float]) -> str:
    values = [value(measurement) for measurement in measured]
    return f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"
