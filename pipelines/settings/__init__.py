"""Settings: every name, default and meaning, declared once, read from the environment or a ``.env`` file.

`load_settings` is the door: it reports everything that is missing or wrong at once, by name. The object it gives is
frozen, pickles, shows no secret, and is passed on explicitly; nothing else in the package reads the environment.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, cast
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from pipelines.redaction import hide
from pipelines.settings.endpoints import OPERATIONS, Operation
from pipelines.settings.env_file import bad_lines, values_in
from pipelines.settings.secret_files import SUFFIX as FILE_SUFFIX
from pipelines.settings.secret_files import readable_by_others, secret_in
from pipelines.settings.values import (
    read_ages,
    read_base_url,
    read_duration,
    read_hosts,
    read_notify_urls,
    read_region,
    read_retention,
    read_storage_url,
    read_timezone,
    read_transient_codes,
    read_warehouse_url,
    read_window,
    written_duration,
)
from transforms.databases import database_names
from transforms.errors import SettingsError
from transforms.metric_parameters import PARAMETERS

EARLIEST_START_DATE = date(1973, 3, 4)
"""The API's instants are milliseconds, told from seconds by their size: before that day they cannot be."""

_DAY = timedelta(days=1)
_SCHEMA_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
_LOG_FORMAT = "CALLHISTORY_LOG_FORMAT"
_UNSAFE_TO_SHOW = re.compile(r"SECRET|PASSWORD|KEY|EMAIL|URL")


def _pinned(operation_name: str) -> PlainValidator:
    operation = OPERATIONS[operation_name]
    return PlainValidator(lambda value: operation.pinned(str(value)))


def _setting(name: str, default: Any, description: str, **constraints: Any) -> Any:
    return Field(default=default, validation_alias=name, description=description, **constraints)


def _endpoint(operation_name: str) -> Any:
    operation = OPERATIONS[operation_name]
    return _setting(
        operation.setting, operation, f"`METHOD /path` for {operation.description}; setting it also pins the method"
    )


def _metric_parameter(name: str) -> Any:
    parameter = PARAMETERS[name]
    return _setting(parameter.setting, parameter.default, parameter.description, ge=0, le=parameter.most)


