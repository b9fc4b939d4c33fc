"""The views of the warehouse, declared once for all databases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from sinks.views.calls_with_live import calls_with_live


def views(tables: Mapping[str, sa.Table]) -> dict[str, sa.CompoundSelect[Any]]:
    """Return every view's query over the warehouse's ``tables``, by the view's name."""
    return {"calls_with_live": calls_with_live(tables["calls"], tables["live_calls"])}
