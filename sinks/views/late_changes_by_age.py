"""``late_changes_by_age``: how many calls came or changed how long after their window was closed."""

from __future__ import annotations

import sqlalchemy as sa

from sinks.views.declaration import Relations, View, whole

COLUMNS = {
    "previous_age_days": "Whole days from the end of the window to the read before; -1 when that was before the end.",
    "age_days": "Whole days from the end of the window to the read that found the changes.",
    "rereads": "Re-reads that found something changed.",
    "inserted": "Calls that were new.",
    "updated": "Calls that had other values.",
    "restored": "Calls that were back.",
    "vanished": "Calls that were gone.",
    "calls_changed": "All of these.",
}


def view(relations: Relations) -> View:
    """Return the view over ``late_changes``."""
    t = relations["late_changes"].c
    kinds = ("inserted", "updated", "restored", "vanished")
    columns = {
        "previous_age_days": t.previous_age_days,
        "age_days": t.age_days,
        "rereads": whole(sa.func.count()),
        **{kind: whole(sa.func.sum(t[kind])) for kind in kinds},
        "calls_changed": whole(sa.func.sum(t.inserted + t.updated + t.restored + t.vanished)),
    }
    query = sa.select(*(columns[name].label(name) for name in COLUMNS)).group_by(t.previous_age_days, t.age_days)
    description = "Calls that came, changed or went after their window was closed, by how long after."
    return View("late_changes_by_age", description, query, COLUMNS)
