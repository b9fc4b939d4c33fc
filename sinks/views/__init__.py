"""The views of the warehouse, declared once for all databases."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from sinks.views import calls_with_live, completeness, late_changes_by_age
from sinks.views.declaration import View

__all__ = ["View", "views"]


def views(tables: Mapping[str, sa.Table]) -> list[View]:
    """Return every view over the warehouse's ``tables``."""
    return [
        calls_with_live.view(tables["calls"], tables["live_calls"]),
        completeness.view(tables["export_windows"]),
        late_changes_by_age.view(tables["late_changes"]),
    ]
