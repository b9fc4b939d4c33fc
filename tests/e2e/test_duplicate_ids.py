"""Ids that are served twice: each is one call, nothing is withheld, and every row is there.

Each through the command.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipelines.simulator.data_faults import DuplicateIds
from sinks.raw import raw_files, read_raw
from tests.conftest import BACKENDS
from tests.e2e.two_days import LAST, Account, assert_same_published, two_days
from tests.exports import FIRST, assert_holds, range_ms
from transforms.json_text import JsonValue
from transforms.schema import CALLS, REJECTED_ROWS

CALLS_SERVED = 60
PAGE_ROWS = 7


def rows_in_the_order_served(account: Account) -> list[JsonValue]:
    with account.export.open() as pipeline:
        storage = pipeline.lake.storage
        files = [raw_files(storage, day)[-1] for day in (FIRST, LAST)]
        return [row for file in files for batch in read_raw(storage, file, 1_000) for row in batch]


def assert_last_rows_are_the_calls(account: Account, doubles: int) -> None:
    served = rows_in_the_order_served(account)
    assert len(served) == CALLS_SERVED + doubles
    last = {row["id"]: row["contactname"] for row in served if isinstance(row, dict)}
    for found in (account.export.warehouse(CALLS), account.export.lake(CALLS)):
        assert dict(zip(found["call_id"].to_pylist(), found["contact_name"].to_pylist(), strict=True)) == {
            call_id: name or None for call_id, name in last.items()
        }
    rejects = account.export.warehouse(REJECTED_ROWS)
    assert Counter(rejects["reason"].to_pylist()) == {"duplicate_id": doubles}
    counts = account.ledger("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows", "status")
    assert sum(total for total, *_ in counts) == CALLS_SERVED + doubles
    for total, raw, rejected, lake, warehouse, status in counts:
        assert total == raw == lake + rejected
        assert (lake, status) == (warehouse, "complete")


@pytest.mark.parametrize(
    ("warehouse_url", "version_2", "field"),
    [
        *((backend, version_2, "contactname") for backend in BACKENDS for version_2 in (True, False)),
        ("sqlite", True, None),
        ("mariadb", False, None),
    ],
    indirect=["warehouse_url"],
)
def test_a_day_with_an_id_twice_was_withheld_for_ever(
    warehouse_url: str, version_2: bool, field: str | None, tmp_path: Path
) -> None:
    options = {"calls": CALLS_SERVED, "page_rows": PAGE_ROWS, "supports_version_2": version_2}
    with two_days(warehouse_url, tmp_path, **options) as account:
        account.portal.faults.append(DuplicateIds(share=0.2, field=field))
        assert account.backfill().exit_code == 0
        doubles = account.export.warehouse(REJECTED_ROWS).num_rows
        assert 8 <= doubles <= 16
        assert_last_rows_are_the_calls(account, doubles)

        before, raw = account.published(), account.raw_files()
        again = account.backfill("--force")
        assert (again.exit_code, again.json["calls_updated"], again.json["calls_inserted"]) == (0, 0, 0)
        assert_same_published(account.published(), before)
        assert account.raw_files() == raw
        verified = account.run("verify", "--from", str(FIRST), "--to", str(LAST))
        assert verified.exit_code == 0, verified.output

        account.portal.faults.clear()
        assert account.backfill("--force").exit_code == 0
        assert account.export.warehouse(REJECTED_ROWS).num_rows == 0
        served = account.portal.rows(*range_ms(FIRST, LAST), version=2 if version_2 else 1)
        assert_holds(account.export, served, FIRST, LAST)


@pytest.mark.parametrize("warehouse_url", ["sqlite", "mariadb"], indirect=True)
def test_an_integer_id_twice_ended_in_an_error_and_one_with_a_blank_failed_for_ever(
    warehouse_url: str, tmp_path: Path
) -> None:
    """A number is its digits. What has a blank is another id."""
    with two_days(warehouse_url, tmp_path, calls=CALLS_SERVED) as account:
        row = account.served()[0]
        for place, call_id in enumerate((5, 5, "5", "5 ")):
            account.portal.add_call(row | {"id": call_id}, call_id=f"{row['id']}-{place}")
        assert account.backfill().exit_code == 0
        ids = account.export.lake(CALLS)["call_id"].to_pylist()
        assert (ids.count("5"), ids.count("5 "), len(ids)) == (1, 1, CALLS_SERVED + 2)
        assert account.export.warehouse(REJECTED_ROWS)["reason"].to_pylist() == ["duplicate_id"] * 2
        assert account.export.lake(CALLS).equals(account.export.warehouse(CALLS))
        assert account.backfill("--force").json["calls_updated"] == 0


@pytest.mark.parametrize("other", ["{} ", " {}", "{}\u00a0", "lower"])
def test_ids_that_differ_in_any_character_are_two_calls(other: str, warehouse_url: str, tmp_path: Path) -> None:
    """White space and case tell ids apart, in databases too that would not look at them."""
    with two_days(warehouse_url, tmp_path, calls=CALLS_SERVED) as account:
        row = account.served()[0]
        second = row["id"].lower() if other == "lower" else other.format(row["id"])
        assert second != row["id"]
        account.portal.add_call(row | {"id": second}, call_id=f"{row['id']}-second")
        assert account.backfill().exit_code == 0
        assert {row["id"], second} <= set(account.export.warehouse(CALLS)["call_id"].to_pylist())
        assert account.export.warehouse(REJECTED_ROWS).num_rows == 0
        assert_holds(account.export, account.served(), FIRST, LAST)
        assert account.backfill("--force").exit_code == 0
        assert_holds(account.export, account.served(), FIRST, LAST)
