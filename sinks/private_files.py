"""Files and folders that hold people: for their owner alone, whatever the umask.

A folder that was given to a group (``chmod g+s``, the usual sign of a shared folder) shares with that group what is
written below it. Nobody else ever reads it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

UMASK = 0o077
"""For what other libraries write beside: logs of a database, and temporary files."""

_OWNER_FILE, _GROUP_FILE = 0o600, 0o640
_OWNER_FOLDER, _GROUP_FOLDER = 0o700, 0o2750


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing; one that is there stays as it is. Raises ``OSError``."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(mode=_OWNER_FOLDER, exist_ok=True)
    _set_rights(folder, _GROUP_FOLDER if _is_shared(folder.parent) else _OWNER_FOLDER)


def create_file(path: Path, mode: str) -> BinaryIO:
    """Open a file to write, ``wb`` or ``x+b``; one that is there with other rights gets these. Raises ``OSError``."""
    file = open(path, mode, opener=lambda name, flags: os.open(name, flags, _OWNER_FILE))  # noqa: SIM115
    restrict(path)
    return cast(BinaryIO, file)


def restrict(path: Path) -> None:
    """Give a file that somebody else has written the rights that its folder asks for."""
    _set_rights(path, _GROUP_FILE if _is_shared(path.parent) else _OWNER_FILE)


def is_open_to_all(path: Path) -> bool:
    """Whether any user of this machine may read the file or folder, as far as it decides that itself."""
    return bool(path.stat().st_mode & stat.S_IROTH)


def _set_rights(path: Path, mode: int) -> None:
    # Not every file system keeps rights (a share has those of its mount), and another user's file keeps its own:
    # neither is a reason to withhold a day, and `check` tells what every user can read.
    with suppress(PermissionError):
        path.chmod(mode)


def _is_shared(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_ISGID)
