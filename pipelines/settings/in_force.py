"""The settings as they stand: each one's value, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from pipelines.settings import Found, Settings, found_values, load_settings, written
from pipelines.settings.values import read_storage_url

SECRET = "***"  # noqa: S105 - what stands in a secret's place
DEFAULT = "default"
_PLACES = frozenset(
    str(field.validation_alias)
    for field in Settings.model_fields.values()
    if any(getattr(part, "func", None) is read_storage_url for part in field.metadata)
)
"""The settings that name a folder or a bucket."""
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
    settings, found = load_settings(env_file, require_api=False), found_values(env_file)
    return [
        _in_force(str(field.validation_alias), getattr(settings, name), found)
        for name, field in Settings.model_fields.items()
    ]


def _in_force(name: str, value: object, found: Mapping[str, Found]) -> SettingInForce:
    origin = found[name].where if name in found else DEFAULT
    if name == _WAREHOUSE_URL and isinstance(value, SecretStr):
        shown = written(value) if origin == DEFAULT else SECRET
        return SettingInForce(name, shown, origin, _place_of(value))
    if name in _PLACES:
        return SettingInForce(name, SECRET if "@" in str(value) else str(value), origin, _location(str(value)))
    return SettingInForce(name, SECRET if name == _EMAIL and value else _shown(value), origin)


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
