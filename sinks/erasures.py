"""Who is erased, by keyed hashes: the list that keeps a re-read, a replay or a backup from bringing anybody back.

It is kept twice, in the warehouse's table ``erasures`` and as small files in the lake. So a backup of one of the two
that knows nothing of an erasure is noticed, and the erasure is to be done once more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from sinks.scratch import explained, scratch_folder
from sinks.storage import Storage
from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.errors import StorageError
from transforms.schema import ERASURES, RECORDINGS

_FOLDER, _SUFFIX = "erasures", ".json"


@dataclass(frozen=True)
class Erasure:
    """One person, as ``digests`` under the key that has the id ``key_id``; ``completed_at`` is null until it is done.

    ``found`` is how many rows and files were found to speak of them when it was asked for, by place.
    """

    erasure_id: str
    key_id: str
    digests: frozenset[str]
    requested_at: datetime
    completed_at: datetime | None = None
    found: tuple[tuple[str, int], ...] = ()


class Erasures:
    """Reads and writes the list, in ``warehouse`` and in the lake's ``storage``."""

    def __init__(self, warehouse: Warehouse, storage: Storage) -> None:
        self._warehouse = warehouse
        self._storage = storage
        self._table = warehouse.tables[ERASURES.name]

    def all(self) -> list[Erasure]:
        """Return every erasure that the warehouse knows, done or not."""
        with self._warehouse.reading() as connection:
            return [_erasure(row) for row in connection.execute(sa.select(self._table)).mappings()]

    def unfinished(self) -> list[Erasure]:
        """Return those that are to be done: begun and cut off, or undone by a backup."""
        return [erasure for erasure in self.all() if erasure.completed_at is None]

    def released_audio(self) -> list[str]:
        """Return the calls of erased people whose audio was under legal hold, and is not any more."""
        t = self._warehouse.tables[RECORDINGS.name]
        with self._warehouse.reading() as connection:
            query = sa.select(t.c.call_id).where(t.c.erase_requested_at.is_not(None), t.c.legal_hold.is_(False))
            return list(connection.scalars(query))

    def add(self, erasures: Iterable[Erasure]) -> None:
        """Have people known as erased from now on; one who is known already is to be done anew."""
        for erasure in erasures:
            self._write_file(erasure)
            self._write_row(erasure)

    def complete(self, erasure_ids: Collection[str], completed_at: datetime) -> None:
        """Note that nothing is left of them."""
        t = self._table
        with self._warehouse.transaction() as connection:
            connection.execute(
                sa.update(t).where(t.c.erasure_id.in_(list(erasure_ids))).values(completed_at=completed_at)
            )

    def reconcile(self) -> None:
        """Bring the two lists together; what one of them lacked is unfinished: that store came from a backup.

        Raises ``StorageError`` for a file of the lake's list that cannot be read.
        """
        names = self._storage.names(_FOLDER, _SUFFIX)
        known = {erasure.erasure_id: erasure for erasure in self.all()}
        in_lake = {Path(name).name.removesuffix(_SUFFIX): name for name in names}
        for erasure_id in in_lake.keys() - known.keys():
            self._write_row(self._read_file(in_lake[erasure_id]))
        self.add(known[erasure_id] for erasure_id in known.keys() - in_lake.keys())

    @once_more_on_collision
    def _write_row(self, erasure: Erasure) -> None:
        t = self._table
        values = {
            "key_id": erasure.key_id,
            "digests": json.dumps(sorted(erasure.digests)),
            "requested_at": erasure.requested_at,
            "completed_at": None,
            "found": json.dumps(dict(erasure.found)),
        }
        with self._warehouse.transaction() as connection:
            same = t.c.erasure_id == erasure.erasure_id
            if connection.scalar(sa.select(sa.literal(1)).where(same)) is None:
                connection.execute(sa.insert(t).values(erasure_id=erasure.erasure_id, **values))
            else:
                connection.execute(sa.update(t).where(same).values(values))

    def _write_file(self, erasure: Erasure) -> None:
        facts = {
            "erasure_id": erasure.erasure_id,
            "key_id": erasure.key_id,
            "digests": sorted(erasure.digests),
            "requested_at": erasure.requested_at.isoformat(),
            "found": dict(erasure.found),
        }
        with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
            path = Path(folder) / "erasure.json"
            with explained():
                path.write_text(json.dumps(facts) + "\n")
            self._storage.publish(path, f"{_FOLDER}/{erasure.erasure_id}{_SUFFIX}")

    def _read_file(self, name: str) -> Erasure:
        try:
            with self._storage.open(name) as file:
                facts: dict[str, Any] = json.loads(file.read())
            return Erasure(
                facts["erasure_id"],
                facts["key_id"],
                frozenset(facts["digests"]),
                datetime.fromisoformat(facts["requested_at"]).astimezone(UTC),
                found=tuple(facts["found"].items()),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{name} in {self._storage.location} cannot be read: bring it back from a backup, or erase again"
            ) from error


def _erasure(row: Any) -> Erasure:
    return Erasure(
        row["erasure_id"],
        row["key_id"],
        frozenset(json.loads(row["digests"])),
        row["requested_at"],
        row["completed_at"],
        tuple(json.loads(row["found"]).items()),
    )
