"""Settings: read from the environment and .env, reported all at once, and silent about secrets."""

import io
import pickle
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from pipelines.settings import Settings, load_settings, settings_reference
from pipelines.settings.endpoints import OPERATIONS
from transforms.errors import SettingsError

KEY_PAIR = {"STRINGEEX_API_KEY_SID": "SKexample", "STRINGEEX_API_KEY_SECRET": "hush-hush"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    for name, _, _ in settings_reference():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def problem_with(name, value):
    with pytest.raises(SettingsError) as caught:
        load_settings(overrides={**KEY_PAIR, name: value})
    assert name in str(caught.value)
    return str(caught.value)


def test_defaults_are_those_that_the_reference_prints(monkeypatch):
    for name, default, _ in settings_reference():
        if default:
            monkeypatch.setenv(name, default)
    written_out = load_settings(overrides=KEY_PAIR)
    for name, _, _ in settings_reference():
        monkeypatch.delenv(name, raising=False)
    by_default = load_settings(overrides=KEY_PAIR)
    plain = {name: getattr(by_default, name) for name in Settings.model_fields if not name.startswith("endpoint_")}
    assert {name: getattr(written_out, name) for name in plain} == plain
    assert by_default.window == timedelta(days=1)
    assert by_default.reread == tuple(timedelta(days=days) for days in (1, 3, 7, 30))


def test_every_setting_is_described_and_every_operation_has_one():
    reference = settings_reference()
    assert all(description for _, _, description in reference)
    assert {operation.setting for operation in OPERATIONS.values()} <= {name for name, _, _ in reference}
    assert all(load_settings(None, require_api=False).operation(name) == OPERATIONS[name] for name in OPERATIONS)


def test_command_before_environment_before_file(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text(
        "STRINGEEX_EMAIL=a@example.com\nSTRINGEEX_PASSWORD=b\nCALLHISTORY_CONCURRENCY=2\n"
        "CALLHISTORY_REGION=us\nCALLHISTORY_PII=masked\nPREFECT_API_URL=unrelated\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("CALLHISTORY_CONCURRENCY", "3")
    monkeypatch.setenv("CALLHISTORY_PII", "plain")
    settings = load_settings(overrides={"CALLHISTORY_PII": "masked"})
    assert (settings.concurrency, settings.region, settings.pii) == (3, "US", "masked")


def test_everything_wrong_is_reported_at_once_without_secrets(monkeypatch, tmp_path):
    (tmp_path / ".env").write_text("CALLHISTORY_CONCURRENCY=many\n", encoding="utf-8")
    monkeypatch.setenv("STRINGEEX_API_KEY_SECRET", "hush-hush")
    monkeypatch.setenv("CALLHISTORY_TIMEZONE", "Mars/Olympus")
    monkeypatch.setenv("CALLHISTORY_WAREHOUSE_URL", "oracle://me:hush-hush@host/db")
    monkeypatch.setenv("CALLHISTORY_PII", "pseudonymised")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    message = str(caught.value)
    for name in (
        "STRINGEEX_API_KEY_SID",
        "CALLHISTORY_TIMEZONE",
        "CALLHISTORY_WAREHOUSE_URL",
        "CALLHISTORY_PII_KEY",
        "CALLHISTORY_CONCURRENCY",
    ):
        assert sum(name in line for line in message.splitlines()[1:]) >= 1, name
    assert "in .env" in message
    assert "in the environment" in message
    assert str(tmp_path / ".env") in message
    assert "hush-hush" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRINGEEX_BASE_URL", "http://api.stringeex.com"),
        ("STRINGEEX_BASE_URL", "http://127.0.0.1.example.com"),
        ("STRINGEEX_BASE_URL", "ftp://api.stringeex.com"),
        ("STRINGEEX_BASE_URL", "https://me:pass@api.stringeex.com"),
        ("STRINGEEX_BASE_URL", "https://api.stringeex.com:port"),
        ("STRINGEEX_PAGE_SIZE", "0"),
        ("STRINGEEX_REQUESTS_PER_HOUR", "-1"),
        ("STRINGEEX_TIMEOUT_SECONDS", "0"),
        ("STRINGEEX_TIMEOUT_SECONDS", "nan"),
        ("STRINGEEX_TOKEN_HOSTS", "https://stringee.com"),
        ("STRINGEEX_TRANSIENT_CODES", "some"),
        ("STRINGEEX_ENDPOINT_HISTORY", "/v1/call/history"),
        ("STRINGEEX_ENDPOINT_HISTORY", "FETCH /v1/call/history"),
        ("STRINGEEX_ENDPOINT_HISTORY", "GET https://elsewhere.example/v1"),
        ("STRINGEEX_ENDPOINT_HISTORY", "GET /v1/call/history?access_token=x"),
        ("STRINGEEX_ENDPOINT_DOWNLOAD_RECORDING", "GET /v1/recording"),
        ("CALLHISTORY_WAREHOUSE_URL", "warehouse.duckdb"),
        ("CALLHISTORY_WAREHOUSE_URL", "duckdb://data/warehouse.duckdb"),
        ("CALLHISTORY_WAREHOUSE_URL", "postgresql://host"),
        ("CALLHISTORY_WAREHOUSE_URL", "postgresql://host:port/db"),
        ("CALLHISTORY_WAREHOUSE_SCHEMA", "a.b"),
        ("CALLHISTORY_LAKE_URL", "s3://"),
        ("CALLHISTORY_TIMEZONE", "../etc/passwd"),
        ("CALLHISTORY_START_DATE", "2026-02-30"),
        ("CALLHISTORY_WINDOW", "5h"),
        ("CALLHISTORY_WINDOW", "2d"),
        ("CALLHISTORY_WINDOW", "0h"),
        ("CALLHISTORY_REREAD", "3d,1d"),
        ("CALLHISTORY_REREAD", "1d,1d"),
        ("CALLHISTORY_REGION", "XX"),
        ("CALLHISTORY_PII", "hidden"),
        ("CALLHISTORY_CONCURRENCY", "0"),
        ("CALLHISTORY_LOG_FORMAT", "yaml"),
        ("CALLHISTORY_STALE_AFTER", "soon"),
        ("CALLHISTORY_NOTIFY_URLS", "someone@example.com"),
        ("CALLHISTORY_NOTIFY_URLS", "hush-hush,slack://a/b/c"),
    ],
)
def test_wrong_values_are_refused_by_name(name, value):
    message = problem_with(name, value)
    assert "should" in message
    assert "hush-hush" not in message


@pytest.mark.parametrize(
    ("given", "normalised"),
    [
        ("postgresql://u:p@host/db", "postgresql+psycopg://u:p@host/db"),
        ("postgres://host/db", "postgresql+psycopg://host/db"),
        ("mysql://host:3307/db?charset=utf8mb4", "mysql+pymysql://host:3307/db?charset=utf8mb4"),
        ("mariadb://host/db", "mariadb+pymysql://host/db"),
        ("sqlite:///calls.db", "sqlite:///calls.db"),
        ("duckdb:////srv/calls.duckdb", "duckdb:////srv/calls.duckdb"),
    ],
)
def test_warehouse_url_names_its_driver(given, normalised):
    from sqlalchemy.engine import make_url

    url = load_settings(overrides={**KEY_PAIR, "CALLHISTORY_WAREHOUSE_URL": given}).warehouse_url.get_secret_value()
    assert url == normalised
    assert make_url(url).get_dialect()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:8080", "https://h/sub/"])
def test_plain_http_stays_on_this_machine(url):
    assert load_settings(overrides={**KEY_PAIR, "STRINGEEX_BASE_URL": url}).base_url == url.rstrip("/")


def test_addresses_to_notify_may_hold_commas_themselves():
    given = "mailto://me:hush@example.com?to=a@example.com,b@example.com, slack://a/b/c"
    urls = load_settings(overrides={**KEY_PAIR, "CALLHISTORY_NOTIFY_URLS": given}).notify_urls
    assert [url.get_secret_value() for url in urls] == given.split(", ")


def test_one_complete_way_to_authenticate():
    with pytest.raises(SettingsError, match="STRINGEEX_API_KEY_SID and STRINGEEX_API_KEY_SECRET: not set"):
        load_settings()
    with pytest.raises(SettingsError, match="STRINGEEX_API_KEY_SECRET: not set; it belongs to STRINGEEX_API_KEY_SID"):
        load_settings(overrides={"STRINGEEX_API_KEY_SID": "SKexample"})
    with pytest.raises(SettingsError, match="both are set"):
        load_settings(overrides={**KEY_PAIR, "STRINGEEX_EMAIL": "a@example.com", "STRINGEEX_PASSWORD": "x"})
    assert load_settings(require_api=False).api_key_sid is None
    assert load_settings(overrides={**KEY_PAIR, "STRINGEEX_EMAIL": ""}).email is None


def test_an_e_mail_beside_an_api_key_was_called_both():
    message = problem_with("STRINGEEX_EMAIL", "a@example.com")
    assert "STRINGEEX_EMAIL (by the command): set beside STRINGEEX_API_KEY_SID and STRINGEEX_API_KEY_SECRET" in message
    assert "both" not in message


@pytest.mark.parametrize("value", ["hush ", " hush", "hush\t"])
def test_a_blank_around_a_secret_was_left_to_the_api_to_refuse(value):
    message = problem_with("STRINGEEX_API_KEY_SECRET", value)
    assert "STRINGEEX_API_KEY_SECRET (by the command): begins or ends with a blank" in message
    assert "hush" not in message


def test_a_line_of_the_file_that_cannot_be_read_is_named_once_and_not_shown(tmp_path, caplog):
    file = tmp_path / "settings.env"
    file.write_text("STRINGEEX_API_KEY_SID=SKexample\nSTRINGEEX_API_KEY_SECRET='hush\nCALLHISTORY_REGION=VN\n")
    with pytest.raises(SettingsError) as raised:
        load_settings(file)
    assert str(raised.value).count("settings.env, line 2: should be NAME=value, each quote closed") == 1
    assert "hush" not in str(raised.value)
    assert caplog.text == ""


def test_a_misspelt_name_is_pointed_out():
    message = problem_with("CALLHISTORY_TIMZONE", "Europe/Paris")
    assert "CALLHISTORY_TIMEZONE is probably meant" in message
    assert load_settings(overrides={**KEY_PAIR, "STRINGEEX_WEBHOOK_OF_ANOTHER_PROGRAM": "x"})


def test_settings_are_frozen_pickle_and_show_no_secret():
    secrets = {
        "STRINGEEX_API_KEY_SECRET": "hush-1",
        "CALLHISTORY_WAREHOUSE_URL": "postgresql://u:hush-2@host/db",
        "CALLHISTORY_PII_KEY": "hush-3",
        "CALLHISTORY_LAKE_URL": "sftp://u:hush-4@host/lake",
        "CALLHISTORY_NOTIFY_URLS": "slack://hush-5/b/c",
    }
    settings = load_settings(overrides={**KEY_PAIR, **secrets, "STRINGEEX_ENDPOINT_STOP": "POST /v2/stop"})
    assert "hush" not in f"{settings!r} {settings}"
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.operation("stop").method == "POST"
    assert settings.operation("stop").fallback_method is None
    with pytest.raises(ValueError, match="frozen"):
        settings.concurrency = 5


def test_unreadable_env_file_is_named(tmp_path):
    (tmp_path / ".env").write_bytes(b"CALLHISTORY_REGION=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings()


def test_importing_the_settings_is_light():
    heavy = "{'sqlalchemy', 'pandas', 'prefect', 'phonenumbers', 'httpx', 'pyarrow'}"
    code = f"import sys, pipelines.settings; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("name", ["CALLHISTORY_WAREHOUSE_URL", "CALLHISTORY_NEW_WAREHOUSE_URL"])
@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
@pytest.mark.parametrize(
    "password",
    ["one@two/three", "one@two", "one/two", "one#two", "one?two", "12/two", "@one", "one@", "one:@two", "a/b@c"],
)
def test_no_piece_of_a_password_that_is_not_escaped_is_shown(name, scheme, password):
    message = problem_with(name, f"{scheme}://somebody:{password}@some.host/some_database")
    message = message.replace(str(Path.cwd()), "here")  # a temporary folder's number may have the same digits
    assert "%40" in message
    for piece in re.split(r"[@/#?:]", password):
        assert len(piece) < 2 or piece not in message
    assert "some.host" not in message


@pytest.mark.parametrize("user", ["some/body", "some@body", "some/body:one"])
def test_no_piece_of_a_user_that_is_not_escaped_is_shown(user):
    message = problem_with("CALLHISTORY_WAREHOUSE_URL", f"postgresql://{user}@some.host/some_database")
    assert "%2F" in message
    assert "body" not in message


@pytest.mark.parametrize("password", ["one:two", "one%40two%2Fthree", "p%25", "[one", "one two"])
def test_a_password_that_can_be_told_is_used_as_it_is(password):
    from urllib.parse import unquote

    from sqlalchemy.engine import make_url

    given = f"postgresql://u:{password}@host:5432/db?sslmode=require"
    url = make_url(
        load_settings(overrides={**KEY_PAIR, "CALLHISTORY_WAREHOUSE_URL": given}).warehouse_url.get_secret_value()
    )
    assert (url.password, url.host, url.port, url.database) == (unquote(password), "host", 5432, "db")


@pytest.mark.parametrize("name", ["CALLHISTORY_LAKE_URL", "CALLHISTORY_ARCHIVE_URL", "CALLHISTORY_REPORT_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "s3://hush-key:hush-hush@bucket/prefix",
        "s3://hush-key@bucket/prefix",
        "gs://hush:hush@bucket",
        "https://hush:hush@host/lake",
        "ftp://u:hush/hush@host/lake",
        "sftp://u:1/hush@host/lake",
        "sftp://u:a@hush/hush@host/lake",
    ],
)
def test_a_key_in_the_address_of_a_storage_is_refused_and_not_shown(name, url):
    message = problem_with(name, url)
    assert "environment" in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("ftp://u:hush@host/lake", "ftp://host/lake"),
        ("ftp://u:hu@sh@host:21/lake", "ftp://host:21/lake"),
        ("memory://bucket/lake?token=hush#hush", "memory://bucket/lake"),
    ],
)
def test_the_address_of_a_storage_is_shown_without_user_password_and_options(url, location, monkeypatch):
    from fsspec.implementations.ftp import FTPFileSystem

    from sinks.storage import Storage

    monkeypatch.setattr(FTPFileSystem, "_connect", lambda self: setattr(self, "ftp", io.StringIO()))
    settings = load_settings(overrides={**KEY_PAIR, "CALLHISTORY_LAKE_URL": url})
    assert Storage(settings.lake_url).location == location
