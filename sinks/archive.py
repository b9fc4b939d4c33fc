"""The archive's files: ``call_date=YYYY-MM-DD/<safe call id>.<ext>``, and beside each a JSON of the call's facts.

The JSON is published first and the audio last, so whoever sees a recording finds its facts, whose ``sha256`` proves it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, BinaryIO

from sinks.storage import Storage
from transforms.errors import StorageError
from transforms.json_text import iso

SIDECAR_SUFFIX = ".json"

_PROVIDERS_ID = re.compile(r"call-[a-z]{1,8}-[0-9]{1,4}-[A-Z0-9]{1,32}-[0-9]{1,20}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_SLUG_CHARACTERS, _HASH_DIGITS = 60, 32
_CHUNK_BYTES = 1 << 20


def safe_name(call_id: str) -> str:
    """Return a file name, without extension, that no other call id has: on no file system, and in no case.

    The provider's own form of id is kept. Any other one becomes what is harmless of it, ``~`` and 128 bits of its
    hash: nothing is left of a path, of what some file systems cannot spell, or of more characters than they allow.
    """
    if _PROVIDERS_ID.fullmatch(call_id):
        return call_id
    digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{_UNSAFE.sub('_', call_id)[:_SLUG_CHARACTERS]}~{digest[:_HASH_DIGITS]}"


def archive_path(call_id: str, call_date: date, extension: str) -> str:
    """Return the name of a recording, relative to the archive; ``extension`` comes without a dot."""
    return f"call_date={call_date.isoformat()}/{safe_name(call_id)}.{extension}"


@dataclass(frozen=True)
class Digest:
    """What proves a file: its size, and its SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


class Archive:
    """Recordings in a folder or bucket."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @contextmanager
    def incoming(self) -> Iterator[BinaryIO]:
        """Open an empty file for a recording that is on its way; see `publish`."""
        with self.storage.incoming() as file:
            yield file

    def publish(self, file: BinaryIO, path: str, facts: Mapping[str, Any]) -> None:
        """Publish the facts, and then the audio that was received into ``file``, under ``path``.

        Raises ``StorageError``. Cut off in between, there are facts without audio, which say nothing.
        """
        with self.storage.incoming() as sidecar:
            sidecar.write(json.dumps(facts, ensure_ascii=False, indent=1, default=iso).encode() + b"\n")
            self.storage.publish_incoming(sidecar, path + SIDECAR_SUFFIX)
        self.storage.publish_incoming(file, path)

    def remove(self, path: str) -> None:
        """Delete a recording, and what lies beside it; what is not there is no matter.

        The audio goes first: cut off in between, there are facts without audio, which say nothing.
        """
        self.storage.remove(path)
        self.storage.remove(path + SIDECAR_SUFFIX)

    def facts(self, path: str) -> dict[str, Any] | None:
        """Return what is beside the recording ``path``; null where that is nothing usable."""
        try:
            with self.storage.open(path + SIDECAR_SUFFIX) as file:
                facts = json.loads(file.read())
        except (FileNotFoundError, ValueError):
            return None
        return facts if isinstance(facts, dict) else None

    def digest(self, path: str) -> Digest | None:
        """Read a recording back, in constant memory; null when there is none.

        Raises ``StorageError`` when it cannot be read.
        """
        digest, size = hashlib.sha256(), 0
        try:
            with self.storage.open(path) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"cannot read {path} in {self.storage.location}: {type(error).__name__}.") from error
        return Digest(size, digest.hexdigest())