class Settings(BaseSettings):
    """Everything a run needs to know. Get one from `load_settings`, which also checks what belongs together."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        case_sensitive=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    base_url: Annotated[str, AfterValidator(read_base_url)] = _setting(
        "STRINGEEX_BASE_URL", "https://api.stringeex.com", "Address of the API"
    )
    api_key_sid: str | None = _setting("STRINGEEX_API_KEY_SID", None, "API key: its SID (`SK...`)")
    api_key_secret: SecretStr | None = _setting("STRINGEEX_API_KEY_SECRET", None, "API key: its secret")
    email: str | None = _setting("STRINGEEX_EMAIL", None, "Portal login, instead of an API key: e-mail", repr=False)
    password: SecretStr | None = _setting("STRINGEEX_PASSWORD", None, "Portal login: password")
    portal: str | None = _setting(
        "STRINGEEX_PORTAL", None, "Portal login: which portal; needed only for an account that has several"
    )
    page_size: int | None = _setting(
        "STRINGEEX_PAGE_SIZE",
        None,
        "Rows to ask for per page; unset: the largest that the server honours",
        ge=1,
        le=10000,
    )
    history_requests_per_10s: int = _setting(
        "STRINGEEX_HISTORY_REQUESTS_PER_10S", 30, "Call history requests per 10 seconds; 0: no limit", ge=0
    )
    requests_per_10s: int = _setting(
        "STRINGEEX_REQUESTS_PER_10S", 300, "Requests of every kind per 10 seconds; 0: no limit", ge=0
    )
    requests_per_hour: int = _setting(
        "STRINGEEX_REQUESTS_PER_HOUR", 9000, "Requests of every kind per hour; 0: no limit", ge=0
    )
    recordings_per_minute: int = _setting(
        "STRINGEEX_RECORDINGS_PER_MINUTE", 30, "Recording downloads per minute; 0: no limit", ge=0
    )
    timeout_seconds: float = _setting(
        "STRINGEEX_TIMEOUT_SECONDS", 30.0, "How long the API may stay silent", gt=0, le=600
    )
    token_lifetime_seconds: int = _setting(
        "STRINGEEX_TOKEN_LIFETIME_SECONDS", 3600, "How long a token made from the API key is valid", ge=60, le=2592000
    )
    token_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_hosts)] = _setting(
        "STRINGEEX_TOKEN_HOSTS",
        ("stringee.com", "stringeex.com"),
        "Hosts, with their sub-domains, that may see the token, besides the host of `STRINGEEX_BASE_URL`",
    )
    recording_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_hosts)] = _setting(
        "STRINGEEX_RECORDING_HOSTS",
        (),
        "Further hosts, with their sub-domains, that recordings are fetched from, without the token",
    )
    transient_codes: Annotated[
        tuple[int, ...] | Literal["negative"], NoDecode, BeforeValidator(read_transient_codes)
    ] = _setting("STRINGEEX_TRANSIENT_CODES", "negative", "Values of `r` worth trying again: `negative`, or a list")
    result_cap: int = _setting(
        "STRINGEEX_RESULT_CAP",
        10000,
        "Rows after which one query stops giving more, so that it is split; 0: none",
        ge=0,
    )
    endpoint_account: Annotated[Operation, NoDecode, _pinned("account")] = _endpoint("account")
    endpoint_history: Annotated[Operation, NoDecode, _pinned("history")] = _endpoint("history")
    endpoint_realtime: Annotated[Operation, NoDecode, _pinned("realtime")] = _endpoint("realtime")
    endpoint_transfer: Annotated[Operation, NoDecode, _pinned("transfer")] = _endpoint("transfer")
    endpoint_stop: Annotated[Operation, NoDecode, _pinned("stop")] = _endpoint("stop")
    endpoint_add_participant: Annotated[Operation, NoDecode, _pinned("add_participant")] = _endpoint("add_participant")
    endpoint_download_recording: Annotated[Operation, NoDecode, _pinned("download_recording")] = _endpoint(
        "download_recording"
    )
    endpoint_delete_recording: Annotated[Operation, NoDecode, _pinned("delete_recording")] = _endpoint(
        "delete_recording"
    )
    endpoint_upload_greeting: Annotated[Operation, NoDecode, _pinned("upload_greeting")] = _endpoint("upload_greeting")

    warehouse_url: Annotated[SecretStr, AfterValidator(read_warehouse_url)] = _setting(
        "CALLHISTORY_WAREHOUSE_URL",
        SecretStr("duckdb:///data/warehouse.duckdb"),
        f"Warehouse, as a SQLAlchemy URL: {database_names()}",
    )
    warehouse_schema: str | None = _setting(
        "CALLHISTORY_WAREHOUSE_SCHEMA",
        None,
        "Schema of the tables, where the database has schemas; unset: its own default",
        pattern=_SCHEMA_NAME,
    )
    new_warehouse_url: Annotated[SecretStr, AfterValidator(read_warehouse_url)] | None = _setting(
        "CALLHISTORY_NEW_WAREHOUSE_URL", None, "The warehouse that `callhistory move` copies everything to"
    )
    new_warehouse_schema: str | None = _setting(
        "CALLHISTORY_NEW_WAREHOUSE_SCHEMA",
        None,
        "Schema of the tables there; unset: its own default",
        pattern=_SCHEMA_NAME,
    )
    lake_url: Annotated[str, AfterValidator(read_storage_url)] = _setting(
        "CALLHISTORY_LAKE_URL",
        "data/lake",
        "Parquet lake: a folder, or an fsspec URL such as s3://bucket/prefix",
        repr=False,
    )
    archive_url: Annotated[str, AfterValidator(read_storage_url)] = _setting(
        "CALLHISTORY_ARCHIVE_URL", "data/recordings", "Recordings: a folder, or an fsspec URL", repr=False
    )
    report_url: Annotated[str, AfterValidator(read_storage_url)] = _setting(
        "CALLHISTORY_REPORT_URL",
        "data/reports",
        "Reports that the flow writes: a folder, or an fsspec URL",
        repr=False,
    )
    timezone: Annotated[ZoneInfo, PlainValidator(read_timezone)] = _setting(
        "CALLHISTORY_TIMEZONE", ZoneInfo("Asia/Ho_Chi_Minh"), "Time zone of local days and hours"
    )
    start_date: date | None = _setting(
        "CALLHISTORY_START_DATE", None, "First local day to export; unset: seven days before the first run, remembered"
    )
    window: Annotated[timedelta, PlainValidator(read_window)] = _setting(
        "CALLHISTORY_WINDOW", _DAY, "Length of an export window: 1d, or a part of a day such as 6h or 1h"
    )
    reread: Annotated[tuple[timedelta, ...], NoDecode, PlainValidator(read_ages)] = _setting(
        "CALLHISTORY_REREAD",
        (_DAY, 3 * _DAY, 7 * _DAY, 30 * _DAY),
        "Ages at which a closed day is read again; after the last it is settled",
    )
    recording_retries: Annotated[tuple[timedelta, ...], NoDecode, PlainValidator(read_ages)] = _setting(
        "CALLHISTORY_RECORDING_RETRIES",
        (timedelta(hours=1), timedelta(hours=6), _DAY, 3 * _DAY, 7 * _DAY),
        "Ages of a call at which a recording that is not there yet is asked for again; after the last it is missing",
    )
    concurrency: int = _setting(
        "CALLHISTORY_CONCURRENCY", 4, "Local days exported, or recordings fetched, side by side", ge=1, le=64
    )
    region: Annotated[str, AfterValidator(read_region)] = _setting(
        "CALLHISTORY_REGION", "VN", "Country of phone numbers written without a country code"
    )
    pii: Literal["plain", "masked", "pseudonymised"] = _setting(
        "CALLHISTORY_PII", "plain", "What becomes of personal data: `plain`, `masked` or `pseudonymised`"
    )
    pii_key: SecretStr | None = _setting(
        "CALLHISTORY_PII_KEY",
        None,
        "Secret key of the list of people who are erased, and of pseudonyms: 16 characters or more, never changed",
    )
    evidence_key: SecretStr | None = _setting(
        "CALLHISTORY_EVIDENCE_KEY",
        None,
        "Private key that signs evidence (Ed25519, PEM): name its file in CALLHISTORY_EVIDENCE_KEY_FILE",
    )
    retention_raw: Annotated[timedelta | None, PlainValidator(read_retention)] = _setting(
        "CALLHISTORY_RETENTION_RAW",
        None,
        "How long the raw copies of days proven complete are kept, such as 90d or 5y; unset: for ever. No replay after",
    )
    retention_recordings: Annotated[timedelta | None, PlainValidator(read_retention)] = _setting(
        "CALLHISTORY_RETENTION_RECORDINGS",
        None,
        "How long audio stays in the archive, such as 90d or 5y; unset: for ever. A legal hold wins",
    )
    service_level_seconds: int = _metric_parameter("service_level_seconds")
    short_abandon_seconds: int = _metric_parameter("short_abandon_seconds")
    repeat_days: int = _metric_parameter("repeat_days")
    fcr_days: int = _metric_parameter("fcr_days")
    recovery_hours: int = _metric_parameter("recovery_hours")
    recovery_list_days: int = _metric_parameter("recovery_list_days")
    talk_includes_hold: int = _metric_parameter("talk_includes_hold")
    log_format: Literal["text", "json"] = _setting(
        _LOG_FORMAT, "text", "What commands and flows write to stderr: `text`, or a JSON object per line"
    )
    stale_after: Annotated[timedelta, PlainValidator(read_duration)] = _setting(
        "CALLHISTORY_STALE_AFTER",
        timedelta(hours=36),
        "How long a closed day may be incomplete, and how old the newest data may get, before it is an alert",
    )
    reject_alert: float = _setting(
        "CALLHISTORY_REJECT_ALERT",
        0.01,
        "Share of a day's rows that cannot be a call from which on it is an alert, if they are five at least",
        ge=0,
        le=1,
    )
    notify_urls: Annotated[tuple[SecretStr, ...], NoDecode, PlainValidator(read_notify_urls)] = _setting(
        "CALLHISTORY_NOTIFY_URLS", (), "Whom to tell of alerts and failed runs: Apprise URLs separated by commas"
    )

    @property
    def metric_parameters(self) -> dict[str, int]:
        """Value of each number that the metrics' definitions depend on."""
        return {name: getattr(self, name) for name in PARAMETERS}

    def operation(self, name: str) -> Operation:
        """Return the operation called ``name`` in `OPERATIONS`, at the endpoint that is configured for it."""
        return cast(Operation, getattr(self, f"endpoint_{name}"))


