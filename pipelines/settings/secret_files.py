"""Secrets that lie in files of their own, as containers hand them over: ``NAME_FILE`` names the file of ``NAME``."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from transforms.errors import SettingsError

SUFFIX = "_FILE"


def secret_in(path: str, setting: str) -> str:
    """Return what is in the file, without a line's end. Raises ``SettingsError``, which names ``setting``."""
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise SettingsError(f"{setting}: {path} cannot be read ({reason})") from error
    if not secret:
        raise SettingsError(f"{setting}: {path} is empty")
    return secret


def readable_by_others(env_file: str | os.PathLike[str] | None, secret_names: Iterable[str]) -> Iterator[str]:
    """Yield what to do where ``env_file`` holds one of the secrets and others may read it."""
    if env_file and any(secret_names) and os.stat(env_file).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield f"{os.path.abspath(env_file)} holds secrets, and others on this machine can read it: chmod 600 {env_file}"
