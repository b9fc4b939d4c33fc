"""``python -m tests.benchmarks``: measure, check, and write ``RESULTS.md`` beside this file."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from pipelines.simulator import SpawnedPortal, spawn
from tests import databases
from tests.benchmarks.measure import BARE, DATABASES, DLT, OURS, Measurement, Target, check, run
from tests.benchmarks.report import AGAIN, FIRST, MANY, report
from tests.benchmarks.sources import Source

_PARTS = {"ours": OURS, "dlt": DLT, "bare": BARE}
_MEMORY = "memory"
_RESULTS = Path(__file__).with_name("RESULTS.md")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls over ten days (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything runs (default %(default)s)")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*_PARTS, _MEMORY, *DATABASES],
        help="only these programs, databases, or the memory with ten times the calls; RESULTS.md is left as it is",
    )
    return parser.parse_args()


@contextmanager
def _portal(source: Source) -> Iterator[SpawnedPortal]:
    with spawn(
        calls=source.calls, days=source.days, seed=1, start_date=source.first_day, page_limit=100, limits=False
    ) as portal:
        yield portal


@contextmanager
def _target(database: str, server: databases.Server) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="callhistory-bench-") as folder:
        if database == "duckdb":
            url = f"duckdb:///{folder}/warehouse.duckdb"
            yield Target(Path(folder), database, url, url)
            return
        url = server.new_database()
        parsed = sa.make_url(url)
        # dlt insists on a host and a password; libpq takes the socket's folder from the query, and asks for neither.
        libpq_url = f"postgresql://{parsed.username}:none@localhost/{parsed.database}?host={parsed.query['host']}"
        try:
            yield Target(Path(folder), database, url, libpq_url)
        finally:
            server.drop_database(url)


def _say(database: str, program: str, name: str, measured: Measurement) -> None:
    print(
        f"{database:10} {program:11} {name:20} {measured.wall_seconds:6.1f} s, CPU {measured.cpu_seconds:6.1f} s, "
        f"{measured.peak_megabytes:5.0f} MB, {measured.requests} requests",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    """Measure what was asked for; write the report, and print it."""
    arguments = _arguments()
    chosen = set(arguments.only or [])
    into = [database for database in DATABASES if not chosen & set(DATABASES) or database in chosen]
    programs = [program for name, program in _PARTS.items() if not chosen - set(DATABASES) or name in chosen]
    source, many = Source(arguments.calls), Source(10 * arguments.calls)
    results: dict[tuple[str, str, str], list[Measurement]] = defaultdict(list)
    failed: list[str] = []

    def measure(portal: SpawnedPortal, source: Source, target: Target, program: str, name: str) -> None:
        measured = run(program, source, portal, target)
        check(program, source, target)
        results[target.database, program, name].append(measured)
        _say(target.database, program, name, measured)

    with databases.postgresql() as server:
        with _portal(source) as portal:
            for _ in range(arguments.rounds):
                for database in into:
                    for program in programs:
                        with _target(database, server) as target:
                            measure(portal, source, target, program, FIRST)
                            measure(portal, source, target, program, AGAIN)
        if not chosen - set(DATABASES) or _MEMORY in chosen:
            with _portal(many) as portal:
                for database in into:
                    with _target(database, server) as target:
                        try:
                            measure(portal, many, target, OURS, MANY)
                        except RuntimeError as error:
                            # The rounds took minutes: they are reported, and this failure beside them.
                            failed.append(database)
                            print(error, file=sys.stderr, flush=True)
    page = report(results, source, many, arguments.rounds, failed)
    print(page)
    if not chosen:
        _RESULTS.write_text(page)
    if failed:
        sys.exit(f"{many.calls:,} calls failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
