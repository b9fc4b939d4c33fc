"""``callhistory status`` on time: late changes by age, settled and provisional days, freshness and cost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.windows import day_bounds
from tests.e2e.command import callhistory_here
from tests.exports import FIRST, ZONE, export_of, range_ms

DAY = timedelta(days=1)


def test_status_tells_the_rate_of_late_changes_by_age(tmp_path: Path) -> None:
    portal = Portal(
        generate(seed=3, start_date=FIRST, days=1, calls_total=50, late_arrival_share=0, late_change_share=0),
        PortalOptions(rate_limits=NO_LIMITS),
    )
    with SimulatedPortal(portal) as server:
        export = export_of(server.base_url, f"duckdb:///{tmp_path}/warehouse.duckdb", tmp_path)
        end, size = day_bounds(FIRST, ZONE)[1], len(portal.rows(*range_ms(FIRST, FIRST)))

        def read(now: object) -> None:
            portal.clock.set(now)
            export.run(FIRST, FIRST, now=now)  # type: ignore[arg-type]

        def change(*indexes: int) -> None:
            for index in indexes:
                portal.update_call(portal.rows(*range_ms(FIRST, FIRST))[index]["id"], contactname=f"Lê {index}")

        read(end + timedelta(hours=1))
        change(1, 2)
        read(end + DAY)
        change(3)
        read(end + 3 * DAY)
        settings = {
            "CALLHISTORY_WAREHOUSE_URL": export.settings.warehouse_url.get_secret_value(),
            "CALLHISTORY_LAKE_URL": export.settings.lake_url,
            "CALLHISTORY_START_DATE": str(FIRST),
        }
        status = callhistory_here("status", "--json", cwd=tmp_path, settings=settings).json
        shown = callhistory_here("status", cwd=tmp_path, settings=settings).stdout

    by_age = {late["age_days"]: late for late in status["late_changes_by_age"]}
    assert [(age, late["calls_changed"]) for age, late in by_age.items()] == [(0, 0), (1, 2), (3, 1), (7, 0), (30, 0)]
    assert [late["calls"] for late in by_age.values()] == [size, size, size, 0, 0]
    assert by_age[3]["rate"] == 1 / size
    assert by_age[7]["rate"] is None
    assert status["states"]["complete"] == 1
    assert status["states"]["missing"] == len(status["days"]) - 1
    assert status["freshness_seconds"] > 0
    assert f"1 d 2 ({2 / size:.2%})" in shown
    assert "within the request budget" in shown
