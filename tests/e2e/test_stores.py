"""Stores that do not belong together, or hold nothing yet: each command says so, and none is green.

Each through the command.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.certificates import Certificates
from sinks.warehouse import Warehouse
from tests.conftest import BACKENDS
from tests.e2e.place import Place
from tests.exports import FIRST, ZONE

LAST = FIRST + timedelta(days=1)
DAYS = ("--from", str(FIRST), "--to", str(LAST))
CALLS_EXPORTED = 40
NEW_SINCE_0_1_0 = {
    "export_windows": ("held", "made_by"),
    "recordings": ("doubt", "not_found_count", "first_not_found_at", "hold_reason", "held_at"),
    "calls": ("started_at_local",),
    "call_versions": ("started_at_local",),
}


@pytest.fixture
def server() -> Iterator[SimulatedPortal]:
    portal = Portal(
        generate(
            seed=3, start_date=FIRST, days=2, calls_total=CALLS_EXPORTED, late_arrival_share=0, late_change_share=0
        ),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    with SimulatedPortal(portal) as running:
        yield running
        assert running.errors == []


@pytest.fixture
def nowhere(server: SimulatedPortal, tmp_path: Path) -> Place:
    """A folder in which nothing was ever exported."""
    folder = tmp_path / "here"
    folder.mkdir()
    return Place(server, folder, "duckdb:///data/warehouse.duckdb")


@pytest.fixture
def exported(server: SimulatedPortal, tmp_path: Path, warehouse_url: str) -> Place:
    """Two days, exported to each kind of database, and an archive of which nothing is kept yet."""
    folder = tmp_path / "here"
    folder.mkdir()
    place = Place(server, folder, warehouse_url)
    done = place.run("backfill", *DAYS, "--json")
    assert (done.exit_code, done.json["calls"]) == (0, CALLS_EXPORTED)
    return place


USES_THE_LAKE = [
    ("export",),
    ("backfill", *DAYS, "--force"),
    ("verify", *DAYS),
    ("verify", *DAYS, "--offline"),
    ("replay", *DAYS),
    ("rejects", "retry"),
]


def test_an_empty_lake_beside_a_filled_warehouse_took_half_of_the_export(exported: Place) -> None:
    before = exported.files()
    (exported.folder / "elsewhere").mkdir()
    for arguments in (*USES_THE_LAKE, ("check",)):
        refused = exported.run(*arguments, CALLHISTORY_LAKE_URL="elsewhere/lake")
        assert refused.exit_code == (1 if arguments == ("check",) else 2), arguments
        assert "CALLHISTORY_LAKE_URL" in refused.output
        assert "stores adopt" in refused.output
        assert exported.files() == before, arguments
    exported.portal.counts.clear()
    assert exported.run("backfill", *DAYS, CALLHISTORY_LAKE_URL="elsewhere/lake").exit_code == 2
    assert not exported.portal.counts, "refused before the API is asked"
    assert exported.run("verify", *DAYS).exit_code == 0


def test_a_warehouse_beside_another_customers_lake_is_refused(exported: Place, tmp_path: Path) -> None:
    other = {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/other.sqlite", "CALLHISTORY_LAKE_URL": "data/other"}
    assert exported.run("backfill", *DAYS, **other).exit_code == 0
    before = exported.files()
    for arguments in USES_THE_LAKE:
        refused = exported.run(*arguments, CALLHISTORY_LAKE_URL="data/other")
        assert refused.exit_code == 2, arguments
    assert exported.run("check", CALLHISTORY_LAKE_URL="data/other").exit_code == 1
    assert exported.files() == before
    # The files of the right lake, wherever they are moved to, are the right lake.
    shutil.move(exported.folder / "data/lake", exported.folder / "moved")
    assert exported.run("verify", *DAYS, CALLHISTORY_LAKE_URL="moved").exit_code == 0


def test_a_new_warehouse_beside_a_lake_that_was_kept_takes_the_lake_on(exported: Place, tmp_path: Path) -> None:
    new = {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/new.sqlite"}
    assert exported.run("replay", *DAYS, **new).exit_code == 0
    assert exported.run("verify", *DAYS, **new).exit_code == 0


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_another_archive_was_filled_without_a_word(exported: Place) -> None:
    assert exported.run("recordings", "archive", "--json").json["archived"] > 0
    identity = exported.folder / "data/recordings/.callhistory.json"
    assert identity.is_file()
    other = exported.folder / "data/other/.callhistory.json"
    other.parent.mkdir()
    other.write_text(json.dumps({"identity": "another customer's"}))
    before = exported.files()
    for arguments in (
        ("recordings", "archive"),
        ("recordings", "verify"),
        ("recordings", "delete", "--older-than", "1d", "--yes"),
    ):
        refused = exported.run(*arguments, CALLHISTORY_ARCHIVE_URL="data/other")
        assert refused.exit_code == 2, arguments
        assert "CALLHISTORY_ARCHIVE_URL" in refused.output
    assert exported.run("check", CALLHISTORY_ARCHIVE_URL="data/other").exit_code == 1
    assert exported.files() == before


@pytest.mark.parametrize("arguments", [*USES_THE_LAKE, ("status",), ("alerts",), ("recordings", "verify")])
@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_another_time_zone_is_refused_by_all_that_speaks_of_days(exported: Place, arguments: tuple[str, ...]) -> None:
    refused = exported.run(*arguments, CALLHISTORY_TIMEZONE="Europe/Berlin")
    assert refused.exit_code == 2
    assert "CALLHISTORY_TIMEZONE" in refused.output
    assert ZONE in refused.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify",),
        ("verify", "--offline"),
        ("status",),
        ("alerts",),
        ("metrics",),
        ("drift",),
        ("rejects", "list"),
        ("rejects", "retry"),
        ("recordings", "verify"),
        ("recordings", "archive"),
        ("recordings", "delete", "--older-than", "90d"),
    ],
)
def test_where_nothing_was_exported_nothing_was_called_right(nowhere: Place, arguments: tuple[str, ...]) -> None:
    said = nowhere.run(*arguments)
    assert said.exit_code == 1
    assert "run callhistory export first" in said.output
    assert nowhere.files() == []
    assert not (nowhere.folder / "data").exists()


def test_check_makes_nothing_and_says_what_an_export_will(nowhere: Place) -> None:
    said = nowhere.run("check", STRINGEEX_REQUESTS_PER_HOUR="9000")
    assert said.exit_code == 0, said.output
    assert said.output.count("export will create it") == 3
    assert not (nowhere.folder / "data").exists()


@pytest.mark.parametrize("warehouse_url", ["postgresql", "mariadb"], indirect=True)
def test_check_makes_no_table_to_count_its_request_in(warehouse_url: str, nowhere: Place) -> None:
    said = nowhere.run("check", CALLHISTORY_WAREHOUSE_URL=warehouse_url, STRINGEEX_REQUESTS_PER_HOUR="9000")
    assert said.exit_code == 0, said.output
    engine = sa.create_engine(warehouse_url, poolclass=sa.pool.NullPool)
    assert sa.inspect(engine).get_table_names() == []


def test_the_forecast_of_a_first_export_is_what_it_does(nowhere: Place) -> None:
    planned = nowhere.run("backfill", *DAYS, "--dry-run", "--json")
    assert planned.json["windows"] == 2
    assert not (nowhere.folder / "data").exists()
    done = nowhere.run("export", "--json")
    status = nowhere.run("status", "--json")
    assert len(done.json["days"]) == len(status.json["days"]) == 8
    assert status.json["complete"] is True
    assert status.json["due_windows"] <= 1, "today is open"


@pytest.mark.parametrize("command", ["export", "check", "status"])
def test_a_start_date_in_the_future_was_nothing_due_for_ever(nowhere: Place, command: str) -> None:
    next_year = (datetime.now(ZoneInfo(ZONE)) + timedelta(days=200)).date()
    refused = nowhere.run(command, CALLHISTORY_START_DATE=str(next_year))
    assert refused.exit_code == 2
    assert "CALLHISTORY_START_DATE" in refused.output
    assert nowhere.files() == []


def test_a_trial_of_two_days_made_each_day_since_a_gap(exported: Place) -> None:
    status = exported.run("status", "--json")
    assert (status.exit_code, status.json["gaps"], status.json["complete"]) == (0, [], True)
    assert [day["call_date"] for day in status.json["days"]] == [str(FIRST), str(LAST)]
    verified = exported.run("verify", "--json")
    assert (verified.exit_code, len(verified.json["days"])) == (0, 2)

    # With a start date the days from there on are asked for, and all that is not there is one line.
    start = datetime.now(ZoneInfo(ZONE)).date() - timedelta(days=30)
    status = exported.run("status", "--json", CALLHISTORY_START_DATE=str(start))
    assert status.exit_code == 3
    assert len(status.json["gaps"]) == 1
    verified = exported.run("verify", CALLHISTORY_START_DATE=str(start))
    assert verified.exit_code == 3
    assert verified.output.count("never exported") == 1
    ranges = exported.run("verify", "--json", CALLHISTORY_START_DATE=str(start)).json["ranges"]
    assert [entry["ok"] for entry in ranges] == [True, False]


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_windows_of_another_size_over_a_lake_that_was_kept_agree_with_it(exported: Place, tmp_path: Path) -> None:
    """The raw copy of a day is none of its first six hours, which begin at the same instant."""
    new = {"CALLHISTORY_WAREHOUSE_URL": f"sqlite:///{tmp_path}/new.sqlite", "CALLHISTORY_WINDOW": "6h"}
    assert exported.run("backfill", *DAYS, **new).exit_code == 0
    verified = exported.run("verify", *DAYS, "--json", **new)
    assert verified.exit_code == 0, verified.output
    raw = [name for name in exported.files() if "/raw/" in name]
    assert exported.run("backfill", *DAYS, "--force", **new).exit_code == 0
    assert [name for name in exported.files() if "/raw/" in name] == raw, "read again, and equal"
    assert exported.run("replay", *DAYS, **new).exit_code == 0
    assert exported.run("verify", *DAYS, **new).exit_code == 0


@pytest.mark.parametrize(
    ("warehouse_url", "arguments"),
    [
        *((backend, ("status",)) for backend in BACKENDS),
        *(("sqlite", arguments) for arguments in (("verify",), ("metrics",), ("recordings", "verify"), ("check",))),
    ],
    indirect=["warehouse_url"],
)
def test_what_only_reads_was_refused_until_an_export_had_upgraded_the_tables(
    exported: Place, warehouse_url: str, arguments: tuple[str, ...]
) -> None:
    make_as_by_0_1_0(exported, warehouse_url)
    said = exported.run(*arguments)
    assert said.exit_code == 0, said.output
    done = exported.run("backfill", *DAYS, "--force", "--json")
    assert (done.exit_code, done.json["calls_updated"], done.json["calls_inserted"]) == (0, 0, 0)
    assert (exported.folder / "data/lake/.callhistory.json").is_file()
    assert exported.run("verify", *DAYS).exit_code == 0


def make_as_by_0_1_0(place: Place, warehouse_url: str) -> None:
    """Take out of the stores what they did not have then."""
    (place.folder / "data/lake/.callhistory.json").unlink()
    with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
        state = warehouse.tables["pipeline_state"]
        connection.execute(sa.delete(state).where(state.c.name != "timezone"))
        for view in reversed(warehouse.views):
            connection.exec_driver_sql(f"DROP VIEW {view.name}")
        connection.exec_driver_sql("DROP TABLE certificates")
        for table, columns in NEW_SINCE_0_1_0.items():
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
    for path in (place.folder / "data/lake/calls").rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            facts, rows = file.metadata.metadata, file.read().drop_columns("started_at_local")
        with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
            writer.write_table(rows)
            writer.add_key_value_metadata({k: v for k, v in facts.items() if k.startswith(b"callhistory.")})


def local_times(place: Place, warehouse_url: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything that warehouse and lake hold of calls and versions."""
    found = {}
    with Warehouse(warehouse_url) as warehouse, warehouse.reading() as connection:
        for name in ("calls", "call_versions"):
            t = warehouse.tables[name]
            rows = connection.execute(sa.select(t).order_by(t.c.call_id)).tuples().all()
            found[name] = [tuple(row) for row in rows]
            starts = connection.execute(sa.select(t.c.started_at, t.c.started_at_local)).tuples().all()
            assert all(local == start.astimezone(ZoneInfo(ZONE)).replace(tzinfo=None) for start, local in starts)
    files = sorted((place.folder / "data/lake/calls").rglob("*.parquet"))
    found["lake"] = [tuple(row.items()) for path in files for row in pq.read_table(path, partitioning=None).to_pylist()]
    return found


