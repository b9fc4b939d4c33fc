"""Changes at the source."""

from typing import Any

from pipelines.simulator import Portal
from tests.exports import FIRST, range_ms


def whole_rows(portal: Portal) -> list[dict[str, Any]]:
    """The first day's rows whose id and start are as documented."""
    rows = portal.rows(*range_ms(FIRST, FIRST))
    return [row for row in rows if isinstance(row.get("start_time"), int) and isinstance(row.get("id"), str)]


def change(portal: Portal, number: int) -> None:
    """Change one call so that every file of its day changes."""
    call_id = whole_rows(portal)[number]["id"]
    portal.update_call(call_id, contactname=f"Phạm Thị {number}", participants=f"user_{number};84900000012;")
