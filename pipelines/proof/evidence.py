"""Evidence for an auditor: what is proven of which days, signed, so that a later look tells what was touched since."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipelines.context import Stores
from pipelines.export.made_by import made_by
from pipelines.proof.verify import DayCheck, verify_day
from sinks.certificates import Head, hash_of, links
from sinks.identity import warehouse_identity
from sinks.ledger import LedgerRow, WindowStatus
from sinks.parquet import Lake
from sinks.private_files import create_file
from sinks.raw import raw_files
from sinks.storage import Storage
from transforms.errors import DataError, SettingsError, StorageError
from transforms.schema import CALL_PARTICIPANTS, CALLS

_VERSION = 1
_ALGORITHM = "Ed25519"
_CHUNK_BYTES = 1 << 20
_SETTING = "CALLHISTORY_EVIDENCE_KEY"


class Finding(StrEnum):
    """How a day stands, compared with evidence of it."""

    SAME = "same"
    """Every file is what it was, and all rows are as certified."""
    RAW_EXPIRED = "raw copy expired"
    """The same, but the raw copy was kept for long enough, and is gone."""
    CERTIFIED_ANEW = "certified anew"
    """Files have changed, and later certificates of the chain say that they have; all rows are as certified."""
    WRITTEN_ANEW = "written anew"
    """Files have changed and no certificate says so; the rows are as certified."""
    NOT_PROVEN = "not proven now"
    """A window of it is not complete at the moment: its last read failed, or is disputed or at work."""
    ALTERED = "altered"
    """Rows or files are not what the certificates say."""


@dataclass(frozen=True)
class DayFinding:
    """A local day of the evidence, and what has become of it; ``files`` are those that are not what they were."""

    call_date: date
    finding: Finding
    files: tuple[str, ...]
    differences: int

    @property
    def is_untouched(self) -> bool:
        """Whether the evidence still says what is there."""
        return self.finding in (Finding.SAME, Finding.RAW_EXPIRED)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON can hold it."""
        return {**asdict(self), "call_date": self.call_date.isoformat(), "finding": self.finding.value}


@dataclass(frozen=True)
class Comparison:
    """Evidence and stores side by side. ``breaks`` are numbers of certificates at which the chain does not hold.

    ``follows`` says whether the chain of today goes on from the one that the evidence speaks of: false for another
    warehouse, a rewritten chain, and one that came from a backup older than the evidence.
    """

    breaks: tuple[int, ...]
    follows: bool
    days: tuple[DayFinding, ...]

    @property
    def is_untouched(self) -> bool:
        """Whether nothing was touched since."""
        return self.follows and not self.breaks and all(day.is_untouched for day in self.days)


def evidence_of(stores: Stores, days: Sequence[date], now: datetime, on_day: Callable[[date], None]) -> dict[str, Any]:
    """Return what is proven of local days, as JSON can hold it; it names nobody.

    Of each day: its windows as the ledger has them, and name, size and SHA-256 of each of its files. Then all
    certificates of these windows, the end of the chain and where it does not hold, and the erasures.
    """
    wanted = set(days)
    head = stores.certificates.head()
    certificates = [
        certificate.to_dict() for certificate in stores.certificates.all() if certificate.call_date in wanted
    ]
    of_days = []
    for day in days:
        on_day(day)
        of_days.append(
            {
                "call_date": day.isoformat(),
                "windows": [_window(row) for row in stores.ledger.rows(day, day)],
                "files": list(_files(stores.lake.storage, day)),
            }
        )
    return {
        "evidence_version": _VERSION,
        "tool_version": version("callhistory"),
        "made_by": made_by(stores),
        "made_at": now.isoformat(),
        "settings": {
            "timezone": stores.timezone,
            "region": stores.settings.region,
            "personal_data": stores.settings.pii,
        },
        "warehouse_identity": warehouse_identity(stores.state),
        "chain": {**asdict(head), "breaks": stores.certificates.breaks()},
        "days": of_days,
        "certificates": certificates,
        "erasures": [
            {
                "erasure_id": erasure.erasure_id,
                "requested_at": erasure.requested_at.isoformat(),
                "completed_at": erasure.completed_at and erasure.completed_at.isoformat(),
            }
            for erasure in stores.erasures.all()
        ],
    }


def is_proven(evidence: Mapping[str, Any]) -> bool:
    """Whether the chain holds and every day is complete: each of its windows, by a certificate in the chain.

    Of no day at all, nothing is proven.
    """
    newest = {facts["window_start"]: facts for facts in evidence["certificates"]}
    return (
        bool(evidence["days"])
        and not evidence["chain"]["breaks"]
        and all(
            day["windows"]
            and all(_is_certified(window, newest.get(window["window_start"])) for window in day["windows"])
            for day in evidence["days"]
        )
    )


def new_key(path: Path) -> Path:
    """Write a new private key to ``path``, for its owner alone, and its public key beside it; return that one's path.

    Raises ``StorageError`` where that cannot be written, or a file is there already.
    """
    key, public_path = Ed25519PrivateKey.generate(), path.with_name(f"{path.name}.pub")
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for name, text in ((path, private), (public_path, public)):
        try:
            with create_file(name, "x+b") as file:
                file.write(text)
        except OSError as error:
            raise StorageError(f"cannot write {name}: {error.strerror}") from error
    return public_path


