"""Killed anywhere on its way, a re-read that finds changes ends, run again, as one that was never disturbed."""

from datetime import timedelta

from pipelines.simulator import Portal
from tests.faults.changes import change, whole_rows
from tests.faults.kills import ATTEMPT, assert_survives_each_kill, undisturbed
from tests.faults.matrix import THEN_COMPLETE, Cell
from tests.faults.sites import Site


def change_some(portal: Portal) -> None:
    """Have one call changed, one gone, and one come late."""
    gone, model = whole_rows(portal)[6:8]
    change(portal, 5)
    portal.remove_call(gone["id"])
    portal.add_call(dict(model, id="call-vn-1-LATE000000-1767600000000"))


def test_a_reread_with_changes_killed_anywhere(portal: Portal, place: Site, cell: Cell) -> None:
    undisturbed(place, ATTEMPT - timedelta(minutes=20), force=False)
    place.keep()
    change_some(portal)
    assert_survives_each_kill(place, place.put_back, "step fetched", force=True)
    cell("kill-changed", place.database, THEN_COMPLETE)
