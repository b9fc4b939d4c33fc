"""What a setting may hold: each reader takes the text as it was found, and says what would be right (ValueError)."""

from __future__ import annotations

import itertools
import re
from datetime import timedelta
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from transforms.databases import SCHEMES, database_names

_DAY = timedelta(days=1)
_DURATION_UNITS = {"d": _DAY, "h": timedelta(hours=1), "m": timedelta(minutes=1)}
_BUCKETS = frozenset({"s3", "s3a", "gs", "gcs", "oss", "r2"})
"""Storages whose URL names a bucket, and never a user."""
_SERVERS = frozenset({"ftp", "sftp", "ssh", "smb"})
"""Storages whose URL may name a user and a password."""
_ESCAPES = "in a user name or a password, write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 and % as %25"


def is_loopback(host: str) -> bool:
    """Whether a host name or address stays on this machine (``localhost``, 127.0.0.0/8, ``::1``)."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def read_base_url(value: str) -> str:
    """Read the address of the API, without a slash at its end."""
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("should be a URL such as https://api.stringeex.com") from error
    if parts.scheme not in ("https", "http") or not host:
        raise ValueError("should be a URL such as https://api.stringeex.com")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("should start with https:// (plain http is for this machine only, such as http://127.0.0.1)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("should hold no user, password, query or fragment, such as https://api.stringeex.com")
    return value.rstrip("/")


def read_warehouse_url(value: SecretStr) -> SecretStr:
    """Read a SQLAlchemy URL and name its driver.

    What could be a piece of a password in another part of the URL is refused: SQLAlchemy takes the password to end
    at the first ``@``, and would call the rest of it a host, a database or an option, which messages show.
    """
    scheme, separator, rest = value.get_secret_value().strip().partition("://")
    database = SCHEMES.get(scheme)
    if not separator or database is None:
        raise ValueError(f"should be a SQLAlchemy URL of {database_names()}, such as duckdb:///data/warehouse.duckdb")
    if database.is_file:
        if not rest.startswith("/") or not rest.partition("?")[0].strip("/"):
            raise ValueError(f"should name a file after three slashes, such as {database.name}:///data/warehouse.db")
        return SecretStr(f"{database.scheme}://{rest}")
    address = _without_user(rest)
    try:
        parts = urlsplit(f"//{address}")
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"should hold a host and a numeric port; {_ESCAPES}") from error
    if not parts.path.strip("/"):
        raise ValueError(f"should name a database, such as {scheme}://user:password@host/database")
    return SecretStr(f"{database.scheme}://{rest}")


def _without_user(rest: str) -> str:
    """Return what stands behind the user and the password; raises ValueError if that cannot be told for certain."""
    user, _, address = rest.rpartition("@")
    if any(sign in user for sign in "@/?#"):
        raise ValueError(f"should show where the password ends: {_ESCAPES}")
    return address


def read_storage_url(value: str) -> str:
    """Read a folder or an fsspec URL, without a slash at its end."""
    scheme, separator, rest = value.partition("://")
    if separator and (not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or not rest.strip("/")):
        raise ValueError("should be a folder, or a URL such as s3://bucket/prefix")
    if scheme == "http" and separator:
        raise ValueError("should be a folder, or a URL such as s3://bucket/prefix; http cannot be written to")
    if separator:
        _require_no_keys(scheme, rest)
    return value.rstrip("/") or "/"


def _require_no_keys(scheme: str, rest: str) -> None:
    """Refuse keys that fsspec would take for a bucket's name, and what cannot be told from a password."""
    place, _, behind = rest.partition("/")
    if scheme in _SERVERS:
        try:
            _ = urlsplit(f"//{place}").port
            is_certain = "@" not in behind or not {"@", ":"} & set(place)
        except ValueError:
            is_certain = False
        if not is_certain:
            name = f"FSSPEC_{scheme.upper()}"
            raise ValueError(
                f"should be a URL such as {scheme}://host/folder: a password with /, ? or # belongs into the "
                f"environment ({name}_USERNAME and {name}_PASSWORD)"
            )
    elif "@" in place and (scheme in _BUCKETS or ":" in place):
        raise ValueError(
            f"should hold no key and no password, such as {scheme}://bucket/prefix: they belong into the environment "
            "(for s3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )


def read_duration(value: object) -> timedelta:
    """Read a duration such as ``1d``, ``6h`` or ``30m``; raises ValueError, saying what would be right."""
    match = re.fullmatch(r"(\d{1,4})([dhm])", value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError("should be a duration such as 1d, 6h or 1h")
    return int(match[1]) * _DURATION_UNITS[match[2]]


def read_retention(value: object) -> timedelta:
    """Read how long something is kept, such as ``90d`` or ``5y``; a year has 366 days, so nothing goes too early."""
    match = re.fullmatch(r"(\d{1,4})([dy])", value.strip()) if isinstance(value, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError("should be a number of days or years, such as 90d or 5y")
    return int(match[1]) * (_DAY if match[2] == "d" else 366 * _DAY)


def written_duration(duration: timedelta) -> str:
    """Return a duration as `read_duration` reads it."""
    unit, length = next((unit, length) for unit, length in _DURATION_UNITS.items() if not duration % length)
    return f"{duration // length}{unit}"


def read_window(value: object) -> timedelta:
    """Read the length of a window, which divides a day."""
    duration = read_duration(value)
    if _DAY % duration:
        raise ValueError("should divide a day, such as 1d, 6h or 1h")
    return duration


def _comma_separated(value: object) -> list[str]:
    return [part.strip() for part in str(value).split(",") if part.strip()]


def read_ages(value: object) -> tuple[timedelta, ...]:
    """Read ascending durations."""
    try:
        ages = tuple(map(read_duration, _comma_separated(value)))
    except ValueError as error:
        raise ValueError("should be ascending durations such as 1d,3d,7d,30d") from error
    if any(later <= earlier for earlier, later in itertools.pairwise(ages)):
        raise ValueError("should be ascending durations such as 1d,3d,7d,30d")
    return ages


def read_notify_urls(value: object) -> tuple[SecretStr, ...]:
    """Read addresses as Apprise writes them; a comma or white space before the next scheme parts them."""
    urls = re.split(r"[,\s]+(?=[a-z][a-z0-9+-]*://)", str(value).strip(" ,"), flags=re.IGNORECASE)
    if not all(re.match(r"[a-z][a-z0-9+-]*://.", url, re.IGNORECASE) for url in urls):
        raise ValueError("should be addresses as Apprise writes them, separated by commas, such as mailto://...")
    return tuple(map(SecretStr, urls))


def read_timezone(value: object) -> ZoneInfo:
    """Read the name of a time zone."""
    if isinstance(value, ZoneInfo):
        return value
    try:
        return ZoneInfo(str(value))
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("should be a time zone of the IANA database, such as Asia/Ho_Chi_Minh") from error


def read_region(value: str) -> str:
    """Read the two letters of a country with phone numbers, in capitals."""
    from phonenumbers import SUPPORTED_REGIONS

    if value.upper() not in SUPPORTED_REGIONS:
        raise ValueError("should be the two letters of a country with phone numbers, such as VN")
    return value.upper()


def read_hosts(value: object) -> tuple[str, ...]:
    """Read host names, in small letters."""
    hosts = tuple(host.lower() for host in _comma_separated(value))
    if any(not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", host) for host in hosts):
        raise ValueError("should be host names separated by commas, such as stringee.com,stringeex.com")
    return hosts


def read_transient_codes(value: object) -> tuple[int, ...] | Literal["negative"]:
    """Read values of ``r``, or the word for all that are negative."""
    if value == "negative":
        return "negative"
    try:
        return tuple(int(code) for code in _comma_separated(value))
    except ValueError as error:
        raise ValueError("should be `negative`, or whole numbers separated by commas") from error
