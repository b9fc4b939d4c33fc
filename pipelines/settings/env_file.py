"""The ``.env`` file: its values, and the lines that say nothing that could be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

from transforms.errors import SettingsError

# What dotenv warns of, three times and without the file's name, is said here once.
logging.getLogger("dotenv.main").setLevel(logging.ERROR)


def values_in(env_file: str | os.PathLike[str] | None) -> dict[str, str | None]:
    """Return the values of the file, none where there is no file. Raises ``SettingsError`` when it cannot be read."""
    from dotenv import dotenv_values

    try:
        return dotenv_values(env_file, encoding="utf-8") if env_file and os.path.exists(env_file) else {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{env_file} cannot be read ({type(error).__name__}): make it a readable UTF-8 file"
        ) from error


def bad_lines(env_file: str | os.PathLike[str] | None) -> Iterator[str]:
    """Yield, for each line of a readable file that is no setting, what is wrong: never what is in it."""
    from dotenv.parser import parse_stream

    if env_file and os.path.exists(env_file):
        with open(env_file, encoding="utf-8") as stream:
            for binding in parse_stream(stream):
                if binding.error:
                    yield f"{env_file}, line {binding.original.line}: should be NAME=value, each quote closed"
