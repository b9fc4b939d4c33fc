"""Secrets: from files of their own, warned about where others can read them, and in no output whatever goes wrong."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines import redaction
from pipelines.settings import SECRETS, load_settings
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import Close, Status
from tests.e2e.command import Finished, account, callhistory, callhistory_here
from tests.exports import FIRST

CANARY = "canary-that-nobody-may-see"
DAY = ("--from", str(FIRST), "--to", str(FIRST))


@pytest.fixture(scope="module")
def server() -> Iterator[SimulatedPortal]:
    calls = generate(seed=3, start_date=FIRST, days=1, calls_total=12, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        yield server


@pytest.fixture
def run(server: SimulatedPortal, tmp_path: Path) -> Callable[..., Finished]:
    def run(*arguments: str, without: str = "", **settings: str) -> Finished:
        found = account(server.base_url, **settings)
        found.pop(without, None)
        return callhistory(*arguments, cwd=tmp_path, settings=found)

    return run


def test_a_secret_may_lie_in_a_file(run: Callable[..., Finished], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{CREDENTIALS.api_key_secret}\n")
    name = "STRINGEEX_API_KEY_SECRET"
    from_file = {"without": name, f"{name}_FILE": str(file)}
    assert run("backfill", *DAY, **from_file).exit_code == 0
    shown = run("config", "show", **from_file).stdout
    assert f"{name}=***  # in {file}" in shown
    assert CREDENTIALS.api_key_secret not in shown

    both = run("status", **{f"{name}_FILE": str(file)})
    assert (both.exit_code, "both are set; keep one" in both.output) == (2, True)
    for content, said in ((None, "cannot be read (No such file or directory)"), ("\n", "is empty")):
        file.unlink() if content is None else file.write_text(content)
        refused = run("status", **from_file)
        assert (refused.exit_code, f"{name}_FILE: {file} {said}" in refused.output) == (2, True), refused.output


def test_a_database_url_may_lie_in_a_file(run: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "url").write_text("sqlite:///data/of-a-file.sqlite")
    assert run("backfill", *DAY, CALLHISTORY_WAREHOUSE_URL_FILE="url").exit_code == 0
    assert (tmp_path / "data/of-a-file.sqlite").is_file()


def test_a_env_file_that_others_can_read_is_warned_of_once(run: Callable[..., Finished], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("CALLHISTORY_REGION=VN\n")
    file.chmod(0o644)
    assert run("backfill", *DAY).stderr.count("chmod") == 0, "it holds no secret"
    file.write_text(f"STRINGEEX_API_KEY_SECRET={CREDENTIALS.api_key_secret}\n")
    warned = run("status")
    assert warned.exit_code == 0
    assert warned.stderr == f"{file} holds secrets, and others on this machine can read it: chmod 600 .env\n"
    file.chmod(0o600)
    assert run("status").stderr == ""


REFUSALS: dict[str, dict[str, str]] = {
    "secret": {"STRINGEEX_API_KEY_SECRET": CANARY},
    "password": {
        "STRINGEEX_EMAIL": "canary@example.com",
        "STRINGEEX_PASSWORD": CANARY,
        "STRINGEEX_API_KEY_SID": "",
        "STRINGEEX_API_KEY_SECRET": "",
    },
    "PostgreSQL away": {"CALLHISTORY_WAREHOUSE_URL": f"postgresql://user:{CANARY}@127.0.0.1:1/calls"},
    "MariaDB away": {"CALLHISTORY_WAREHOUSE_URL": f"mysql://user:{CANARY}@127.0.0.1:1/calls"},
    "storage away": {"CALLHISTORY_LAKE_URL": f"ftp://user:{CANARY}@127.0.0.1:1/lake"},
    "wrong URL": {"CALLHISTORY_WAREHOUSE_URL": f"postgresql://user:{CANARY}@host:port/calls"},
    "nobody told": {"CALLHISTORY_NOTIFY_URLS": f"json://user:{CANARY}@127.0.0.1:1/", "CALLHISTORY_START_DATE": "1"},
}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_no_failure_shows_a_secret_even_with_its_traceback(
    server: SimulatedPortal, tmp_path: Path, refusal: str, log_format: str
) -> None:
    settings = account(server.base_url, CALLHISTORY_LOG_FORMAT=log_format) | REFUSALS[refusal]
    for command in (("export",), ("check",), ("alerts", "--notify")):
        done = callhistory_here(*command, "--debug", "--verbose", cwd=tmp_path, settings=settings)
        assert CANARY not in done.output
        assert "canary@example.com" not in done.output
    assert done.output


def test_a_notification_that_cannot_be_delivered_shows_no_secret(run: Callable[..., Finished]) -> None:
    url = f"json://user:{CANARY}@127.0.0.1:1/"
    assert run("backfill", *DAY).exit_code == 0
    done = run("alerts", "--notify", "--debug", "--verbose", CALLHISTORY_NOTIFY_URLS=url, CALLHISTORY_STALE_AFTER="1h")
    assert done.exit_code == 3
    assert CANARY not in done.output


@pytest.mark.usefixtures("retries_at_once")
@pytest.mark.parametrize("fault", [Status(status=500), Close()], ids=["500", "close"])
def test_a_failing_portal_has_no_token_shown(server: SimulatedPortal, tmp_path: Path, fault: Status | Close) -> None:
    server.portal.faults.append(fault)
    try:
        done = callhistory_here("check", "--debug", "--verbose", cwd=tmp_path, settings=account(server.base_url))
    finally:
        server.portal.faults.clear()
    assert done.exit_code == 1
    for secret in (CREDENTIALS.api_key_secret, "eyJ"):
        assert secret not in done.output


def _logged(settings_of: dict[str, str]) -> str:
    """Return what somebody's library writes into a log that knows nothing of secrets."""
    load_settings(None, overrides=settings_of, require_api=False)
    stream, logger = io.StringIO(), logging.getLogger("a_library")
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    try:
        for value in settings_of.values():
            logger.error("connecting with %s", value)
            logger.error("connecting with " + value)
            try:
                raise ValueError(value)
            except ValueError:
                logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


LEAKING = {
    "STRINGEEX_API_KEY_SECRET": f"{CANARY}-1",
    "STRINGEEX_PASSWORD": f"{CANARY}-2",
    "CALLHISTORY_PII_KEY": f"{CANARY}-3",
    "CALLHISTORY_WAREHOUSE_URL": f"postgresql://user:{CANARY}-4%2F@host/db?sslpassword={CANARY}-5",
    "CALLHISTORY_NOTIFY_URLS": f"json://user:{CANARY}-6@host/",
    "CALLHISTORY_EVIDENCE_KEY": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
}


def test_the_second_wall_stands_and_is_seen_when_it_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = [{name: value} for name, value in LEAKING.items() if name != "STRINGEEX_PASSWORD"]
    one_by_one.append({"STRINGEEX_PASSWORD": LEAKING["STRINGEEX_PASSWORD"], "STRINGEEX_EMAIL": "a@example.com"})
    one_by_one[0]["STRINGEEX_API_KEY_SID"] = "SK1"
    for settings in one_by_one:
        said = _logged(settings)
        assert CANARY not in said, said
        assert "***" in said
    assert set(LEAKING) | {"CALLHISTORY_NEW_WAREHOUSE_URL"} == SECRETS
    monkeypatch.setattr(redaction, "hide", lambda _: None)
    monkeypatch.setattr(redaction, "_secrets", set[str]())
    monkeypatch.setattr("pipelines.settings.hide", lambda _: None)
    assert all(CANARY in _logged(settings) for settings in one_by_one)
