"""The chain of certificates, on each database: whatever is done to it shows, and many writers make one chain."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from sinks.certificates import Cause, Certificates, ChainedCertificate, Head, hash_of, links
from sinks.ledger import Certificate, Ledger
from sinks.metric_parameters import keep_metric_parameters
from sinks.warehouse import Warehouse
from transforms.metric_parameters import PARAMETERS
from transforms.schema import CERTIFICATES, PIPELINE_STATE

FIRST = date(2026, 1, 5)
NOW = datetime(2026, 2, 1, 2, 3, 4, 567000, tzinfo=UTC)
ALL = range(4)


def start_of(day: int) -> datetime:
    return datetime(2026, 1, 4, 17, tzinfo=UTC) + timedelta(days=day)


def certify(warehouse: Warehouse, day: int, cause: Cause = Cause.READ) -> None:
    ledger, certificate = Ledger(warehouse), Certificate(7, 7, 0, 7, 7, f"{day:032x}", f"{day:032x}")
    with warehouse.transaction() as connection:
        ledger._ensure_row(connection, FIRST + timedelta(days=day), start_of(day), start_of(day + 1))
        ledger.complete(
            connection,
            start_of(day),
            certificate,
            completed_at=NOW + timedelta(milliseconds=day),
            next_reread_at=None,
            settled=True,
            ends_day=True,
            made_by=None,
        )
        Certificates(warehouse).append(connection, start_of(day), cause)


@pytest.fixture
def chain(warehouse: Warehouse) -> Certificates:
    certificates = Certificates(warehouse)
    certificates.begin()
    assert (certificates.head(), certificates.breaks()) == (Head(0, None), [])
    for day in ALL:
        certify(warehouse, day)
    assert certificates.breaks() == []
    return certificates


def change(warehouse: Warehouse, number: int, **values: Any) -> None:
    t = warehouse.tables[CERTIFICATES.name]
    with warehouse.transaction() as connection:
        connection.execute(sa.update(t).where(t.c.number == number).values(**values))


def test_each_certificate_names_the_one_before_it(warehouse: Warehouse, chain: Certificates) -> None:
    certify(warehouse, 1, Cause.ERASED)
    found = list(chain.all())
    assert [(c.number, c.cause, c.window_start) for c in found] == [
        *((day + 1, Cause.READ, start_of(day)) for day in ALL),
        (5, Cause.ERASED, start_of(1)),
    ]
    assert [c.previous_hash for c in found] == [None, *(c.certificate_hash for c in found[:-1])]
    assert chain.head() == Head(5, found[-1].certificate_hash)
    assert links([c.to_dict() for c in found]) == links([c.to_dict() for c in found[1::2]]) == []


@pytest.mark.parametrize("warehouse_url", ["sqlite", "postgresql"], indirect=True)
def test_whatever_is_changed_in_a_certificate_breaks_the_chain(warehouse: Warehouse, chain: Certificates) -> None:
    of_type: dict[str, Any] = {"instant": NOW + timedelta(1), "date": FIRST - timedelta(1), "integer": 99, "text": "x"}
    [_, second, *_] = chain.all()
    for column in CERTIFICATES.columns:
        if not column.key:
            change(warehouse, 2, **{column.name: of_type[column.type.name]})
            broken = [2, 3] if column.name == "certificate_hash" else [2]
            assert chain.breaks() == broken, column.name
            change(warehouse, 2, **{column.name: getattr(second, column.name)})
            assert chain.breaks() == []


def test_a_certificate_that_is_removed_slipped_in_or_made_anew_breaks_the_chain(
    warehouse: Warehouse, chain: Certificates
) -> None:
    t = warehouse.tables[CERTIFICATES.name]
    [first, second, _, last] = chain.all()

    def removed(number: int) -> None:
        with warehouse.transaction() as connection:
            connection.execute(sa.delete(t).where(t.c.number == number))

    def added(facts: dict[str, Any]) -> None:
        with warehouse.transaction() as connection:
            connection.execute(sa.insert(t).values(facts))

    facts = {name: getattr(last, name) for name in CERTIFICATES.column_names}
    removed(last.number)
    assert chain.breaks() == [4]
    added(facts)
    assert chain.breaks() == []
    more = facts | {"number": 5, "previous_hash": last.certificate_hash}
    added(more | {"certificate_hash": hash_of(more)})
    assert chain.breaks() == [6]
    removed(5)
    # A hash that fits the changed row: the next certificate still names the old one.
    other = {**{name: getattr(second, name) for name in CERTIFICATES.column_names}, "api_total": 6}
    change(warehouse, 2, api_total=6, certificate_hash=hash_of(other))
    assert chain.breaks() == [3]
    assert links([c.to_dict() for c in chain.all()]) == [3]
    removed(2)
    assert chain.breaks() == [3]
    assert first.number == 1


def test_what_an_earlier_version_certified_begins_the_chain(warehouse: Warehouse, chain: Certificates) -> None:
    with warehouse.transaction() as connection:
        connection.execute(sa.delete(warehouse.tables[CERTIFICATES.name]))
        state = warehouse.tables[PIPELINE_STATE.name]
        connection.execute(sa.delete(state).where(state.c.name == "certificate_chain"))
    chain.begin()
    chain.begin()
    assert [(c.number, c.cause, c.window_start) for c in chain.all()] == [
        (day + 1, Cause.EARLIER, start_of(day)) for day in ALL
    ]
    certify(warehouse, 2)
    assert [c.cause for c in chain.all()] == [*[Cause.EARLIER] * len(ALL), Cause.READ]
    assert chain.breaks() == []


@pytest.mark.parametrize("warehouse_url", ["sqlite"], indirect=True)
def test_a_certificate_that_is_added_while_one_looks_is_no_break(
    warehouse: Warehouse, chain: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = Certificates.all

    def slowly(self: Certificates) -> Iterator[ChainedCertificate]:
        yield from everything(self)
        certify(warehouse, 7)

    monkeypatch.setattr(Certificates, "all", slowly)
    assert chain.breaks() == []


def test_a_column_that_a_later_version_adds_changes_no_hash() -> None:
    facts = {"number": 1, "run_id": None, "content_hash": "00"}
    assert hash_of(facts) == hash_of(facts | {"added_later": None}) == hash_of({"number": 1, "content_hash": "00"})
    assert hash_of(facts) != hash_of(facts | {"added_later": "x"})


def test_a_chain_whose_end_was_forgotten_could_not_be_added_to(warehouse: Warehouse, chain: Certificates) -> None:
    with warehouse.transaction() as connection:
        state = warehouse.tables[PIPELINE_STATE.name]
        connection.execute(sa.delete(state).where(state.c.name == "certificate_chain"))
    certify(warehouse, 2)
    assert [c.number for c in chain.all()] == [1, 2, 3, 4, 5]
    assert chain.breaks() == []


def test_many_who_open_a_new_warehouse_at_once_collided(warehouse: Warehouse) -> None:
    def begin(_: int) -> None:
        Certificates(warehouse).begin()
        keep_metric_parameters(warehouse, dict.fromkeys(PARAMETERS, 5))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(16)))
    assert (Certificates(warehouse).head(), Certificates(warehouse).breaks()) == (Head(0, None), [])


def test_many_who_certify_at_once_make_one_chain(warehouse: Warehouse, chain: Certificates) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda day: certify(warehouse, day), range(10, 40)))
    assert chain.breaks() == []
    assert {c.window_start for c in chain.all()} == {start_of(day) for day in (*ALL, *range(10, 40))}
    assert chain.head().number == len(ALL) + 30