def load_settings(
    env_file: str | os.PathLike[str] | None = ".env",
    *,
    require_api: bool = True,
    overrides: Mapping[str, str] | None = None,
) -> Settings:
    """Read the settings from ``overrides``, then the environment, then ``env_file``, then the defaults.

    ``overrides`` maps environment names to values as the environment would spell them. With ``require_api`` a
    complete way to authenticate is required. A missing ``env_file`` is no error; an empty value counts as unset.

    A secret may lie in a file of its own, which ``NAME_FILE`` names. From here on no log of this process shows one.

    Raises SettingsError with every missing or wrong value, each by name, with where it was looked for and what
    would be right. No value that may be secret is repeated.
    """
    given = {name: value for name, value in (overrides or {}).items() if value}
    found = found_values(env_file, given)
    given |= {name: found[name].value for name in SECRETS if name + FILE_SUFFIX in found}
    problems = [*bad_lines(env_file), *_incomplete(found, require_api), *_misspelt(found)]
    try:
        settings = cast(Any, Settings)(**given, _env_file=env_file, _env_file_encoding="utf-8")
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        problems += [_describe(str(detail["loc"][0]), detail["msg"], found) for detail in details]
    else:
        problems += _start_date_problems(cast(Settings, settings), found)
    hide(found[name].value for name in SECRETS - _URLS if name in found)
    _warn_once(readable_by_others(env_file, SECRETS & values_in(env_file).keys()))
    if problems:
        looked_in = f"the environment and {os.path.abspath(env_file)}" if env_file else "the environment"
        listing = "".join(f"\n  {problem}" for problem in dict.fromkeys(problems))
        raise SettingsError(f"settings missing or wrong (looked in {looked_in}):{listing}")
    hide(_secrets_of_urls(cast(Settings, settings)))
    return cast(Settings, settings)


