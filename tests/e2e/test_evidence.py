"""``evidence``: signed once, it tells later which day was touched, and who may have done it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.simulator import NO_LIMITS, Portal, PortalOptions, SimulatedPortal, generate
from sinks.certificates import Certificates
from sinks.warehouse import Warehouse
from tests.e2e.place import Place
from tests.exports import FIRST, range_ms

LAST = FIRST + timedelta(days=1)
DAYS = ("--from", str(FIRST), "--to", str(LAST))
SIGNED = {"CALLHISTORY_EVIDENCE_KEY_FILE": "key.pem"}
PII_KEY = {"CALLHISTORY_PII_KEY": "a key of the tests, long enough"}


@pytest.fixture
def place(tmp_path: Path, warehouse_url: str) -> Iterator[Place]:
    """Two days, exported, with evidence of both in ``evidence.json``."""
    calls = generate(seed=3, start_date=FIRST, days=2, calls_total=60, late_arrival_share=0, late_change_share=0)
    with SimulatedPortal(Portal(calls, PortalOptions(rate_limits=NO_LIMITS))) as server:
        place = Place(server, tmp_path, warehouse_url)
        assert place.run("backfill", *DAYS).exit_code == 0
        assert place.run("evidence", "--new-key", "key.pem").exit_code == 0
        done = place.run("evidence", *DAYS, "--output", "evidence.json", "--json", **SIGNED)
        assert (done.exit_code, done.json["proven"], done.json["days"]) == (0, True, 2), done.output
        yield place


def compared(place: Place, **settings: str) -> tuple[int, dict[str, str]]:
    """Return the exit code, and what is found of each day that is not the same."""
    done = place.run("evidence", "--verify", "evidence.json", "--public-key", "key.pem.pub", "--json", **settings)
    assert {day["call_date"] for day in done.json["findings"]} == {str(FIRST), str(LAST)}, done.output
    assert done.json["untouched"] == (done.exit_code == 0)
    return done.exit_code, {
        day["call_date"]: day["finding"] for day in done.json["findings"] if day["finding"] != "same"
    }


def change_a_call(place: Place) -> None:
    some = place.portal.rows(*range_ms(LAST, LAST))[3]
    place.portal.update_call(some["id"], talk_duration=4321)


def execute(warehouse_url: str, statement: str) -> None:
    with Warehouse(warehouse_url) as warehouse, warehouse.transaction() as connection:
        connection.exec_driver_sql(statement)


def test_a_day_that_has_changed_is_named_and_a_certificate_tells_who_did_it(place: Place, warehouse_url: str) -> None:
    assert compared(place) == (0, {})
    assert place.run("backfill", *DAYS, "--force").exit_code == 0
    assert compared(place) == (0, {}), "it was read again, and is the same"
    change_a_call(place)
    assert place.run("backfill", *DAYS, "--force").exit_code == 0
    assert compared(place) == (3, {str(LAST): "certified anew"})

    execute(warehouse_url, f"UPDATE calls SET talk_seconds = 1 WHERE call_date = DATE '{FIRST}'".replace(
        "DATE '" if warehouse_url.startswith("sqlite") else "", "'" if warehouse_url.startswith("sqlite") else ""
    ))  # fmt: skip
    assert compared(place) == (3, {str(FIRST): "altered", str(LAST): "certified anew"})


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_file_that_somebody_wrote_anew_is_told_though_its_rows_are_the_same(place: Place) -> None:
    [path] = place.folder.glob(f"data/lake/calls/call_date={FIRST}/calls.parquet")
    with pq.ParquetFile(path) as file:
        facts, rows = file.metadata.metadata, file.read()
    with pq.ParquetWriter(path, rows.schema, compression="zstd", compression_level=19) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({k: v for k, v in facts.items() if k.startswith(b"callhistory.")})
    assert place.run("verify", "--offline").exit_code == 0
    assert compared(place) == (3, {str(FIRST): "written anew"})
    path.unlink()
    assert compared(place) == (3, {str(FIRST): "altered"})


@pytest.mark.parametrize("warehouse_url", ["duckdb", "mariadb"], indirect=True)
def test_a_chain_that_was_changed_or_begun_anew_is_told(place: Place, warehouse_url: str) -> None:
    def told() -> dict[str, Any]:
        done = place.run("evidence", "--verify", "evidence.json", "--json", **SIGNED)
        assert done.exit_code == 3
        return {name: done.json[name] for name in ("chain_follows", "chain_breaks")}

    execute(warehouse_url, "UPDATE certificates SET api_total = api_total + 1 WHERE number = 1")
    assert told() == {"chain_follows": True, "chain_breaks": [1]}
    new = place.run("evidence", *DAYS, "--output", "of-a-broken-chain.json", "--json", **SIGNED)
    assert (new.exit_code, new.json["proven"]) == (3, False)
    assert "does not hold at number 1" in place.run("evidence", "--verify", "evidence.json", **SIGNED).stdout

    execute(warehouse_url, "DELETE FROM certificates")
    execute(warehouse_url, "DELETE FROM pipeline_state WHERE name = 'certificate_chain'")
    assert place.run("backfill", *DAYS, "--force").exit_code == 0
    assert told() == {"chain_follows": False, "chain_breaks": []}
    assert "another warehouse" in place.run("evidence", "--verify", "evidence.json", **SIGNED).stdout


@pytest.mark.parametrize("warehouse_url", ["duckdb", "postgresql"], indirect=True)
def test_a_replay_and_an_erasure_are_links_of_the_chain(place: Place, warehouse_url: str) -> None:
    number = place.portal.rows(*range_ms(FIRST, FIRST))[0]["customer_number"]
    [path] = place.folder.glob(f"data/lake/calls/call_date={FIRST}/calls.parquet")
    path.unlink()
    assert place.run("replay", *DAYS).exit_code == 0
    assert compared(place) == (0, {}), "the file is the same again, to the byte"
    assert place.run("erase", "--customer-number", str(number), "--yes", **PII_KEY).exit_code == 0
    code, findings = compared(place, **PII_KEY)
    assert (code, findings[str(FIRST)]) == (3, "certified anew")
    with Warehouse(warehouse_url) as warehouse:
        certificates = Certificates(warehouse)
        causes = [certificate.cause for certificate in certificates.all()]
        assert certificates.breaks() == []
    assert causes[:3] == ["read", "read", "replayed"]
    assert set(causes[3:]) == {"erased"}
    done = place.run("evidence", "--output", "later.json", "--json", **SIGNED, **PII_KEY)
    assert done.exit_code == 0
    assert len(json.loads((place.folder / "later.json").read_text())["evidence"]["erasures"]) == 1


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_raw_copy_that_was_kept_for_long_enough_is_not_missed(place: Place) -> None:
    kept = {"CALLHISTORY_RETENTION_RAW": "1d", "CALLHISTORY_START_DATE": str(FIRST)}
    for path in (place.folder / "data/lake/raw").rglob("*.zst"):
        path.unlink()
    assert compared(place, **kept) == (0, dict.fromkeys((str(FIRST), str(LAST)), "raw copy expired"))
    assert compared(place) == (3, dict.fromkeys((str(FIRST), str(LAST)), "altered"))


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_who_has_nothing_but_the_public_key_can_tell_a_forged_file(place: Place, tmp_path: Path) -> None:
    verify = ("evidence", "--verify", "evidence.json", "--public-key", "key.pem.pub", "--file-only")
    elsewhere = tmp_path / "auditor"
    elsewhere.mkdir()
    for name in ("evidence.json", "key.pem.pub"):
        (elsewhere / name).write_bytes((place.folder / name).read_bytes())
    place.folder = elsewhere
    done = place.run(*verify)
    assert (done.exit_code, "signature is valid" in done.stdout) == (0, True), done.output
    assert not (elsewhere / "data").exists()

    bundle = json.loads((elsewhere / "evidence.json").read_text())
    bundle["evidence"]["days"][0]["files"][0]["sha256"] = "0" * 64
    (elsewhere / "evidence.json").write_text(json.dumps(bundle))
    done = place.run(*verify)
    assert (done.exit_code, "was changed since it was signed" in done.stderr) == (1, True)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_a_day_that_is_not_proven_is_no_evidence_of_completeness(place: Place, warehouse_url: str) -> None:
    execute(warehouse_url, f"UPDATE export_windows SET status = 'failed' WHERE call_date = DATE '{LAST}'")
    done = place.run("evidence", *DAYS, "--output", "more.json", **SIGNED)
    assert (done.exit_code, "Not all of it is proven" in done.stdout) == (3, True)
    assert compared(place) == (3, {str(LAST): "not proven now"}), "a read that failed alters nothing"
    nothing = place.run("evidence", "--from", "today", "--output", "nothing.json", "--json", **SIGNED)
    assert (nothing.exit_code, nothing.json["days"], nothing.json["proven"]) == (3, 0, False)


@pytest.mark.parametrize("warehouse_url", ["duckdb"], indirect=True)
def test_what_is_wrong_is_one_clear_line(place: Place) -> None:
    (place.folder / "rsa.pem").write_text("-----BEGIN PRIVATE KEY-----\nno key\n-----END PRIVATE KEY-----\n")
    (place.folder / "other.json").write_text("[]")
    assert place.run("evidence", "--new-key", "another.pem").exit_code == 0
    verify = ("evidence", "--verify", "evidence.json")
    for arguments, settings, code, told in (
        (("evidence",), {}, 2, "--output FILE, --verify FILE or --new-key FILE"),
        (("evidence", "--output", "x.json", "--new-key", "y.pem"), {}, 2, "one of the three"),
        (("evidence", "--output", "x.json", "--file-only"), SIGNED, 2, "go with --verify"),
        (("evidence", "--output", "x.json"), {}, 2, "CALLHISTORY_EVIDENCE_KEY is not set"),
        (("evidence", "--output", "x.json"), {"CALLHISTORY_EVIDENCE_KEY_FILE": "rsa.pem"}, 2, "no Ed25519 private key"),
        (("evidence", "--output", "evidence.json"), SIGNED, 2, "is there already"),
        (("evidence", "--output", "no/folder/x.json"), SIGNED, 2, "there is no folder no/folder"),
        (("evidence", "--new-key", "key.pem"), {}, 1, "cannot write key.pem"),
        ((*verify, "--public-key", "another.pem.pub"), {}, 1, "another key has signed it"),
        ((*verify, "--public-key", "key.pem"), {}, 2, "no Ed25519 public key"),
        ((*verify, "--public-key", "nowhere.pub"), {}, 2, "cannot read nowhere.pub"),
        (("evidence", "--verify", "other.json"), SIGNED, 1, "no evidence that callhistory has signed"),
        (("evidence", "--verify", "nowhere.json"), SIGNED, 1, "cannot read nowhere.json"),
    ):  # fmt: skip
        done = place.run(*arguments, **settings)
        assert (done.exit_code, told in done.stderr.replace("\n", " ")) == (code, True), (arguments, done.output)
    assert not (place.folder / "x.json").exists()
    assert (place.folder / "key.pem").stat().st_mode & 0o077 == 0