def signed(evidence: Mapping[str, Any], key: str | None) -> dict[str, Any]:
    """Return evidence with its signature under a private key in PEM. Raises ``SettingsError`` for another key."""
    private = _private_key(key)
    return {
        "evidence": evidence,
        "signature": {
            "algorithm": _ALGORITHM,
            "value": base64.b64encode(private.sign(_bytes(evidence))).decode(),
        },
    }


def public_key_of(key: str | None) -> Ed25519PublicKey:
    """Return the public key of the private one in the settings. Raises ``SettingsError``."""
    return _private_key(key).public_key()


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return the public key in a PEM file. Raises ``SettingsError`` for one that is none."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise SettingsError(f"--public-key: cannot read {path}: {error.strerror}") from error
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"--public-key: {path} is no Ed25519 public key in PEM")
    return key


def read_evidence(path: Path, key: Ed25519PublicKey) -> dict[str, Any]:
    """Return the evidence in a file that ``key`` proves to be as it was signed, and whose certificates hold.

    Raises ``DataError`` for any other file.
    """
    try:
        bundle = json.loads(path.read_bytes())
        evidence: dict[str, Any] = bundle["evidence"]
        signature, certificates = base64.b64decode(bundle["signature"]["value"]), evidence["certificates"]
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no evidence that callhistory has signed") from error
    try:
        key.verify(signature, _bytes(evidence))
    except InvalidSignature as error:
        raise DataError(
            f"{path} was changed since it was signed, or another key has signed it: take the file and the public key "
            "from whom you trust"
        ) from error
    if evidence["evidence_version"] != _VERSION:
        raise DataError(f"{path} was made by another version ({evidence['tool_version']}): use that one to verify it")
    if broken := links(certificates):
        raise DataError(f"{path}: certificate {broken[0]} does not hold: it was no evidence when it was signed")
    return evidence


def compare(stores: Stores, evidence: Mapping[str, Any], now: datetime, on_day: Callable[[date], None]) -> Comparison:
    """Compare evidence with what the stores hold now: the chain, and each day's files and rows. Reads all of them."""
    chain = Head(evidence["chain"]["number"], evidence["chain"]["certificate_hash"])
    certified_since: set[date] = set()
    follows = chain.number == 0
    for certificate in stores.certificates.all():
        if certificate.number == chain.number:
            follows = hash_of(certificate.to_dict()) == chain.certificate_hash
        elif certificate.number > chain.number:
            certified_since.add(certificate.call_date)
    days = []
    for of_day in evidence["days"]:
        day = date.fromisoformat(of_day["call_date"])
        on_day(day)
        changed = _changed(of_day["files"], _files(stores.lake.storage, day))
        check = verify_day(stores, day, now, offline=True)
        finding = _finding(stores, day, changed, check, was_certified=day in certified_since)
        days.append(DayFinding(day, finding, changed, sum(len(window.differences) for window in check.windows)))
    return Comparison(tuple(stores.certificates.breaks()), follows, tuple(days))


def _finding(stores: Stores, day: date, changed: Sequence[str], check: DayCheck, *, was_certified: bool) -> Finding:
    if any(row.status is not WindowStatus.COMPLETE for row in stores.ledger.rows(day, day)):
        return Finding.NOT_PROVEN
    if not check.is_right:
        return Finding.ALTERED
    if not changed:
        return Finding.SAME
    raw = {file.name for file in raw_files(stores.lake.storage, day)}
    # The day is right without a raw copy only where that was kept for long enough.
    if not raw and all(name.startswith("raw/") for name in changed):
        return Finding.RAW_EXPIRED
    return Finding.CERTIFIED_ANEW if was_certified else Finding.WRITTEN_ANEW


def _changed(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of files that are not what they were, are gone or are new."""
    was, is_now = ({file["name"]: file["sha256"] for file in files} for files in (before, now))
    return tuple(sorted(name for name in was.keys() | is_now.keys() if was.get(name) != is_now.get(name)))


def _files(storage: Storage, day: date) -> Iterable[dict[str, Any]]:
    tables = [Lake.file_name(table, day) for table in (CALLS, CALL_PARTICIPANTS)]
    for name in [*tables, *sorted(file.name for file in raw_files(storage, day))]:
        if storage.exists(name):
            size_bytes, found = 0, hashlib.sha256()
            with storage.open(name) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    size_bytes += len(chunk)
                    found.update(chunk)
            yield {"name": name, "size_bytes": size_bytes, "sha256": found.hexdigest()}


def _window(row: LedgerRow) -> dict[str, Any]:
    return {
        "window_start": row.window_start.isoformat(timespec="microseconds"),
        "window_end": row.window_end.isoformat(timespec="microseconds"),
        "status": row.status.value,
        "content_hash": row.content_hash,
        "error": row.error,
    }


def _is_certified(window: Mapping[str, Any], certificate: Mapping[str, Any] | None) -> bool:
    return (
        certificate is not None
        and window["status"] == WindowStatus.COMPLETE
        and window["content_hash"] == certificate["content_hash"]
    )


def _private_key(key: str | None) -> Ed25519PrivateKey:
    if key is None:
        raise SettingsError(
            f"{_SETTING} is not set: callhistory evidence --new-key FILE makes a key; put its path into {_SETTING}_FILE"
        )
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(
            f"{_SETTING} is no Ed25519 private key in PEM without a password: callhistory evidence --new-key FILE "
            "makes one"
        )
    return private


def _bytes(evidence: Mapping[str, Any]) -> bytes:
    """Return what is signed: the JSON with sorted keys, without blanks, ASCII alone."""
    return json.dumps(evidence, sort_keys=True, separators=(",", ":")).encode()
