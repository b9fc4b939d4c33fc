"""``callhistory move``: everything into another database, proven; killed, refused, moved back again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
import sqlalchemy as sa

from pipelines.proof import move as move_module
from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.transfer import contents
from sinks.warehouse import Warehouse
from tests.databases import SECRET, Server
from tests.e2e.command import Finished, account, callhistory_here, command_line, environment
from tests.exports import FIRST, export_of, range_ms
from transforms.schema import TABLES

LAST = FIRST + timedelta(days=2)
FULL = {"calls", "call_participants", "rejected_rows", "export_windows", "call_versions", "recordings"}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder with a DuckDB warehouse of three days that were read twice: changed calls, deleted ones, rejects."""
    folder = tmp_path_factory.mktemp("move")
    portal = Portal(generate(seed=3, start_date=FIRST, days=3, calls_total=240), PortalOptions(rate_limits=NO_LIMITS))
    rows = portal.rows(*range_ms(FIRST, LAST))
    portal.add_call(rows[0] | {"id": 1.5}, call_id="odd", start_ms=rows[0]["start_time"])
    url = f"duckdb:///{folder}/warehouse.duckdb"
    with SimulatedPortal(portal) as server:
        export = export_of(server.base_url, url, folder)
        export.run(FIRST, LAST)
        portal.update_call(rows[5]["id"], contactname="Nguyễn \\ Văn\tA\n'%s' \U0001f4de")
        portal.remove_call(rows[6]["id"])
        export.run(FIRST, LAST, force=True)
        yield (
            folder,
            account(server.base_url, CALLHISTORY_WAREHOUSE_URL=url, CALLHISTORY_LAKE_URL=export.settings.lake_url),
        )


def move(folder: Path, settings: dict[str, str], new_url: str, **more: str) -> Finished:
    settings = settings | {"CALLHISTORY_NEW_WAREHOUSE_URL": new_url} | more
    return callhistory_here("move", "--json", "--debug", cwd=folder, settings=settings)


def assert_proven(done: Finished) -> None:
    assert done.exit_code == 0, done.output
    assert done.json["complete"]
    by_table = {table["table"]: table for table in done.json["tables"]}
    assert list(by_table) == [table.name for table in TABLES]
    assert all(table["equal"] and table["rows"] == table["new_rows"] for table in by_table.values())
    assert {name for name, table in by_table.items() if table["rows"]} >= FULL
    assert by_table["calls"]["rows"] == 240


def test_to_postgresql_where_nothing_is_left_to_do(
    exported: tuple[Path, dict[str, str]], postgresql_server: Server, postgresql_url: Callable[[], str]
) -> None:
    folder, settings = exported
    new_url = postgresql_url()
    before = (folder / "warehouse.duckdb").read_bytes()
    assert_proven(move(folder, settings, new_url))
    assert (folder / "warehouse.duckdb").read_bytes() == before

    moved = settings | {"CALLHISTORY_WAREHOUSE_URL": new_url}
    days = ("--from", str(FIRST), "--to", str(LAST))
    verified = callhistory_here("verify", "--offline", "--json", *days, cwd=folder, settings=moved)
    assert (verified.exit_code, verified.json["ok"]) == (0, True), verified.output
    exported_again = callhistory_here("backfill", "--json", *days, cwd=folder, settings=moved)
    assert exported_again.exit_code == 0, exported_again.output
    assert (exported_again.json["requests"], sum(exported_again.json["windows"].values())) == (0, 0)
    forced = callhistory_here("backfill", "--force", "--json", *days, cwd=folder, settings=moved)
    assert forced.exit_code == 0, forced.output
    changed = ("calls_inserted", "calls_updated", "calls_restored", "calls_vanished", "files_written")
    assert [forced.json[name] for name in changed] == [0] * len(changed)


def test_through_other_databases_and_back(
    exported: tuple[Path, dict[str, str]], mariadb_server: Server, postgresql_url: Callable[[], str], tmp_path: Path
) -> None:
    folder, settings = exported
    mariadb_url = mariadb_server.new_database()
    hops = [
        (f"sqlite:///{tmp_path}/warehouse.sqlite", {}),
        (mariadb_url, {}),
        (postgresql_url(), {"CALLHISTORY_NEW_WAREHOUSE_SCHEMA": "calls_of_ours"}),
        (f"duckdb:///{tmp_path}/back.duckdb", {}),
    ]
    first = None
    for url, schema in hops:
        done = move(folder, settings, url, **schema)
        assert_proven(done)
        hashes = [table["new_content_hash"] for table in done.json["tables"]]
        assert hashes == (first := first or hashes)
        settings = settings | {"CALLHISTORY_WAREHOUSE_URL": url, "CALLHISTORY_WAREHOUSE_SCHEMA": ""}
        settings |= {name.replace("_NEW", ""): value for name, value in schema.items()}
    mariadb_server.drop_database(mariadb_url)
    # Not only by our own hash.
    for table in TABLES:
        condition = " WHERE name NOT LIKE 'view %'" if table.name == "pipeline_state" else ""
        rows = []
        for path in (folder / "warehouse.duckdb", tmp_path / "back.duckdb"):
            with duckdb.connect(str(path), read_only=True) as connection:
                rows.append(connection.sql(f"SELECT * FROM {table.name}{condition} ORDER BY ALL").fetchall())
        assert rows[0] == rows[1], table.name


