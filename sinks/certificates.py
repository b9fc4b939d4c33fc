"""The chain of certificates: every time a window was proven complete, each with the hash of the one before it.

The ledger tells how a window stands; this table tells how it came to stand so. Nothing in it is ever changed: whoever
changes, removes or slips in a certificate breaks the hash of every later one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

import orjson
import sqlalchemy as sa

from sinks.ledger import WindowStatus
from sinks.warehouse import Warehouse, once_more_on_collision
from transforms.schema import CERTIFICATES, EXPORT_WINDOWS, PIPELINE_STATE

_HEAD = "certificate_chain"
_ROWS_AT_ONCE = 1_000
_OF_LEDGER = [column.name for column in CERTIFICATES.columns if column.name in EXPORT_WINDOWS.column_names]


class Cause(StrEnum):
    """Why a window was certified."""

    READ = "read"
    """The API was asked."""
    REPLAYED = "replayed"
    """The tables were made of the raw copy."""
    ERASED = "erased"
    """People were taken out."""
    EARLIER = "earlier"
    """A version without a chain had certified it."""


@dataclass(frozen=True)
class ChainedCertificate:
    """One row of ``certificates``; ``cause`` is one of `Cause`, unless somebody has changed it."""

    number: int
    cause: str
    window_start: datetime
    window_end: datetime
    call_date: date
    completed_at: datetime
    api_total: int | None
    raw_rows: int
    rejected: int
    lake_rows: int
    warehouse_rows: int
    content_hash: str
    made_by: str | None
    run_id: str | None
    previous_hash: str | None
    certificate_hash: str

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as JSON can hold it."""
        return {name: _as_text(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Head:
    """The newest certificate: its number, 0 while there is none, and its hash."""

    number: int
    certificate_hash: str | None


def hash_of(facts: Mapping[str, Any]) -> str:
    """Return the hash of a certificate, given as `ChainedCertificate.to_dict` has it: SHA-256 of all its other values.

    They are written as JSON with sorted keys and no blanks, instants in ISO 8601 with six digits of a second. What is
    null is left out: so a column that a later version adds does not change the hashes that there are.
    """
    stated = {n: _as_text(value) for n, value in facts.items() if n != "certificate_hash" and value is not None}
    return sha256(json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Certificates:
    """Adds to the chain and reads it."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._table = warehouse.tables[CERTIFICATES.name]
        self._state = warehouse.tables[PIPELINE_STATE.name]

    @once_more_on_collision
    def begin(self) -> None:
        """Begin the chain where there is none, with what an earlier version has certified; later, nothing is done."""
        with self._warehouse.reading() as connection:
            if self._head(connection) is not None:
                return
        with self._warehouse.transaction() as connection:
            self._locked_head(connection)

    def append(self, connection: sa.Connection, window_start: datetime, cause: Cause) -> None:
        """Add what the ledger certifies of a window, in the transaction that wrote it there.

        From here to the end of the transaction, whoever else certifies a window waits: a chain has one end.
        """
        head = self._locked_head(connection)
        t = self._ledger
        self._add(connection, head, cause, sa.select(t).where(t.c.window_start == window_start))

    def head(self) -> Head:
        """Return the end of the chain."""
        with self._warehouse.reading() as connection:
            return self._head(connection) or Head(0, None)

    def all(self) -> Iterator[ChainedCertificate]:
        """Yield the whole chain, oldest first, in bounded memory."""
        t, last = self._table, 0
        while True:
            query = sa.select(t).where(t.c.number > last).order_by(t.c.number).limit(_ROWS_AT_ONCE)
            with self._warehouse.reading() as connection:
                rows = connection.execute(query).mappings().all()
            yield from map(_certificate, rows)
            if len(rows) < _ROWS_AT_ONCE:
                return
            last = rows[-1]["number"]

    def breaks(self) -> list[int]:
        """Return the numbers at which the chain does not hold; empty when every hash is that of what it stands for.

        The number after the last one tells that certificates at the end are missing.
        """
        found, number, hash_before = [], 0, None
        began_with = self.head()
        for certificate in self.all():
            number += 1
            is_next = (certificate.number, certificate.previous_hash) == (number, hash_before)
            if not is_next or hash_of(certificate.to_dict()) != certificate.certificate_hash:
                found.append(certificate.number)
            number, hash_before = certificate.number, certificate.certificate_hash
        # An export may have added some meanwhile.
        ends = (began_with, self.head())
        is_end = ends[0].number <= number <= ends[1].number
        is_whole = all(end.certificate_hash == hash_before for end in ends if end.number == number)
        return found if is_end and is_whole else [*found, number + 1]

    @property
    def _ledger(self) -> sa.Table:
        return self._warehouse.tables[EXPORT_WINDOWS.name]

    def _head(self, connection: sa.Connection) -> Head | None:
        value = connection.scalar(sa.select(self._state.c.value).where(self._state.c.name == _HEAD))
        return None if value is None else Head(**orjson.loads(value))

    def _locked_head(self, connection: sa.Connection) -> Head:
        # Whoever writes a row holds it to the end of the transaction.
        of_head = sa.update(self._state).where(self._state.c.name == _HEAD)
        connection.execute(of_head.values(name=_HEAD))
        return self._head(connection) or self._begin(connection)

    def _begin(self, connection: sa.Connection) -> Head:
        now = self._warehouse.utc_now(connection)
        t = self._table
        last = connection.execute(sa.select(t).order_by(t.c.number.desc()).limit(1)).mappings().one_or_none()
        # Rows without a head: what is remembered was lost. The chain goes on.
        head = Head(0, None) if last is None else Head(last["number"], last["certificate_hash"])
        connection.execute(sa.insert(self._state).values(name=_HEAD, value=_as_json(head), updated_at=now))
        if last is not None:
            return head
        t = self._ledger
        is_certified = (t.c.status == WindowStatus.COMPLETE, t.c.completed_at.is_not(None))
        query = sa.select(t).where(*is_certified).order_by(t.c.completed_at, t.c.window_start)
        return self._add(connection, head, Cause.EARLIER, query)

    def _add(self, connection: sa.Connection, head: Head, cause: Cause, query: sa.Select[Any]) -> Head:
        rows: list[dict[str, Any]] = []
        for row in connection.execute(query).mappings():
            facts: dict[str, Any] = {name: row[name] for name in _OF_LEDGER} | {
                "number": head.number + 1, "cause": cause.value, "previous_hash": head.certificate_hash,
            }  # fmt: skip
            rows.append(facts | {"certificate_hash": hash_of(facts)})
            head = Head(rows[-1]["number"], rows[-1]["certificate_hash"])
        if rows:
            connection.execute(sa.insert(self._table), rows)
            of_head = sa.update(self._state).where(self._state.c.name == _HEAD)
            connection.execute(of_head.values(value=_as_json(head), updated_at=rows[-1]["completed_at"]))
        return head


def links(certificates: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the numbers of those certificates, given as `ChainedCertificate.to_dict` has them, that do not hold.

    They are sorted, and some may be left out: where two are neighbours, the second has to name the first.
    """
    found = []
    for before, facts in zip([None, *certificates], certificates, strict=False):
        is_neighbour = before is not None and facts["number"] == before["number"] + 1
        if hash_of(facts) != facts["certificate_hash"] or (
            is_neighbour and before is not None and facts["previous_hash"] != before["certificate_hash"]
        ):
            found.append(int(facts["number"]))
    return found


def _certificate(row: Mapping[Any, Any]) -> ChainedCertificate:
    return ChainedCertificate(**{name: row[name] for name in ChainedCertificate.__dataclass_fields__})


def _as_text(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds")
    return value.isoformat() if isinstance(value, date) else value


def _as_json(head: Head) -> str:
    return orjson.dumps(asdict(head)).decode()
