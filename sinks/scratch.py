"""This process's temporary files: one folder, locked for as long as the process lives, and removed with it.

They hold customers' data on its way, so none may stay behind. What a killed process could not remove, the next one
does: a folder whose lock nobody holds belongs to nobody.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from transforms.errors import StorageError

_PREFIX = "callhistory-scratch-"


@cache
def scratch_folder() -> Path:
    """Return this process's folder for temporary files, after those of dead processes are gone.

    Raises ``StorageError`` when the system's folder for temporary files (``TMPDIR``) cannot be written.
    """
    remove_leftovers()
    while True:
        with explained():
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it was opened
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():  # or before it was locked
            break
        os.close(lock)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def remove_leftovers() -> None:
    """Remove the folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another user's, or its owner is just removing it
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the operating system's error on a temporary file into a ``StorageError`` that says what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        raise StorageError(
            f"cannot write temporary files in {tempfile.gettempdir()}: {reason}. "
            "Free some space there, or set TMPDIR to a folder that has more."
        ) from error
