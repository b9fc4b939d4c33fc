"""The settings as they stand: each one's value, and where it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pipelines.settings import Settings, load_settings, written
from pipelines.settings.env_file import values_in

SECRET = "***"  # noqa: S105 - what stands in a secret's place
_DEFAULT = "default"
_PLACES = frozenset({"CALLHISTORY_LAKE_URL", "CALLHISTORY_ARCHIVE_URL"})
_WAREHOUSE_URL = "CALLHISTORY_WAREHOUSE_URL"
_EMAIL = "STRINGEEX_EMAIL"


@dataclass(frozen=True)
class SettingInForce:
    """A setting: ``value`` as it would be written, secrets and the e-mail address as ``***``.

    ``origin`` says where it came from, ``means`` which place it names, if any.
    """

    name: str
    value: str
    origin: str
    means: str = ""


def settings_in_force(env_file: str | None = ".env") -> list[SettingInForce]:
    """Return every setting, in the order of the reference. Raises ``SettingsError`` when one is wrong."""
    return list(_each(load_settings(env_file, require_api=False), env_file))


def _each(settings: Settings, env_file: str | None) -> Iterator[SettingInForce]:
    in_file = values_in(env_file)
    for field_name, field in Settings.model_fields.items():
        name, value = str(field.validation_alias), getattr(settings, field_name)
        origin = _DEFAULT
        if os.environ.get(name):
            origin = "environment"
        elif in_file.get(name):
            origin = os.path.abspath(str(env_file))
        if name == _WAREHOUSE_URL:
            yield SettingInForce(
                name, SECRET if origin != _DEFAULT else written(field.default), origin, _place_of(value)
            )
        elif name in _PLACES:
            yield SettingInForce(name, value if "@" not in value else SECRET, origin, _location(value))
        else:
            yield SettingInForce(name, SECRET if name == _EMAIL and value else _shown(value), origin)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return SECRET
    if isinstance(value, tuple) and value and all(isinstance(part, SecretStr) for part in value):
        return ",".join([SECRET] * len(value))
    return written(value)


def _place_of(url: SecretStr) -> str:
    """Return the database without its user's password, and the file's whole path where it is one."""
    from sinks.dialects import backend_for

    backend = backend_for(url.get_secret_value(), 1.0)
    if backend.is_embedded:
        return str(Path(backend.url.database or "").absolute())
    return backend.label


def _location(url: str) -> str:
    from sinks.storage import Storage

    return Storage(url).location
