"""``completeness``: the certificates of all windows, by local day, for who audits the export."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.declaration import Relations, View, how_many, is_so, whole

COLUMNS = {
    "call_date": "The local day.",
    "windows": "Export windows that the day has been cut into so far.",
    "complete_windows": "Windows that are proven complete.",
    "failed_windows": "Windows whose last read failed; they are due again.",
    "running_windows": "Windows that are being read now, or were cut off; these are due again.",
    "api_total": "Calls by the API's own count.",
    "raw_rows": "Rows in the raw copy. Right: equal to api_total.",
    "rejected": "Rows that cannot be a call, kept in rejected_rows.",
    "lake_rows": "Calls in the Parquet files. Right: raw_rows less rejected.",
    "warehouse_rows": "Calls in the table calls, deleted ones left out. Right: equal to lake_rows.",
    "is_complete": "Whether the day is over, every window of it was read after its end, all counts are right, "
    "and lake and warehouse have equal contents by their hashes.",
    "is_settled": "Whether it is complete, and will not be read again for late changes; else it is provisional.",
    "last_completed_at": "When the last of its windows was proven complete (UTC).",
    "late_changes": "Calls that later reads added, changed or found gone.",
    "disputed_windows": "Windows that are published or held, and not proven: the API's answers contradict themselves, "
    "or what is published. They are due again.",
}


def view(relations: Relations) -> View:
    """Return the view over the ledger."""
    t = relations["export_windows"].c
    is_proven = sa.and_(
        t.status == "complete",
        t.completed_at >= t.window_end,
        t.api_total == t.raw_rows,
        t.raw_rows == t.lake_rows + t.rejected,
        t.lake_rows == t.warehouse_rows,
        t.content_hash == t.warehouse_content_hash,
    )
    # A day whose later windows were never begun has no window that ends with it.
    is_complete = sa.and_(how_many(is_proven) == sa.func.count(), how_many(t.ends_day.is_(sa.true())) == 1)
    is_settled = sa.and_(is_complete, how_many(t.settled.is_(sa.true())) == sa.func.count())
    columns = {
        "call_date": t.call_date,
        "windows": whole(sa.func.count()),
        "complete_windows": how_many(t.status == "complete"),
        "failed_windows": how_many(t.status == "failed"),
        "running_windows": how_many(t.status == "running"),
        **{
            name: whole(sa.func.sum(t[name]))
            for name in ("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows")
        },
        "is_complete": is_so(is_complete),
        "is_settled": is_so(is_settled),
        "last_completed_at": sa.func.max(t.completed_at),
        "late_changes": whole(sa.func.sum(t.late_changes)),
        "disputed_windows": how_many(t.status == "disputed"),
    }
    query = sa.select(*(columns[name].label(name) for name in COLUMNS)).group_by(t.call_date)
    return View("completeness", "What proves each local day complete: every count, side by side.", query, COLUMNS)
