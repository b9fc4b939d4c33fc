"""``CALLHISTORY_LOG_FORMAT=json``: one object per line of stderr, with the ids of its run, day and window."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.logging.handlers import PrefectConsoleHandler

from pipelines.logs import IDS, JsonLinesHandler, LoggedLines, log_context, set_up_logs
from pipelines.simulator import CREDENTIALS, NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator import faults as fault
from pipelines.windows import day_bounds
from tests.e2e.command import account, callhistory, callhistory_here
from tests.exports import FIRST, ZONE, range_ms
from transforms.errors import SettingsError

DAYS = 3
LAST = FIRST + timedelta(days=DAYS - 1)
JSON_LOGS = {"CALLHISTORY_LOG_FORMAT": "json"}


def objects(stderr: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stderr.splitlines()]
    assert all({"timestamp", "level", "logger", "message"} <= line.keys() for line in lines)
    return lines


@pytest.fixture
def lines() -> Iterator[Any]:
    """Have this process log as JSON; returns a function that reads what it has logged since."""
    stream, level = io.StringIO(), logging.root.level
    of_prefect = [handler for handler in logging.root.handlers if isinstance(handler, PrefectConsoleHandler)]
    set_up_logs("json", verbose=True, stream=stream)

    def read() -> list[dict[str, Any]]:
        text = stream.getvalue()
        stream.truncate(0)
        stream.seek(0)
        return objects(text)

    yield read
    set_up_logs("text")
    logging.root.setLevel(level)
    assert not any(isinstance(handler, JsonLinesHandler) for handler in logging.root.handlers)
    for handler in of_prefect:
        logging.root.addHandler(handler)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def test_every_line_of_a_run_is_an_object_with_its_ids_and_nobodys_data(tmp_path: Path) -> None:
    portal = Portal(generate(5, FIRST, DAYS, 400, late_arrival_share=0), PortalOptions(rate_limits=NO_LIMITS))
    rows = portal.rows(*range_ms(FIRST, LAST))
    refused_ms = int(day_bounds(LAST, ZONE)[0].timestamp() * 1000)
    portal.faults += [
        fault.Status(count=1),
        fault.Envelope(r=7, message=f"no {rows[0]['id']}", when=lambda request: str(refused_ms) in str(request.query)),
    ]
    settings = JSON_LOGS | {"STRINGEEX_PAGE_SIZE": "50", "CALLHISTORY_CONCURRENCY": "3"}
    with SimulatedPortal(portal) as server:
        arguments = ("backfill", "--from", str(FIRST), "--to", str(LAST), "--json", "--verbose")
        done = callhistory(*arguments, cwd=tmp_path, settings=account(server.base_url, **settings))
    assert done.exit_code == 3, done.stderr
    lines = objects(done.stderr)

    windows = {str(FIRST + timedelta(days=n)): day_bounds(FIRST + timedelta(days=n), ZONE) for n in range(DAYS)}
    of_windows = [line for line in lines if "window_start" in line]
    for line in of_windows:
        assert line["run_id"] == done.json["run_id"]
        assert (line["window_start"], line["window_end"]) == tuple(i.isoformat() for i in windows[line["call_date"]])
    ends = {line["call_date"]: line["step"] for line in of_windows if line.get("step") in ("committed", "failed")}
    assert ends == dict.fromkeys(windows, "committed") | {str(LAST): "failed"}
    requests = [line for line in lines if line["logger"] == "httpx"]
    assert len(requests) >= len(rows) / 50
    assert all(set(IDS) <= line.keys() for line in requests)
    assert any("trying again" in line["message"] and set(IDS) <= line.keys() for line in lines)

    personal = {text for text in strings(rows) if len(text) >= 8 and not text.isalpha()}
    secrets = {CREDENTIALS.api_key_secret, CREDENTIALS.api_key_sid, "eyJ"}
    assert len(personal) > 500
    assert {text for text in personal | secrets if text in done.stderr} == set()


def test_without_verbose_each_window_is_a_line_and_libraries_are_silent(tmp_path: Path) -> None:
    portal = Portal(generate(5, FIRST, 1, 50, late_arrival_share=0), PortalOptions(rate_limits=NO_LIMITS))
    with SimulatedPortal(portal) as server:
        arguments = ("backfill", "--from", str(FIRST), "--to", str(FIRST))
        done = callhistory(*arguments, cwd=tmp_path, settings=account(server.base_url, **JSON_LOGS))
    assert done.exit_code == 0, done.stderr
    [line] = objects(done.stderr)
    assert (line["step"], line["rows_read"], line["call_date"]) == ("committed", 50, str(FIRST))


def test_what_a_library_prints_in_a_command_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Any
) -> None:
    def chatty(**_: Any) -> None:
        print("hello stderr", file=sys.stderr)
        print("hello stdout")
        raise SettingsError("enough")

    monkeypatch.setattr("pipelines.settings.load_settings", chatty)
    done = callhistory_here("status", "--json", cwd=tmp_path, settings=JSON_LOGS)
    assert done.json["error"] == "enough"
    assert [line["message"] for line in objects(done.stderr)] == ["hello stderr", "hello stdout", "error: enough"]


@pytest.mark.parametrize(
    ("arguments", "settings", "error_type", "logs"),
    [
        (["export"], {}, "SettingsError", 1),
        (["nonsense"], {}, "UsageError", 1),
        (["export", "--debug"], {"CALLHISTORY_WINDOW": "7x"}, "SettingsError", 2),
    ],
)
def test_errors_are_objects_too(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], error_type: str, logs: int
) -> None:
    done = callhistory(*arguments, cwd=tmp_path, settings=JSON_LOGS | settings)
    assert done.exit_code == 2
    lines = objects(done.stderr)
    assert len(lines) == logs
    assert (lines[-1]["level"], lines[-1]["error_type"]) == ("ERROR", error_type)
    assert lines[-1]["message"].startswith("error: ")
    assert "Traceback" in lines[0].get("traceback", "") or logs == 1


def test_a_wrong_format_is_told_in_text_and_by_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CALLHISTORY_LOG_FORMAT=yaml\n")
    done = callhistory("status", cwd=tmp_path, settings={})
    assert done.exit_code == 2
    assert "CALLHISTORY_LOG_FORMAT 'yaml' (in .env)" in done.stderr


def test_ids_are_those_of_the_innermost_context_of_the_same_thread(lines: Any) -> None:
    log = logging.getLogger("somebody")
    start = datetime(2026, 1, 5, tzinfo=UTC)
    with log_context(run_id="run-1", call_date=date(2026, 1, 5)):
        with log_context(window_start=start):
            log.warning("inside")
            thread = threading.Thread(target=log.warning, args=("elsewhere",))
            thread.start()
            thread.join()
        log.warning("around")
    log.warning("outside")
    found = {line["message"]: {name: line[name] for name in IDS if name in line} for line in lines()}
    day = {"run_id": "run-1", "call_date": "2026-01-05"}
    assert found == {
        "inside": day | {"window_start": "2026-01-05T00:00:00+00:00"},
        "elsewhere": {},
        "around": day,
        "outside": {},
    }


def test_what_an_exception_or_a_library_quotes_stays_out(lines: Any) -> None:
    try:
        raise ValueError("row +84900000001")
    except ValueError:
        logging.getLogger("somebody").exception("it failed", extra={"stamina.args": ("+84900000002",)})
    [line] = lines()
    assert "ValueError" in line["exc_info"]
    assert "test_logs.py" in line["exc_info"]
    assert "+8490000000" not in json.dumps(line)


def test_what_is_printed_becomes_lines(lines: Any) -> None:
    print("one\ntw", end="", file=LoggedLines("stderr"))
    stream = LoggedLines("stdout")
    print("one\n\ntw", end="", file=stream)
    print("o", file=stream)
    assert [(line["logger"], line["message"]) for line in lines()] == [
        ("callhistory.stderr", "one"),
        ("callhistory.stdout", "one"),
        ("callhistory.stdout", "two"),
    ]


@pytest.mark.parametrize("prefect_first", [True, False])
def test_prefects_own_lines_are_objects_with_ids(tmp_path: Path, prefect_first: bool) -> None:
    """Whether Prefect has set up its logs before ours, as in a worker's process, or does so later."""
    prefects = "from prefect.logging.configuration import setup_logging; setup_logging()"
    steps = [prefects, "import pipelines.logs as logs; logs.set_up_logs('json')"]
    code = "\n".join(
        [
            *(steps if prefect_first else reversed(steps)),
            "import logging",
            "with logs.log_context(run_id='run-1'):",
            "    logging.getLogger('prefect.flow_runs').info('hello %s', 'flow')",
            "    logging.getLogger('prefect.anything').warning('hello library')",
        ]
    )
    environment = {"PREFECT_HOME": str(tmp_path), "PATH": "", "PREFECT_LOGGING_TO_API_ENABLED": "false"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert [(line["message"], line["run_id"]) for line in objects(done.stderr)] == [
        ("hello flow", "run-1"),
        ("hello library", "run-1"),
    ]
