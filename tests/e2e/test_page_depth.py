"""A portal that lets nobody page deeper than it told anybody: learnt, and the window split."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.two_days import LAST, two_days
from tests.exports import FIRST, assert_holds, range_ms

DEPTH = 20


def test_a_depth_that_nobody_told_us_of_failed_the_day_for_ever(warehouse_url: str, tmp_path: Path) -> None:
    options = {"supports_version_2": False, "result_cap": DEPTH, "past_result_cap": "refused"}
    with two_days(warehouse_url, tmp_path, page_rows=10, **options) as account:
        first = account.backfill()
        assert first.exit_code == 0, first.output
        served = account.portal.rows(*range_ms(FIRST, LAST), version=1)
        assert len(served) == 80
        assert_holds(account.export, served, FIRST, LAST)

        # The next run knows, and asks no page that is refused.
        account.portal.counts.clear()
        again = account.backfill("--force")
        assert (again.exit_code, again.json["calls_updated"]) == (0, 0)
        assert again.json["requests"] <= first.json["requests"]
        assert account.run("verify", "--from", str(FIRST), "--to", str(LAST)).exit_code == 0
