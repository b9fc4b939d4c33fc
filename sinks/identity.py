"""Which warehouse, lake and archive belong together: each carries the same identity, so that a wrong one is noticed.

In the warehouse it is a value of ``pipeline_state``; in the others a small hidden file at the root.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from pathlib import Path

from sinks.ledger import LedgerRow, WindowStatus
from sinks.parquet import Lake
from sinks.scratch import explained, scratch_folder
from sinks.state import State
from sinks.storage import Storage
from transforms.errors import StorageError

IDENTITY_FILE = ".callhistory.json"
"""Hidden: what reads all files of a folder passes over it."""

_NAME = "stores_identity"
_DAYS_COMPARED = 5


def warehouse_identity(state: State) -> str | None:
    """Return the identity of the warehouse; null before there is one."""
    remembered = state.get(_NAME)
    return remembered if isinstance(remembered, str) else None


def give_warehouse_identity(state: State, wanted: str | None = None) -> str:
    """Return the identity of the warehouse, which becomes ``wanted`` or a new one where it has none."""
    return str(state.settle(_NAME, wanted or uuid.uuid4().hex))


def storage_identity(storage: Storage) -> str | None:
    """Return the identity of a lake or an archive; null where it has none. Raises ``StorageError``."""
    if not storage.exists(IDENTITY_FILE):
        return None
    try:
        with storage.open(IDENTITY_FILE) as file:
            identity = json.loads(file.read())["identity"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{IDENTITY_FILE} in {storage.location} cannot be read: bring it back from a backup"
        ) from error
    return str(identity)


def give_storage_identity(storage: Storage, identity: str) -> None:
    """Write the identity of a lake or an archive. Raises ``StorageError``."""
    with tempfile.TemporaryDirectory(dir=scratch_folder()) as folder:
        path = Path(folder) / "identity.json"
        with explained():
            path.write_text(json.dumps({"identity": identity}) + "\n")
        storage.publish(path, IDENTITY_FILE)


def holds_what_was_published(lake: Lake, rows: list[LedgerRow]) -> bool:
    """Whether the lake holds one of the newest days that the ledger has certified; also when there are none."""
    by_day: dict[object, list[LedgerRow]] = {}
    for row in rows:
        by_day.setdefault(row.call_date, []).append(row)
    certified = [
        of_day
        for _, of_day in sorted(by_day.items(), key=lambda item: str(item[0]), reverse=True)
        if all(row.status is WindowStatus.COMPLETE for row in of_day) and any(row.lake_rows for row in of_day)
    ]
    newest = certified[:_DAYS_COMPARED]
    return not newest or any(
        lake.has_rows(of_day[0].call_date, sum(row.lake_rows or 0 for row in of_day)) for of_day in newest
    )
