"""The receipt of an erasure: what was found, what is left, and what proves it again later. It names nobody."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pipelines.context import Stores, open_archive
from pipelines.erasure.scan import Scan, scan
from sinks.content_hash import sum_of_hashes
from sinks.erasures import Erasure
from transforms.erasure import key_id
from transforms.errors import DataError, SettingsError
from transforms.schema import RECORDINGS

_VERSION = 1


def receipt(stores: Stores, erasures: Sequence[Erasure], last_look: Scan) -> dict[str, Any]:
    """Return the receipt of ``erasures``, given what the last look found, as JSON can hold it.

    ``found`` is what spoke of them when the erasure was asked for, ``left`` what does now. ``content_hash`` is that of
    all certified calls; ``sha256`` that of the rest of the receipt.
    """
    rows = stores.ledger.rows()
    facts: dict[str, Any] = {
        "receipt_version": _VERSION,
        "tool_version": version("callhistory"),
        "erasures": [
            {
                "erasure_id": erasure.erasure_id,
                "key_id": erasure.key_id,
                "digests": sorted(erasure.digests),
                "requested_at": erasure.requested_at.isoformat(),
                "completed_at": erasure.completed_at and erasure.completed_at.isoformat(),
            }
            for erasure in erasures
        ],
        "found": dict(erasures[0].found),
        "looked_at": dict(last_look.looked_at),
        "left": dict(last_look.found),
        "unreadable": sorted(last_look.unreadable),
        "under_legal_hold": held_for_erased(stores),
        "stores": {"warehouse": stores.warehouse.backend.label, "lake": stores.lake.storage.location},
        "certified_windows": sum(row.completed_at is not None for row in rows),
        "content_hash": sum_of_hashes(row.content_hash for row in rows if row.content_hash),
    }
    return facts | {"sha256": _sha256(facts)}


def held_for_erased(stores: Stores) -> int:
    """Return how many recordings of people who are erased a legal hold keeps."""
    t = stores.warehouse.tables[RECORDINGS.name]
    with stores.warehouse.reading() as connection:
        query = sa.select(sa.func.count()).where(t.c.erase_requested_at.is_not(None))
        return int(connection.scalar(query) or 0)


def read_receipt(path: Path) -> dict[str, Any]:
    """Read a receipt. Raises ``DataError`` for a file that is none, or was changed since it was written."""
    try:
        facts: dict[str, Any] = json.loads(path.read_bytes())
        stated = facts.pop("sha256")
        people = [(e["key_id"], e["digests"], e["erasure_id"]) for e in facts["erasures"]]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no receipt of an erasure") from error
    if not people or stated != _sha256(facts):
        raise DataError(f"{path} was changed since it was written: take the receipt that erase wrote")
    return facts


def prove_again(stores: Stores, facts: Mapping[str, Any], on_place: Callable[[str], None]) -> tuple[Scan, list[str]]:
    """Look for the people of a receipt once more; also return the ids of those that the list has forgotten.

    Raises ``SettingsError`` where the key is not the one that the receipt was made with.
    """
    if {erasure["key_id"] for erasure in facts["erasures"]} != {key_id(stores.erasure_key())}:
        raise SettingsError("CALLHISTORY_PII_KEY is not the key that the receipt was made with: set that one")
    erased = stores.people_of(erasure["digests"] for erasure in facts["erasures"])
    found = scan(stores, open_archive(stores, only_look=True), erased, on_place)
    known = {erasure.erasure_id for erasure in stores.erasures.all()}
    return found, [erasure["erasure_id"] for erasure in facts["erasures"] if erasure["erasure_id"] not in known]


def _sha256(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
