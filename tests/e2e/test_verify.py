"""``callhistory verify`` finds whatever is planted in any copy, on every database, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import WrongTotal
from tests.e2e.command import Finished, account, callhistory_here
from tests.exports import FIRST, Export, export_of, range_ms

DAY = FIRST + timedelta(days=1)


@dataclass
class Exported:
    """Three days with some calls each, one reject among them, exported; and the command on them."""

    portal: Portal
    export: Export
    settings: dict[str, str]
    folder: Path

    def verify(self, *arguments: str) -> Finished:
        return callhistory_here("verify", "--json", "--debug", *arguments, cwd=self.folder, settings=self.settings)

    def differences(self, *arguments: str) -> list[tuple[str, str, str, int, tuple[str, ...]]]:
        """Verify the day, check the exit code, and return place, table, kind, count and ids of what differs."""
        done = self.verify("--from", str(DAY), "--to", str(DAY), *arguments)
        assert done.exit_code in (0, 3), done.output
        [day] = done.json["days"]
        assert day["call_date"] == str(DAY)
        assert done.exit_code == (3 if day["differences"] else 0)
        assert done.json["ok"] is day["ok"] is (not day["differences"])
        return [(d["place"], d["table"], d["kind"], d["count"], tuple(d["call_ids"])) for d in day["differences"]]

    def ids(self) -> list[str]:
        return [row["id"] for row in self.portal.rows(*range_ms(DAY, DAY)) if row["participants"] and row["id"] != 1.5]

    def execute(self, statement: Callable[[dict[str, sa.Table]], Any]) -> Any:
        with self.export.open() as pipeline, pipeline.warehouse.transaction() as connection:
            result = connection.execute(statement(dict(pipeline.warehouse.tables)))
            return [dict(row) for row in result.mappings()] if result.returns_rows else None

    def file(self, table: str) -> Path:
        [path] = (Path(self.export.settings.lake_url) / table / f"call_date={DAY}").iterdir()
        return path


@pytest.fixture
def exported(warehouse_url: str, tmp_path: Path) -> Iterator[Exported]:
    portal = Portal(generate(seed=3, start_date=FIRST, days=3, calls_total=240), PortalOptions(rate_limits=NO_LIMITS))
    some = portal.rows(*range_ms(DAY, DAY))[0]
    portal.add_call(some | {"id": 1.5}, call_id="odd", start_ms=some["start_time"])
    with SimulatedPortal(portal) as server:
        export = export_of(server.base_url, warehouse_url, tmp_path)
        export.run(FIRST, FIRST + timedelta(days=2))
        settings = account(
            server.base_url,
            CALLHISTORY_WAREHOUSE_URL=warehouse_url,
            CALLHISTORY_LAKE_URL=export.settings.lake_url,
            STRINGEEX_PAGE_SIZE="100",
        )
        yield Exported(portal, export, settings, tmp_path)


@contextmanager
def without_rows(exported: Exported, table: str, call_id: str) -> Iterator[None]:
    rows = exported.execute(lambda t: sa.select(t[table]).where(t[table].c.call_id == call_id))
    exported.execute(lambda t: sa.delete(t[table]).where(t[table].c.call_id == call_id))
    yield
    exported.execute(lambda t: sa.insert(t[table]).values(rows))


@contextmanager
def with_values(exported: Exported, table: str, call_id: str, **values: Any) -> Iterator[None]:
    [row, *_] = exported.execute(lambda t: sa.select(t[table]).where(t[table].c.call_id == call_id))

    def change(values: dict[str, Any]) -> None:
        where = {"call_id": call_id} | ({"position": row["position"]} if "position" in row else {})
        exported.execute(
            lambda t: sa.update(t[table]).where(*(t[table].c[n] == v for n, v in where.items())).values(values)
        )

    change(values)
    yield
    change({name: row[name] for name in values})


@contextmanager
def with_file(path: Path, change: Callable[[Path], object]) -> Iterator[None]:
    content = path.read_bytes()
    change(path)
    yield
    path.write_bytes(content)


def alter_parquet(column: str, value: Any) -> Callable[[Path], object]:
    def alter(path: Path) -> None:
        rows = pq.read_table(path, partitioning=None)
        index = rows.schema.get_field_index(column)
        values = [value, *rows[column].to_pylist()[1:]]
        pq.write_table(
            rows.set_column(index, rows.schema.field(column), pa.array(values, rows.schema.types[index])), path
        )

    return alter


@contextmanager
def with_call(portal: Portal, row: dict[str, Any]) -> Iterator[None]:
    portal.add_call(row)
    yield
    portal.remove_call(row["id"])


@contextmanager
def without_call(portal: Portal, call_id: str) -> Iterator[None]:
    [row] = [row for row in portal.rows(*range_ms(DAY, DAY)) if row["id"] == call_id]
    portal.remove_call(call_id)
    yield
    portal.add_call(row)


def test_verify_finds_every_planted_difference_and_no_other(exported: Exported) -> None:
    portal = exported.portal
    assert exported.differences() == []
    one, two, three = exported.ids()[:3]
    calls, participants = exported.file("calls"), exported.file("call_participants")
    [raw] = (Path(exported.export.settings.lake_url) / f"raw/call_date={DAY}").iterdir()
    everything = pq.read_table(calls, partitioning=None)
    first_in_lake, in_lake = everything["call_id"][0].as_py(), everything.num_rows
    with_participants = set(pq.read_table(participants, partitioning=None)["call_id"].to_pylist())
    first_with_participants = pq.read_table(participants, partitioning=None)["call_id"][0].as_py()
    new = portal.rows(*range_ms(DAY, DAY))[5] | {"id": "call-vn-1-NEW0000000-1767600000000"}
    odd_reject = exported.execute(lambda t: sa.select(t["rejected_rows"]))[0]
    assert len(with_participants) > 10

    in_the_warehouse: list[tuple[AbstractContextManager[None], list[Any]]] = [
        (without_rows(exported, "calls", one), [
            ("warehouse", "call_participants", "extra", 1, (one,)), ("warehouse", "calls", "missing", 1, (one,)),
        ]),
        (with_values(exported, "calls", two, talk_seconds=4321), [("warehouse", "calls", "altered", 1, (two,))]),
        (with_values(exported, "calls", two, started_at_local=datetime(2026, 1, 5)),  # noqa: DTZ001
            [("warehouse", "calls", "altered", 1, (two,))]),
        (with_values(exported, "calls", two, row_hash="0" * 32), [("warehouse", "calls", "altered", 1, (two,))]),
        (with_values(exported, "calls", two, deleted_at=everything["started_at"][0].as_py()),
            [("warehouse", "calls", "missing", 1, (two,))]),
        (with_values(exported, "calls", two, updated_at=everything["started_at"][0].as_py()),
            [("warehouse", "calls", "altered", 1, (two,))]),
        (with_values(exported, "call_participants", three, kind="user "),
            [("warehouse", "call_participants", "altered", 1, (three,))]),
        (without_rows(exported, "call_participants", three),
            [("warehouse", "call_participants", "altered", 1, (three,))]),
    ]  # fmt: skip
    elsewhere: list[tuple[AbstractContextManager[None], list[Any]]] = [
        (with_file(calls, Path.unlink), [
            ("lake", "call_participants", "extra", len(with_participants), tuple(sorted(with_participants)[:10])),
            ("lake", "calls", "missing", in_lake, tuple(sorted(everything["call_id"].to_pylist())[:10])),
        ]),
        (with_file(participants, Path.unlink), [
            ("lake", "call_participants", "altered", len(with_participants), tuple(sorted(with_participants)[:10])),
        ]),
        (with_file(calls, lambda path: path.write_bytes(path.read_bytes()[:-100])),
            [("lake", "calls", "unreadable", 1, ())]),
        (with_file(calls, alter_parquet("talk_seconds", 4321)), [("lake", "calls", "altered", 1, (first_in_lake,))]),
        (with_file(calls, alter_parquet("started_at_local", datetime(2026, 1, 5))),  # noqa: DTZ001
            [("lake", "calls", "altered", 1, (first_in_lake,))]),
        (with_file(participants, alter_parquet("participant", "nobody")),
            [("lake", "call_participants", "altered", 1, (first_with_participants,))]),
        (with_file(calls, lambda path: pq.write_table(pa.concat_tables([everything, everything.slice(0, 1)]), path)),
            [("lake", "calls", "doubled", 1, (first_in_lake,))]),
        (with_file(raw, lambda path: path.write_bytes(path.read_bytes()[:-20])),
            [("raw", "calls", "unreadable", 1, ())]),
        (with_file(raw, Path.unlink), [("raw", "calls", "unreadable", 1, ())]),
        (with_call(portal, new), [("api", "calls", "extra", 1, (new["id"],))]),
        (without_call(portal, one), [("api", "calls", "missing", 1, (one,))]),
    ]  # fmt: skip
    # Files and portal are the same whatever the database is.
    is_first = "duckdb" in exported.settings["CALLHISTORY_WAREHOUSE_URL"]
    for planting, expected in [*in_the_warehouse, *(elsewhere if is_first else ())]:
        with planting:
            assert exported.differences() == expected
    assert exported.differences() == []

    exported.execute(lambda t: sa.delete(t["rejected_rows"]))
    [(*found, ids)] = exported.differences()
    assert found == ["warehouse", "rejected_rows", "missing", 1]
    assert ids == (f"reject {odd_reject['reject_id']}",)


one_database = pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)


@one_database
def test_a_row_that_kept_its_hash_is_found_without_a_raw_copy_and_when_it_is_deleted(exported: Exported) -> None:
    one, two, *_ = exported.ids()
    [raw] = (Path(exported.export.settings.lake_url) / f"raw/call_date={DAY}").iterdir()
    with with_file(raw, Path.unlink), with_values(exported, "calls", one, talk_seconds=4321):
        assert exported.differences("--offline") == [
            ("raw", "calls", "unreadable", 1, ()),
            ("warehouse", "calls", "altered", 1, (one,)),
        ]
    with without_call(exported.portal, two):
        exported.export.run(DAY, DAY, force=True)
        assert exported.differences() == []
        with with_values(exported, "calls", two, talk_seconds=4321):
            assert exported.differences() == [("warehouse", "calls", "altered", 1, (two,))]


@one_database
def test_offline_needs_no_credentials_and_sends_no_request(exported: Exported) -> None:
    exported.portal.add_call(exported.portal.rows(*range_ms(DAY, DAY))[5] | {"id": "call-vn-1-NEW0000000-1"})
    requests = sum(exported.portal.counts.values())
    here = {name: value for name, value in exported.settings.items() if name.startswith("CALLHISTORY_")}
    done = callhistory_here("verify", "--json", "--offline", "--to", str(DAY), cwd=exported.folder, settings=here)
    assert done.exit_code == 0, done.output
    missing = [day["call_date"] for day in done.json["days"] if day["api_total"] is None]
    assert len(missing) == len(done.json["days"])
    assert sum(exported.portal.counts.values()) == requests


@one_database
def test_each_closed_window_costs_one_request_when_nothing_differs(exported: Exported) -> None:
    requests = sum(exported.portal.counts.values())
    assert exported.differences() == []
    assert sum(exported.portal.counts.values()) == requests + 1


@one_database
def test_a_count_that_is_the_result_cap_is_counted_in_parts(exported: Exported) -> None:
    """The portal stops counting at its cap, as a search engine does."""
    exported.portal.options.result_cap = cap = len(exported.ids())
    exported.settings["STRINGEEX_RESULT_CAP"] = str(cap)
    exported.portal.log.clear()
    assert exported.differences() == []
    asked = [entry.query for entry in exported.portal.log]
    assert len(asked) > 1
    assert all("limit=1&" in query for query in asked), "the window was read, not counted"


@one_database
def test_what_was_not_exported_is_not_verified(exported: Exported) -> None:
    exported.execute(lambda t: sa.update(t["export_windows"]).values(status="failed"))
    assert exported.differences() == [("ledger", "export_windows", "not_complete", 1, ())]
    day_before = str(DAY - timedelta(days=1))
    done = exported.verify("--from", day_before, "--to", day_before)
    assert done.exit_code == 3
    [difference] = done.json["days"][0]["differences"]
    assert (difference["place"], difference["kind"]) == ("ledger", "not_complete")


@one_database
def test_a_certificate_that_was_altered_is_named(exported: Exported) -> None:
    exported.execute(lambda t: sa.update(t["export_windows"]).values(api_total=1, raw_rows=1))
    assert exported.differences() == [("ledger", "export_windows", "altered", 1, ())]


@one_database
def test_an_api_that_does_not_answer_is_not_taken_for_agreement(exported: Exported) -> None:
    exported.portal.faults.append(WrongTotal(form="missing"))
    assert exported.differences() == [("api", "calls", "unreadable", 1, ())]


@one_database
def test_rows_that_other_code_made_are_called_outdated(exported: Exported) -> None:
    """Certified, and equal in lake and warehouse, but no longer what the raw copy becomes."""
    exported.settings["CALLHISTORY_REGION"] = "US"
    found = {(place, kind) for place, table, kind, *_ in exported.differences() if table == "calls"}
    assert found == {("lake", "outdated"), ("warehouse", "outdated")}


@one_database
def test_what_is_shown_names_the_day_and_the_call_and_nobodys_data(exported: Exported) -> None:
    [one, *_] = exported.ids()
    exported.execute(lambda t: sa.update(t["calls"]).where(t["calls"].c.call_id == one).values(talk_seconds=4321))
    done = callhistory_here("verify", "--to", str(DAY), cwd=exported.folder, settings=exported.settings)
    assert done.exit_code == 3
    assert f"{DAY} warehouse calls: 1 altered: {one}" in done.stdout
    numbers = [str(row["customer_number"]) for row in exported.portal.rows(*range_ms(DAY, DAY))]
    assert not any(number in done.output for number in numbers if number)
