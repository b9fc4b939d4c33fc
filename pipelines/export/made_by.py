"""What decides how rows become tables, as one digest: equal digests and equal rows give equal tables."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from importlib.resources import files

from pipelines.context import Stores
from transforms.hashing import digest

_NUMBERING_PLANS = "phonenumbers"


def made_by(stores: Stores) -> str:
    """Return the digest of the code that makes tables of rows, and of the settings that it heeds.

    Any change of the code is a change, also one of a comment: then each window is made anew once.
    """
    return digest(f"{_code()} {stores.timezone} {stores.settings.region} {stores.settings.pii}".encode())


@cache
def _code() -> str:
    sources = sorted((file for file in files("transforms").iterdir() if file.name.endswith(".py")), key=str)
    parts = [digest(source.read_bytes()) for source in sources]
    return " ".join([*parts, version(_NUMBERING_PLANS)])