@pytest.mark.parametrize("kind", ["postgresql", "duckdb"])
def test_killed_half_way_it_leaves_nothing_and_is_done_again(
    kind: str, exported: tuple[Path, dict[str, str]], postgresql_url: Callable[[], str], tmp_path: Path
) -> None:
    folder, settings = exported
    new_url = postgresql_url() if kind == "postgresql" else f"duckdb:///{tmp_path}/new.duckdb"
    half_way = """
import os, signal
from pipelines.proof.move import move
from pipelines.settings import load_settings
move(load_settings(None), lambda table, rows: table == "call_versions" and os.kill(os.getpid(), signal.SIGKILL))
"""
    dying = subprocess.run(
        [command_line()[0], "-c", half_way],
        env=environment(settings | {"CALLHISTORY_NEW_WAREHOUSE_URL": new_url}),
        cwd=folder,
        check=False,
    )
    assert dying.returncode == -signal.SIGKILL
    with Warehouse(new_url) as new:
        assert {name: found.rows for name, found in contents(new).items() if found.rows} == {}
    done = move(folder, settings, new_url)
    assert done.json["copied"]
    assert_proven(done)


def test_a_warehouse_in_use_is_compared_and_never_written(
    exported: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, settings = exported
    new = tmp_path / "new.sqlite"
    assert_proven(move(folder, settings, f"sqlite:///{new}"))
    again = move(folder, settings, f"sqlite:///{new}")
    assert_proven(again)
    assert not again.json["copied"]

    with Warehouse(f"sqlite:///{new}") as warehouse:
        calls = warehouse.tables["calls"]
        # Another number; and an empty text where there was none.
        for column, value in (("talk_seconds", 99_999), ("extra", "")):
            with warehouse.transaction() as connection:
                some = sa.select(calls.c.call_id, calls.c[column]).order_by(calls.c[column]).limit(1)
                call_id, before = connection.execute(some).one()
                change = sa.update(calls).where(calls.c.call_id == call_id)
                connection.execute(change.values({column: value}))
            refused = move(folder, settings, f"sqlite:///{new}")
            assert refused.exit_code == 1, refused.output
            assert "holds other rows already" in refused.json["error"]
            with warehouse.transaction() as connection:
                assert connection.scalar(sa.select(calls.c[column]).where(calls.c.call_id == call_id)) == value
                connection.execute(change.values({column: before}))
    assert_proven(move(folder, settings, f"sqlite:///{new}"))


def test_a_difference_after_the_copy_is_shown_and_ends_with_3(
    exported: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, settings = exported
    new_url = f"sqlite:///{tmp_path}/new.sqlite"
    copy = move_module.copy_tables

    def copy_and_lose_a_row(source: Warehouse, target: Warehouse, on_rows: Callable[[str, int], None]) -> None:
        copy(source, target, on_rows)
        with target.transaction() as connection:
            rejects = target.tables["rejected_rows"]
            assert connection.execute(sa.delete(rejects)).rowcount == 1

    monkeypatch.setattr(move_module, "copy_tables", copy_and_lose_a_row)
    settings = settings | {"CALLHISTORY_NEW_WAREHOUSE_URL": new_url}
    done = callhistory_here("move", cwd=folder, settings=settings)
    assert done.exit_code == 3
    assert [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" NO")] == ["rejected_rows"]
    assert "DIFFER" in done.stdout


def test_what_it_refuses_before_it_writes_anything(exported: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    folder, settings = exported
    unset = callhistory_here("move", cwd=folder, settings=settings)
    assert (unset.exit_code, "CALLHISTORY_NEW_WAREHOUSE_URL" in unset.stderr) == (2, True)
    same = move(folder, settings, f"duckdb:///{folder}/../{folder.name}/warehouse.duckdb")
    assert (same.exit_code, "the warehouse there is" in same.json["error"]) == (2, True)
    away = move(folder, settings, f"postgresql://callhistory:{SECRET}@127.0.0.1:9/calls".replace("%", "%25"))
    assert (away.exit_code, away.json["error_type"]) == (1, "StorageError"), away.output
    assert "(CALLHISTORY_NEW_WAREHOUSE_URL)" in away.json["error"]
    assert SECRET not in away.json["error"]
    nothing = move(
        tmp_path, settings | {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/no"}, f"sqlite:///{tmp_path}/new"
    )
    assert (nothing.exit_code, "run callhistory export first" in nothing.json["error"]) == (1, True)

    with Warehouse(settings["CALLHISTORY_WAREHOUSE_URL"]) as warehouse:
        ledger = warehouse.tables["export_windows"]
        of_first = ledger.c.call_date == FIRST
        for claim in ("another run", None):
            lapses_at = claim and datetime.now(UTC) + timedelta(minutes=1)
            with warehouse.transaction() as connection:
                connection.execute(
                    sa.update(ledger).where(of_first).values(claimed_by=claim, claim_expires_at=lapses_at)
                )
            if claim:
                busy = move(folder, settings, f"sqlite:///{tmp_path}/new")
                assert (busy.exit_code, f"a run is at work on {FIRST}" in busy.json["error"]) == (1, True)
    assert os.listdir(tmp_path) == []
