"""Any JSON at all, over HTTP: no crash, no row lost, and what is accepted reads back equal everywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache

import pytest
import stamina
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.export.window import Outcome
from pipelines.simulator import Fault, Portal
from pipelines.simulator.wire import Request, Response
from sinks.raw import raw_files, read_raw
from tests.exports import assert_holds
from tests.faults.matrix import SURVIVED, Cell
from tests.faults.processes import tables_of
from tests.faults.sites import Site
from tests.unit.rows import JSON_VALUES, ODD_CALLS, ROWS, START_MS
from transforms.json_text import JsonValue

DAY = datetime.fromtimestamp(START_MS / 1000, UTC).date() + timedelta(days=1)
"""The local day on which the generated calls start."""
AFTERWARDS = datetime(2025, 7, 1, tzinfo=UTC)
PAGE_ROWS = 100

generated = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@cache
def any_rows() -> list[JsonValue]:
    """Thousands of rows; those with an id that can be told from another have one of their own.

    One row is as it should be: a source in which no row has a direction is doubted.
    """
    rows: list[JsonValue] = [{"id": "ordinary", "start_time": START_MS, "direction": 1, "status": 1}]

    @settings(generated, max_examples=350)
    @given(st.lists(ODD_CALLS, min_size=6, max_size=6), ROWS)
    def collect(calls: list[JsonValue], others: list[JsonValue]) -> None:
        rows.extend(calls)
        rows.extend(others)

    collect()
    for number, row in enumerate(rows):
        if isinstance(row, dict) and isinstance(row.get("id"), str) and row["id"].strip():
            row["id"] = f"{number}-{row['id']}"
        elif isinstance(row, dict) and isinstance(row.get("id"), int) and not isinstance(row["id"], bool):
            row["id"] = number
    return rows


@dataclass(kw_only=True)
class ServeRows(Fault):
    """Serves these rows, whatever they are, page by page."""

    rows: list[JsonValue] = field(default_factory=list)

    def instead(self, portal: Portal, request: Request) -> Response:
        cursor = request.parameters("search_after[]")
        first = int(cursor[1]) if cursor else 0
        page = self.rows[first : first + PAGE_ROWS]
        data = {
            "totalCount": len(self.rows),
            "totalPages": 0,
            "rows": page,
            "search_after": [START_MS, str(first + len(page))],
        }
        return Response(200, json.dumps({"r": 0, "msg": "Success", "data": data}).encode())


def test_thousands_of_rows(portal: Portal, place: Site, cell: Cell) -> None:
    rows = any_rows()
    assert len(rows) > 2_000
    portal.faults.append(ServeRows(rows=rows))
    place.more["STRINGEEX_PAGE_SIZE"] = str(PAGE_ROWS)

    summary = place.export.run(DAY, DAY, now=AFTERWARDS)

    [result] = summary.results
    assert result.error is None
    certificate = result.certificate
    assert certificate is not None
    assert certificate.lake_rows + certificate.rejected == len(rows)
    assert certificate.lake_rows > 1_000
    assert certificate.rejected > 100
    assert_holds(place.export, rows, DAY, DAY)
    with place.export.open() as pipeline:
        [kept] = raw_files(pipeline.lake.storage, DAY)
        read_back = [row for batch in read_raw(pipeline.lake.storage, kept, 1_000) for row in batch]
    assert [json.dumps(row) for row in read_back] == [json.dumps(row) for row in rows]
    cell("any-json", place.database, SURVIVED)


ENVELOPES = st.one_of(
    JSON_VALUES,
    st.fixed_dictionaries(
        {}, optional={"r": JSON_VALUES, "msg": JSON_VALUES, "message": JSON_VALUES, "data": JSON_VALUES}
    ),
    st.fixed_dictionaries(
        {"r": st.just(0)},
        optional={
            "data": st.fixed_dictionaries(
                {}, optional={"totalCount": JSON_VALUES, "rows": ROWS, "search_after": JSON_VALUES}
            )
        },
    ),
    ROWS.map(lambda rows: {"r": 0, "data": {"totalCount": len(rows), "rows": rows, "search_after": []}}),
)
FIRST_DAY = date(2025, 3, 1)
DAYS = 120


@cache
def any_envelopes() -> list[JsonValue]:
    envelopes: list[JsonValue] = []

    @settings(generated, max_examples=DAYS)
    @given(ENVELOPES)
    def collect(envelope: JsonValue) -> None:
        envelopes.append(envelope)

    collect()
    return envelopes


@dataclass(kw_only=True)
class ServeEnvelopes(Fault):
    """Answers every window with an envelope of its own."""

    envelopes: list[JsonValue] = field(default_factory=list)

    def instead(self, portal: Portal, request: Request) -> Response:
        start_ms = int(str(request.parameter("time")).partition("-")[0])
        day = (start_ms - int(datetime(2025, 2, 28, 17, tzinfo=UTC).timestamp() * 1000)) // 86_400_000
        return Response(200, json.dumps(self.envelopes[day % len(self.envelopes)]).encode())


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # an envelope does not reach the database
def test_whole_envelopes(portal: Portal, place: Site) -> None:
    portal.faults.append(ServeEnvelopes(envelopes=any_envelopes()))
    last = FIRST_DAY + timedelta(days=DAYS - 1)
    with stamina.set_testing(True, attempts=1, cap=True):
        summary = place.export.run(FIRST_DAY, last, now=AFTERWARDS)
    assert len(summary.results) == DAYS
    for result in summary.results:
        if result.outcome is Outcome.COMPLETE:
            assert result.certificate is not None
            assert result.certificate.api_total == result.certificate.lake_rows + result.certificate.rejected
        else:
            assert result.outcome is Outcome.FAILED
            assert result.error is not None
            assert "\n" not in result.error
    assert {result.outcome for result in summary.results} == {Outcome.COMPLETE, Outcome.FAILED}
    portal.faults.clear()
    assert place.export.run(FIRST_DAY, last, now=AFTERWARDS, force=True).is_complete
    assert all(row["deleted_at"] for row in tables_of(place.export.settings)["calls"])
    assert not list(place.data.glob("lake/call*/*/*.parquet"))