def test_calls_that_0_1_0_exported_have_a_local_time_and_none_counts_as_changed(
    exported: Place, warehouse_url: str
) -> None:
    row = exported.portal.rows(0, 2**50)[0]
    exported.portal.remove_call(row["id"])
    exported.portal.add_call(row | {"talk_duration": 4321})
    assert exported.run("backfill", *DAYS, "--force", "--json").json["calls_updated"] == 1
    before = local_times(exported, warehouse_url)
    assert (len(before["calls"]), len(before["call_versions"]), len(before["lake"])) == (40, 1, 40)

    make_as_by_0_1_0(exported, warehouse_url)
    assert exported.run("status").exit_code == 0
    with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
        # As if the upgrade had been cut off.
        state, calls = warehouse.tables["pipeline_state"], warehouse.tables["calls"]
        connection.execute(sa.delete(state).where(state.c.name.startswith("derived")))
        connection.execute(sa.update(calls).where(calls.c.call_id == row["id"]).values(started_at_local=None))
    offline = exported.run("verify", *DAYS, "--offline", "--json")
    assert offline.exit_code == 0, "files without the column are not taken for altered ones: " + offline.output
    done = exported.run("backfill", *DAYS, "--json")
    assert (done.exit_code, done.json["requests"]) == (0, 0), "nothing is due, and the lake is upgraded all the same"
    assert local_times(exported, warehouse_url) == before
    done = exported.run("backfill", *DAYS, "--force", "--json")
    assert (done.exit_code, done.json["calls_updated"], done.json["calls_inserted"]) == (0, 0, 0)
    assert done.json["files_written"] == 0, "each file was as an export writes it"
    assert local_times(exported, warehouse_url) == before
    assert exported.run("verify", *DAYS).exit_code == 0
    with Warehouse(warehouse_url) as warehouse:
        certificates = Certificates(warehouse)
        days = len({certificate.call_date for certificate in certificates.all()})
        assert [certificate.cause for certificate in certificates.all()] == ["earlier"] * days + ["read"] * days
        assert (days, certificates.breaks()) == (2, [])


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_row_that_cannot_be_a_call_was_counted_as_one_by_the_status(exported: Place) -> None:
    row = exported.portal.rows(0, 2**50)[0]
    exported.portal.add_call(row | {"id": 1.5}, call_id="odd", start_ms=row["start_time"])
    done = exported.run("backfill", *DAYS, "--force", "--json").json
    status = exported.run("status", "--json").json
    assert (done["calls"], done["rows_rejected"]) == (CALLS_EXPORTED, 1)
    assert (status["calls"], status["rejected_rows"]) == (CALLS_EXPORTED, 1)
    assert f"callhistory_calls {CALLS_EXPORTED}" in exported.run("metrics").stdout


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
def test_a_file_of_0_1_0_that_is_damaged_withholds_no_command(
    exported: Place, warehouse_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    make_as_by_0_1_0(exported, warehouse_url)
    [damaged, whole] = sorted((exported.folder / "data/lake/calls").rglob("*.parquet"))
    content = bytearray(damaged.read_bytes())
    content[100:2000] = bytes(1900)
    damaged.write_bytes(content)
    done = exported.run("backfill", *DAYS)
    assert done.exit_code == 0, done.output
    assert f"call_date={FIRST}/calls.parquet is damaged" in caplog.text
    assert "started_at_local" in pq.read_schema(whole).names
    assert exported.run("verify", *DAYS).exit_code == 3
    assert exported.run("replay", *DAYS).exit_code == 0
    assert exported.run("verify", *DAYS).exit_code == 0


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_file_of_0_1_0_that_was_brought_back_is_read_on(exported: Place, warehouse_url: str) -> None:
    make_as_by_0_1_0(exported, warehouse_url)
    [file, _] = sorted((exported.folder / "data/lake/calls").rglob("*.parquet"))
    of_0_1_0 = file.read_bytes()
    assert exported.run("backfill", *DAYS).exit_code == 0
    file.write_bytes(of_0_1_0)
    in_parts = exported.run("backfill", *DAYS, "--force", CALLHISTORY_WINDOW="6h")
    assert in_parts.exit_code == 0, in_parts.output
    assert "started_at_local" in pq.read_schema(file).names
    assert exported.run("verify", *DAYS).exit_code == 0


@pytest.mark.parametrize("warehouse_url", ["duckdb", "mariadb"], indirect=True)
def test_a_lake_that_was_adopted_is_filled_by_the_next_export(exported: Place) -> None:
    other = {"CALLHISTORY_LAKE_URL": "data/other"}
    asked = exported.run("stores", "adopt", **other)
    assert asked.exit_code != 0, "nobody said yes"
    assert exported.run("verify", *DAYS, **other).exit_code == 2
    adopted = exported.run("stores", "adopt", "--yes", "--json", **other)
    assert adopted.exit_code == 0, adopted.output
    assert adopted.json["adopted"]["lake"].endswith("data/other")

    done = exported.run("backfill", *DAYS, "--json", **other)
    assert (done.exit_code, done.json["calls"], done.json["calls_updated"]) == (0, CALLS_EXPORTED, 0)
    assert exported.run("verify", *DAYS, **other).exit_code == 0
    assert exported.run("backfill", *DAYS, "--json", **other).json["requests"] == 0