SECRETS = frozenset(
    str(field.validation_alias) for field in Settings.model_fields.values() if "SecretStr" in str(field.annotation)
)
"""The settings whose value is shown nowhere."""
_URLS = frozenset({"CALLHISTORY_WAREHOUSE_URL", "CALLHISTORY_NEW_WAREHOUSE_URL", "CALLHISTORY_NOTIFY_URLS"})
"""Secrets of which only a part is one, that others may show without the rest."""

_warned: set[str] = set()


def _warn_once(warnings: Iterable[str]) -> None:
    for warning in warnings:
        if warning not in _warned:
            _warned.add(warning)
            logging.getLogger("callhistory").warning("%s", warning)


def _secrets_of_urls(settings: Settings) -> Iterator[str]:
    """Yield the passwords in addresses, as they stand there and as they are meant."""
    for url in (settings.warehouse_url, settings.new_warehouse_url, *settings.notify_urls):
        if url is not None:
            found = re.match(r"[^:/]+://[^/?#]*?:([^/?#]*)@", url.get_secret_value())
            options = re.findall(r"[?&][^=&]*pass[^=&]*=([^&]*)", url.get_secret_value(), re.IGNORECASE)
            for secret in (*([found[1]] if found else []), *options):
                yield secret
                yield unquote(secret)


def settings_reference() -> list[tuple[str, str, str]]:
    """Return (environment name, default as it would be written, description) of every setting, in order."""
    return [
        (str(field.validation_alias), written(field.default), field.description or "")
        for field in Settings.model_fields.values()
    ]


def log_format(env_file: str = ".env") -> str:
    """Return ``CALLHISTORY_LOG_FORMAT`` as it stands, wrong or not: also what is wrong with settings is logged."""
    try:
        return os.environ.get(_LOG_FORMAT) or values_in(env_file).get(_LOG_FORMAT) or "text"
    except SettingsError:
        return "text"


class Found(NamedTuple):
    """What was found for a setting, and where: ``in .env``, ``in the environment`` or ``by the command``."""

    value: str
    where: str


