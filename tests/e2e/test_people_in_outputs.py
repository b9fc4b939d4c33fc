"""Whatever fails, at any level of detail: no output, and no file beside the stores, names a customer or an agent."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from pipelines.simulator.faults import Close, Html, InvalidJson, Status
from pipelines.stringeex import envelope
from sinks.warehouse import Warehouse
from tests.e2e.command import Finished
from tests.e2e.place import Place
from tests.exports import FIRST, range_ms

DAY = ("--from", str(FIRST), "--to", str(FIRST))
CALLS = 24
PEOPLE = re.compile(r"canary|9007770[0-9]{2}|0777 0[0-9]{2}", re.IGNORECASE)
"""The name, the address and the numbers of everybody who was ever called here."""
KEYS = {"CALLHISTORY_PII_KEY": "a key of the tests, long enough", "CALLHISTORY_EVIDENCE_KEY_FILE": "key.pem"}
REFUSES_NAMING_SOMEBODY = InvalidJson(
    operation="history", body='{"r":4,"message":"Customer Canary Nguyen, +84 900777001, canary@example.com: denied"}'
)

pytestmark = pytest.mark.usefixtures("retries_at_once")


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """One day of calls in which every field that can names somebody; temporary files lie in a folder of their own."""
    calls = generate(seed=3, start_date=FIRST, days=1, calls_total=CALLS, late_arrival_share=0, late_change_share=0)
    portal = Portal(calls, PortalOptions(rate_limits=NO_LIMITS))
    for number, row in enumerate(portal.rows(*range_ms(FIRST, FIRST))):
        portal.update_call(row["id"], **named(number), recorded=1)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    with SimulatedPortal(portal) as server:
        yield Place(server, tmp_path, warehouse_url)


def named(number: int) -> dict[str, Any]:
    theirs = f"849007770{number:02d}"
    return {
        "customer_number": theirs,
        "contactname": f"Canary Customer {number}",
        "account": "canary_agent",
        "account_name": "Canary Agent",
        "account_email": "canary@example.com",
        "participants": [{"number": theirs}, "canary_agent"],
        "note": f"Canary, call back at 0900 0777 0{number:02d}",
    }


def rows(place: Place) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = place.portal.rows(*range_ms(FIRST, FIRST))
    return found


def damage_lake(place: Place) -> None:
    for path in (place.folder / "data/lake/calls").rglob("*.parquet"):
        path.write_bytes(b"PAR1 Canary Customer 84900777001 PAR1")


def damage_raw(place: Place) -> None:
    for path in (place.folder / "data/lake/raw").rglob("*.zst"):
        path.write_bytes(b'{"contactname":"Canary Customer"')


def change_everybody(place: Place) -> None:
    for row in rows(place):
        place.portal.update_call(row["id"], contactname="Canary Other", talk_duration=4321)


def reject_some(place: Place) -> None:
    for row in rows(place)[:6]:
        place.portal.update_call(row["id"], start_time="when Canary called")


def statement(text: str) -> Callable[[Place], None]:
    def execute(place: Place) -> None:
        url = place._settings["CALLHISTORY_WAREHOUSE_URL"]
        with Warehouse(url) as warehouse, warehouse.transaction() as connection:
            connection.execute(sa.text(text))

    return execute


def fault(*faults: Any) -> Callable[[Place], None]:
    return lambda place: place.portal.faults.extend(faults)


AGAIN = ("backfill", *DAY, "--force")
FAILURES: dict[str, tuple[Callable[[Place], None], list[tuple[str, ...]]]] = {
    "nothing": (lambda _: None, [AGAIN, ("status",), ("verify",), ("check",), ("changes", "--since", "2026-01-01")]),
    "the API refuses and names somebody": (fault(REFUSES_NAMING_SOMEBODY), [AGAIN, ("verify",), ("check",)]),
    "the API answers nonsense": (fault(InvalidJson(body='{"rows":[{"contactname":"Canary')), [AGAIN, ("verify",)]),
    "the API fails": (fault(Status(status=500), Html(status=502), Close()), [AGAIN, ("recordings", "archive")]),
    "rows have changed": (change_everybody, [("verify",), AGAIN, ("changes", "--since", "2026-01-01"), ("verify",)]),
    "rows cannot be calls": (reject_some, [AGAIN, ("rejects", "list"), ("rejects", "retry"), ("alerts",)]),
    "the lake is damaged": (damage_lake, [("verify", "--offline"), AGAIN]),
    "the raw copy is damaged": (damage_raw, [("verify", "--offline"), ("replay", *DAY), AGAIN]),
    "the warehouse was changed": (
        statement("UPDATE calls SET contact_name = 'Canary Other', customer_number = '84900777099'"),
        [("verify", "--offline"), ("replay", *DAY, "--diff"), AGAIN],
    ),
    "somebody is erased": (
        lambda _: None,
        [
            ("erase", "--customer-number", "84900777003", "--yes", "--receipt", "receipt.json"),
            ("erase", "--verify", "receipt.json"),
            ("evidence", "--new-key", "key.pem"),
            ("evidence", "--output", "evidence.json"),
            ("evidence", "--verify", "evidence.json"),
        ],
    ),
}


def run_all(place: Place, commands: list[tuple[str, ...]], **settings: str) -> list[Finished]:
    keys = KEYS if any(command[0] in ("erase", "evidence") for command in commands) else {}
    if ("evidence", "--new-key", "key.pem") in commands:
        assert place.run("evidence", "--new-key", "first.pem").exit_code == 0
        keys = keys | {"CALLHISTORY_EVIDENCE_KEY_FILE": "first.pem"}
    return [place.run(*command, "--debug", "--verbose", **settings, **keys) for command in commands]


def files_beside_the_stores(place: Place) -> str:
    """Return everything in files that the tables, the lake and the archive do not hold, temporary ones too."""
    return "\n".join(
        f"{path.name} {path.read_text(errors='replace')}"
        for path in place.folder.rglob("*")
        if path.is_file() and "data" not in path.parts and "warehouse" not in path.name
    )


TRIED = [
    *((failure, "json", "duckdb") for failure in FAILURES),
    ("the API refuses and names somebody", "text", "sqlite"),
    ("the warehouse was changed", "text", "postgresql"),
    ("somebody is erased", "text", "mariadb"),
]


@pytest.mark.parametrize(("failure", "log_format", "warehouse_url"), TRIED, indirect=["warehouse_url"])
def test_no_output_names_anybody(place: Place, failure: str, log_format: str) -> None:
    assert place.run("backfill", *DAY).exit_code == 0
    happens, commands = FAILURES[failure]
    happens(place)
    done = run_all(place, commands, CALLHISTORY_LOG_FORMAT=log_format, STRINGEEX_RECORDINGS_PER_MINUTE="0")
    for command, finished in zip(commands, done, strict=True):
        assert finished.output, command
        assert PEOPLE.findall(finished.output) == [], command
    assert PEOPLE.findall(files_beside_the_stores(place)) == []


REFUSALS = {
    "UNIQUE": ("CREATE UNIQUE INDEX somebody_elses ON calls (customer_number_e164)", "took the same row"),
    "CHECK": ("ALTER TABLE calls ADD CHECK (customer_number_e164 <> '+84900777050')", "refuses a row"),
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("warehouse_url", ["postgresql", "mariadb"], indirect=True)
def test_a_database_that_quotes_the_row_it_refuses_is_not_quoted(place: Place, refusal: str) -> None:
    assert place.run("backfill", *DAY).exit_code == 0
    text, told = REFUSALS[refusal]
    statement(text)(place)
    for row in rows(place):
        place.portal.update_call(row["id"], customer_number="84900777050")
    [done] = run_all(place, [AGAIN])
    assert (done.exit_code, told in done.output) == (3, True), done.output
    assert PEOPLE.findall(done.output) == []


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_without_the_wall_the_providers_words_would_name_somebody(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search can fail: it finds what the API said once nothing stands before it."""
    place.portal.faults.append(REFUSES_NAMING_SOMEBODY)
    [refused] = run_all(place, [("backfill", *DAY)])
    assert (refused.exit_code, PEOPLE.findall(refused.output)) == (3, [])
    monkeypatch.setattr(envelope, "technical_words_of", lambda message: message)
    [refused] = run_all(place, [("backfill", *DAY)])
    assert PEOPLE.findall(refused.output) != []
