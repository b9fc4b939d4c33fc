"""A folder that the command runs in, and the simulated account that it is for."""

from __future__ import annotations

from pathlib import Path

from pipelines.simulator import SimulatedPortal
from tests.e2e.command import Finished, account, callhistory_here


class Place:
    """A folder, the portal, and the settings of an account there."""

    def __init__(self, server: SimulatedPortal, folder: Path, warehouse_url: str) -> None:
        self.portal, self.folder = server.portal, folder
        self._settings = account(server.base_url, CALLHISTORY_WAREHOUSE_URL=warehouse_url)

    def run(self, *arguments: str, **settings: str) -> Finished:
        """Run the command, with more settings where they are given."""
        return callhistory_here(*arguments, cwd=self.folder, settings=self._settings | settings)

    def files(self) -> list[str]:
        """Every file in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())
