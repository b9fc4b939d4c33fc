"""A source whose answers parse and mean something else: what was right stays, and what was served is there.

Each through the command, on every database.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.simulator import Fault
from pipelines.simulator.data_faults import (
    DropField,
    FewerRows,
    NullField,
    OnlyShare,
    OtherPortal,
    RenameField,
    SetField,
)
from pipelines.simulator.faults import WrongTotal
from tests.conftest import BACKENDS
from tests.e2e.two_days import LAST, Account, assert_same_published, two_days
from tests.exports import FIRST, assert_holds, export_of, range_ms
from transforms.schema import CALLS, REJECTED_ROWS

pytestmark = pytest.mark.usefixtures("retries_at_once")


@pytest.fixture
def account(warehouse_url: str, tmp_path: Path) -> Iterator[Account]:
    with two_days(warehouse_url, tmp_path) as account:
        yield account


TAKES_A_FIELD_AWAY = [
    *((RenameField(field="id", to="call_id"), "id", backend) for backend in BACKENDS),
    (RenameField(field="status", to="state"), "status", "duckdb"),
    (RenameField(field="status", to="state"), "status", "mariadb"),
    (RenameField(field="start_time", to="started"), "start_time", "duckdb"),
    (NullField(field="direction"), "direction", "mariadb"),
    (DropField(field="status", share=0.5), "status", "postgresql"),
]


@pytest.mark.parametrize(("fault", "field", "warehouse_url"), TAKES_A_FIELD_AWAY, indirect=["warehouse_url"])
def test_a_field_that_every_call_needs_and_that_is_gone_changes_nothing(
    account: Account, fault: Fault, field: str
) -> None:
    assert account.backfill().exit_code == 0
    before, raw = account.published(), account.raw_files()
    account.portal.faults.append(fault)

    done = account.backfill("--force")
    assert done.exit_code == 3
    assert not done.json["complete"]
    assert len(done.json["held"]) == 2
    assert all(f"the field {field}" in line and "rows" in line and "since 20" in line for line in done.json["held"])
    assert_same_published(account.published(), before)
    assert len(account.raw_files() - raw) == 2
    assert account.ledger("status", "held") == [("disputed", True)] * 2
    alerts = account.run("alerts", "--json")
    assert alerts.exit_code == 3
    assert [alert["kind"] for alert in alerts.json["alerts"]].count("held") == 2

    account.portal.faults.clear()
    mended = account.backfill()
    assert mended.exit_code == 0
    assert mended.json["calls_vanished"] == mended.json["calls_updated"] == 0
    assert_same_published(account.published(), before)
    assert_holds(account.export, account.served(), FIRST, LAST)
    assert account.ledger("status", "held", "error") == [("complete", False, None)] * 2


@pytest.mark.parametrize("warehouse_url", ["sqlite", "postgresql"], indirect=True)
def test_a_field_that_was_accepted_to_be_gone_is_gone_until_it_is_back(account: Account) -> None:
    assert account.backfill().exit_code == 0
    account.portal.faults.append(RenameField(field="status", to="state"))
    assert account.backfill("--force").exit_code == 3
    refused = account.run("drift", "accept", "no_such_field")
    assert refused.exit_code == 2
    assert "no field that has a column" in refused.output
    assert account.run("drift", "accept", "status").exit_code == 0
    assert account.backfill().exit_code == 0
    assert set(account.export.warehouse(CALLS)["status"].to_pylist()) == {"unknown"}

    account.portal.faults.clear()
    assert account.backfill("--force").exit_code == 0
    assert_holds(account.export, account.served(), FIRST, LAST)
    account.portal.faults.append(RenameField(field="status", to="state"))
    assert account.backfill("--force").exit_code == 3
    assert_holds(account.export, account.served(), FIRST, LAST)


@pytest.mark.parametrize(
    ("fault", "field", "warehouse_url"),
    [
        (SetField(field="duration", value="00:05:00"), "duration", "duckdb"),
        (SetField(field="status", value=99), "status", "sqlite"),
        (SetField(field="talk_duration", value=-5), "talk_duration", "mariadb"),
        (SetField(field="customer_number", value="84*******12"), "customer_number", "postgresql"),
    ],
    indirect=["warehouse_url"],
)
def test_values_that_are_served_and_not_understood_emptied_a_column(account: Account, fault: Fault, field: str) -> None:
    assert account.backfill().exit_code == 0
    before = account.published()
    account.portal.faults.append(fault)
    done = account.backfill("--force")
    assert done.exit_code == 3
    assert len(done.json["held"]) == 2
    assert all(f"the field {field}" in line and f"drift accept {field}" in line for line in done.json["held"])
    assert_same_published(account.published(), before)

    assert account.run("drift", "accept", field).exit_code == 0
    accepted = account.backfill()
    assert (accepted.exit_code, accepted.json["calls_updated"]) == (0, 80)
    account.portal.faults.clear()
    assert account.backfill("--force").exit_code == 0
    assert_holds(account.export, account.served(), FIRST, LAST)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (SetField(field="id", value="one-for-all"), "32 of 32 rows have the same id"),
        (SetField(field="id", value="one-for-many", share=0.5), "rows have the same id"),
        (SetField(field="start_time", value="yesterday", share=0.5), "rows are no calls"),
        (SetField(field="status", value=99), "the field status"),
    ],
)
def test_a_first_read_of_which_most_is_no_call_ended_complete(account: Account, fault: Fault, says: str) -> None:
    account.portal.faults.append(fault)
    done = account.backfill()
    assert done.exit_code == 3
    assert len(done.json["disputed"]) == 2
    assert any(says in line for line in done.json["disputed"])
    ledger = account.ledger("api_total", "raw_rows", "rejected", "lake_rows")
    assert all(total == raw == rejected + calls for total, raw, rejected, calls in ledger)

    account.portal.faults.clear()
    assert account.backfill().exit_code == 0
    assert sorted(account.export.lake(CALLS)["call_id"].to_pylist()) == sorted(row["id"] for row in account.served())


@pytest.mark.parametrize(
    ("field", "warehouse_url"),
    [("id", "duckdb"), ("start_time", "postgresql"), ("status", "sqlite"), ("status", "mariadb")],
    indirect=["warehouse_url"],
)
def test_a_first_read_without_a_needed_field_is_published_and_not_complete(account: Account, field: str) -> None:
    account.portal.faults.append(RenameField(field=field, to="other"))
    done = account.backfill()
    assert done.exit_code == 3
    assert len(done.json["disputed"]) == 2
    assert all(f"the field {field}" in line for line in done.json["disputed"])
    calls = account.export.warehouse(CALLS).num_rows if field == "status" else 0
    assert calls + account.export.warehouse(REJECTED_ROWS).num_rows == 80

    account.portal.faults.clear()
    assert account.backfill().exit_code == 0
    assert_holds(account.export, account.served(), FIRST, LAST)
    assert account.export.warehouse(REJECTED_ROWS).num_rows == 0


@pytest.mark.parametrize(
    ("fault", "warehouse_url"),
    [
        *((FewerRows(keep=4), backend) for backend in BACKENDS),
        (FewerRows(keep=0), "postgresql"),
        (OtherPortal(seed=9), "mariadb"),
        (OnlyShare(share=0.5), "sqlite"),
    ],
    indirect=["warehouse_url"],
)
def test_most_of_a_day_that_is_gone_changes_nothing_until_it_is_accepted(account: Account, fault: Fault) -> None:
    assert account.backfill().exit_code == 0
    before = account.published()
    account.portal.faults.append(fault)

    done = account.backfill("--force")
    assert done.exit_code == 3
    assert len(done.json["held"]) == 2
    assert all("--accept-vanished" in line for line in done.json["held"])
    assert_same_published(account.published(), before)

    # What was held is not applied by a replay either, and not by the next run.
    assert account.run("replay", "--from", str(FIRST), "--to", str(LAST), "--json").exit_code == 0
    assert_same_published(account.published(), before)
    assert account.backfill("--force").exit_code == 3

    assert account.backfill("--accept-vanished").exit_code == 0
    calls = account.export.warehouse(CALLS)
    gone = calls.num_rows - calls["deleted_at"].null_count
    assert gone >= 30

    account.portal.faults.clear()
    assert account.backfill("--force", "--accept-vanished").exit_code == 0
    assert account.export.lake(CALLS).num_rows == 80
    live = account.export.warehouse(CALLS).filter(account.export.warehouse(CALLS)["deleted_at"].is_null())
    assert sorted(live["call_id"].to_pylist()) == sorted(row["id"] for row in account.served())


def test_a_few_calls_that_are_gone_are_marked_as_vanished(account: Account) -> None:
    assert account.backfill().exit_code == 0
    for _, call_id in account.portal.keys(*range_ms(FIRST, FIRST))[:9]:
        account.portal.remove_call(call_id)
    done = account.backfill("--force")
    assert (done.exit_code, done.json["calls_vanished"]) == (0, 9)


def test_a_day_of_small_windows_does_not_vanish_window_by_window(account: Account) -> None:
    """Each four hours lose about as many calls as may go by themselves; the day loses all of them."""
    export = export_of(
        account.export.settings.base_url,
        account.export.settings.warehouse_url.get_secret_value(),
        account.folder,
        CALLHISTORY_WINDOW="4h",
    )
    assert export.run(FIRST, LAST).is_complete
    account.portal.faults.append(FewerRows(keep=0))
    run = export.run(FIRST, LAST, force=True)
    assert not run.is_complete
    assert run.totals["calls_vanished"] <= 80 * 0.3
    account.portal.faults.clear()
    assert export.run(FIRST, LAST, force=True).is_complete
    assert_holds(export, account.served(), FIRST, LAST)


def test_a_rejected_row_with_an_id_proves_that_its_call_is_still_there(account: Account) -> None:
    assert account.backfill().exit_code == 0
    before = account.published()
    [(_, call_id), *_] = account.portal.keys(*range_ms(FIRST, FIRST))
    account.portal.faults.append(DropField(field="start_time", call_id=call_id))
    done = account.backfill("--force")
    assert done.exit_code == 3
    assert "1 calls are kept as they were" in done.json["disputed"][0]
    assert account.published()[CALLS.name].equals(before[CALLS.name])
    assert account.export.lake(CALLS).equals(before[CALLS.name])
    assert account.export.warehouse(REJECTED_ROWS)["call_id"].to_pylist() == [call_id]
    account.portal.faults.clear()
    assert account.backfill().exit_code == 0
    assert_same_published(account.published(), before)


def test_a_row_without_an_id_could_be_any_call_so_none_is_gone(account: Account) -> None:
    assert account.backfill().exit_code == 0
    keys = account.portal.keys(*range_ms(FIRST, FIRST))
    account.portal.faults.append(DropField(field="id", call_id=keys[0][1]))
    account.portal.remove_call(keys[1][1])
    for _ in range(2):
        done = account.backfill("--force")
        assert done.exit_code == 3
        assert "2 calls are kept" in done.json["disputed"][0]
        assert account.export.warehouse(CALLS)["deleted_at"].null_count == 80
        assert account.export.lake(CALLS).num_rows == 80
    account.portal.faults.clear()
    mended = account.backfill()
    assert (mended.exit_code, mended.json["calls_vanished"]) == (0, 1)


@pytest.mark.parametrize(
    ("offset", "version_2", "warehouse_url"),
    [(1, True, "duckdb"), (-1, False, "sqlite"), (-1, True, "postgresql"), (1, False, "mariadb")],
    indirect=["warehouse_url"],
)
def test_a_count_that_stays_wrong_withholds_nothing(account: Account, offset: int, version_2: bool) -> None:
    account.portal.options.supports_version_2 = version_2
    account.portal.faults.append(WrongTotal(offset=offset))
    done = account.backfill()
    assert done.exit_code == 3
    assert len(done.json["disputed"]) == 2
    served = account.portal.rows(*range_ms(FIRST, LAST), version=2 if version_2 else 1)
    assert sorted(account.export.lake(CALLS)["call_id"].to_pylist()) == sorted(row["id"] for row in served)
    assert account.export.lake(CALLS).equals(account.export.warehouse(CALLS))

    # Nobody's call is taken for gone by such a read.
    [(_, call_id), *_] = account.portal.keys(*range_ms(FIRST, FIRST))
    account.portal.remove_call(call_id)
    assert account.backfill().exit_code == 3
    assert account.export.warehouse(CALLS)["deleted_at"].null_count == 80
    assert account.export.lake(CALLS).num_rows == 80

    account.portal.faults.clear()
    assert account.backfill().exit_code == 0
    assert account.ledger("status") == [("complete",)] * 2
    assert account.export.warehouse(CALLS)["deleted_at"].null_count == 79
