"""Killed anywhere on its way, a first export that is run again ends as one that was never disturbed."""

from tests.faults.kills import assert_survives_each_kill
from tests.faults.matrix import THEN_COMPLETE, Cell
from tests.faults.sites import Site


def test_a_first_export_killed_anywhere(place: Site, cell: Cell) -> None:
    assert_survives_each_kill(place, place.clear, "before commit", force=False)
    cell("kill-first", place.database, THEN_COMPLETE)