def found_values(
    env_file: str | os.PathLike[str] | None, overrides: Mapping[str, str] | None = None
) -> dict[str, Found]:
    """Return what is set, by name, settings or not; of several places the one that counts. Raises ``SettingsError``."""
    found: dict[str, Found] = {}
    layers: tuple[tuple[str, Mapping[str, str | None]], ...] = (
        (f"in {env_file}", values_in(env_file)),
        ("in the environment", os.environ),
        ("by the command", overrides or {}),
    )
    for where, values in layers:
        found |= {name: Found(value, where) for name, value in values.items() if value}
    for name in SECRETS:
        file = found.get(name + FILE_SUFFIX)
        if file is not None and name in found:
            raise SettingsError(
                f"{name} ({found[name].where}), {name}{FILE_SUFFIX} ({file.where}): both are set; keep one"
            )
        if file is not None:
            found[name] = Found(secret_in(file.value, name + FILE_SUFFIX), f"in {file.value}")
    return found


def _incomplete(found: Mapping[str, Found], require_api: bool) -> Iterator[str]:
    key_pair = ("STRINGEEX_API_KEY_SID", "STRINGEEX_API_KEY_SECRET")
    login = ("STRINGEEX_EMAIL", "STRINGEEX_PASSWORD")
    started = [pair for pair in (key_pair, login) if any(name in found for name in pair)]
    if require_api and not started:
        yield f"{' and '.join(key_pair)}: not set; set them (or {' and '.join(login)})"
    whole = [pair for pair in started if all(name in found for name in pair)]
    if len(whole) == 2:
        yield f"{' and '.join(key_pair)}, {' and '.join(login)}: both are set; keep one way to authenticate"
    elif whole:
        for name in (name for pair in started if pair not in whole for name in pair if name in found):
            yield f"{name} ({found[name].where}): set beside {' and '.join(whole[0])}; take it out"
    else:
        for pair in started:
            yield from (f"{name}: not set; it belongs to {pair[pair[0] == name]}" for name in pair if name not in found)
    for name in (*key_pair, *login):
        if name in found and found[name].value != found[name].value.strip():
            yield f"{name} ({found[name].where}): begins or ends with a blank; take it out"
    if "CALLHISTORY_PII_KEY" not in found and found.get("CALLHISTORY_PII", Found("", "")).value == "pseudonymised":
        yield "CALLHISTORY_PII_KEY: not set; CALLHISTORY_PII=pseudonymised needs a long random key"


def _start_date_problems(settings: Settings, found: Mapping[str, Found]) -> Iterator[str]:
    start_date, name = settings.start_date, "CALLHISTORY_START_DATE"
    today = datetime.now(settings.timezone).date()
    if start_date is not None and not EARLIEST_START_DATE <= start_date <= today:
        wrong = f"should be a day from {EARLIEST_START_DATE} to today, which is {today} in {settings.timezone.key}"
        yield _describe(name, wrong, found)


def _misspelt(found: Mapping[str, Found]) -> Iterator[str]:
    known = [str(field.validation_alias) for field in Settings.model_fields.values()]
    unset = [name for name in known if name not in found]
    for name in found:
        if name.startswith(("STRINGEEX_", "CALLHISTORY_")) and name.removesuffix(FILE_SUFFIX) not in known:
            for meant in difflib.get_close_matches(name, unset, n=1, cutoff=0.9):
                yield f"{name} ({found[name].where}): no such setting; {meant} is probably meant"


def _describe(name: str, message: str, found: Mapping[str, Found]) -> str:
    wrong = message.removeprefix("Value error, ").removeprefix("Input ")
    value, where = found.get(name, Found("", "its default"))
    shown = "" if _UNSAFE_TO_SHOW.search(name) else f" {value[:60]!r}"
    return f"{name}{shown} ({where}): {wrong}"


def written(value: object) -> str:
    """Return a setting's value as the environment would spell it; a secret as it is."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Operation):
        return value.endpoint
    if isinstance(value, timedelta):
        return written_duration(value)
    if isinstance(value, ZoneInfo):
        return value.key
    if isinstance(value, tuple | frozenset):
        return ",".join(written(part) for part in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
