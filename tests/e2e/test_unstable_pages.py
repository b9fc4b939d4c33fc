"""Pages that repeat a row in place of another: the count is right, and a call is missing.

Through the command.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import stamina

from pipelines.simulator.faults import UnstablePages
from tests.e2e.two_days import LAST, Account, two_days
from tests.exports import FIRST, assert_holds, range_ms
from transforms.schema import CALLS


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    url = f"duckdb:///{tmp_path / 'warehouse.duckdb'}"
    with (
        stamina.set_testing(True, attempts=8, cap=True),
        two_days(url, tmp_path, page_rows=10, supports_version_2=False) as account,
    ):
        yield account


def test_a_row_that_stood_in_for_another_was_taken_for_an_id_served_twice(account: Account) -> None:
    account.portal.faults.append(UnstablePages(after=2, count=1))
    assert account.backfill().exit_code == 0
    assert_holds(account.export, account.portal.rows(*range_ms(FIRST, LAST), version=1), FIRST, LAST)


def test_pages_that_stay_so_are_no_proof_and_take_no_call_away(account: Account) -> None:
    assert account.backfill().exit_code == 0
    account.portal.faults.append(UnstablePages())
    done = account.backfill("--force")
    assert (done.exit_code, len(done.json["disputed"])) == (3, 2)
    assert account.export.warehouse(CALLS)["deleted_at"].null_count == account.export.lake(CALLS).num_rows == 80

    account.portal.faults.clear()
    assert account.backfill().exit_code == 0
    assert_holds(account.export, account.portal.rows(*range_ms(FIRST, LAST), version=1), FIRST, LAST)
