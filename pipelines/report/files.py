"""Writes files of the report so that each is there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from transforms.errors import StorageError


def write_files(contents: Mapping[Path, bytes], what_to_do: str) -> None:
    """Write each file, making its folder; only its owner can read it, since it names people.

    Raises ``StorageError``, with ``what_to_do`` about it, where one cannot be written: then no file is new.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            staged[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        for path in [*staged]:
            staged[path].replace(path)
            del staged[path]
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename2 or error.filename}: {error.strerror}. {what_to_do}"
        ) from error
    finally:
        for leftover in staged.values():
            leftover.unlink(missing_ok=True)
