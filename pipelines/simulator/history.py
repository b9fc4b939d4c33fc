"""``GET /v1/call/history``: version 2 (keyset) and version 1 (page numbers), every filter, both orders."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from pipelines.simulator.options import PortalOptions
from pipelines.simulator.store import CallStore, Key, after
from pipelines.simulator.wire import Refusal, Request, Response

FILTERS = (
    "call_id", "agent_id", "stringee_number", "customer_number", "direction", "status", "answer_duration",
    "queue_duration", "has_voicemail",
)  # fmt: skip
_FIELD_OF_FILTER = {"call_id": "id", "agent_id": "account", "has_voicemail": "have_voice_mail"}
_SORTABLE = (
    "start_time", "end_time", "answer_time", "duration", "talk_duration", "queue_duration", "ivr_duration",
    "hold_duration", "acw_duration",
)  # fmt: skip
_EVER = (0, 2**60)
_BEHIND = " "
"""Behind an id: the next place in the index."""
_SELECTIONS_KEPT = 64


class _Missing:
    """A field that the answer leaves out."""


MISSING: Final = _Missing()


@dataclass(frozen=True, slots=True)
class HistoryQuery:
    """A checked request for history."""

    start_ms: int
    end_ms: int
    version: int
    page: int
    limit: int
    sort_by: str
    descending: bool
    filters: tuple[tuple[str, str], ...]
    search_after: tuple[int, str] | None

    @classmethod
    def parse(cls, request: Request, options: PortalOptions) -> HistoryQuery:
        """Read a request's parameters; raises Refusal as the portal would."""
        time = request.parameter("time")
        window = re.fullmatch(r"(\d{1,15})-(\d{1,15})", time) if time else None
        if time and (window is None or int(window[1]) > int(window[2])):
            raise Refusal(3, "time is invalid")
        order = request.parameter("sort_order") or "desc"
        if order not in ("asc", "desc") or (order == "asc" and options.refuses_ascending):
            raise Refusal(12, "sort_order not allowed")
        sort_by = request.parameter("sort_by") or "start_time"
        if sort_by not in _SORTABLE:
            raise Refusal(11, "sort_by not allowed")
        version = 2 if options.supports_version_2 and request.parameter("version") == "2" else 1
        cursor = request.parameters("search_after[]") if version == 2 else []
        if cursor and (len(cursor) != 2 or not re.fullmatch(r"-?\d{1,18}", cursor[0])):
            raise Refusal(4, "search_after is invalid")
        return cls(
            start_ms=int(window[1]) if window else _EVER[0],
            end_ms=int(window[2]) if window else _EVER[1],
            version=version,
            page=request.positive("page", 1),
            limit=_limit(request.positive("limit", options.default_limit), version, options),
            sort_by=sort_by,
            descending=order == "desc",
            filters=tuple((name, value) for name in FILTERS if (value := request.parameter(name)) is not None),
            search_after=(int(cursor[0]), cursor[1]) if cursor else None,
        )

    @property
    def reading(self) -> tuple[Any, ...]:
        """What all pages of one reading have in common."""
        return self.start_ms, self.end_ms, self.version, self.sort_by, self.descending, self.filters, self.limit


def _limit(limit: int, version: int, options: PortalOptions) -> int:
    if version == 2 and not options.version_2_honours_limit:
        return options.default_limit
    if limit <= options.max_limit:
        return limit
    if options.large_limit == "truncate":
        return options.max_limit
    raise Refusal(
        2, f"limit must not be greater than {options.max_limit}", 400 if options.large_limit == "bad_request" else 200
    )


@dataclass(slots=True)
class HistoryPage:
    """The ``data`` of one answer; a fault may put anything into the counts and the cursor."""

    rows: list[bytes]
    total: Any
    total_pages: Any
    search_after: Any = MISSING

    def response(self, message_key: str) -> Response:
        """Return the answer; the rows are joined as they are."""
        head = b'{"r":0,"%s":"Success","data":{' % message_key.encode()
        fields = {"totalCount": self.total, "totalPages": self.total_pages, "search_after": self.search_after}
        counts = b"".join(
            b'"%s":%s,' % (name.encode(), orjson.dumps(value)) for name, value in fields.items() if value is not MISSING
        )
        return Response(200, b"".join((head, counts, b'"rows":[', b",".join(self.rows), b"]}}")))


@dataclass(frozen=True, slots=True)
class _Selection:
    positions: Sequence[int]
    key: Callable[[int], Key]
    revision: int
    made_ms: int
    valid_until_ms: int


Double = Callable[[str, bytes], bytes | None]
"""Makes the second row of a call, by its id and its row; null where the call has none."""


@dataclass(slots=True)
class History:
    """Answers history queries from a store. Not thread-safe: the portal holds its lock around every use."""

    store: CallStore
    options: PortalOptions
    _selections: dict[tuple[Any, ...], _Selection] = field(default_factory=dict)

    def page(
        self,
        query: HistoryQuery,
        now_ms: int,
        shows: Callable[[int, str], bool] | None = None,
        doubles: Sequence[Double] = (),
    ) -> HistoryPage:
        """Return one page; raises Refusal past the result cap, where the portal refuses that.

        ``shows`` tells by place in the window, from 0, and id which calls there are; None shows all. ``doubles`` make
        second rows of calls, which have a place of their own right behind the first.
        """
        options = self.options
        selection = self._select(query, now_ms)
        if shows is not None:
            selection = self._shown(selection, query, now_ms, shows)
        if doubles:
            selection = self._doubled(selection, doubles)
        count = len(selection.positions)
        total = count if options.result_cap is None else min(count, options.result_cap)
        if query.version == 1:
            first = (query.page - 1) * query.limit
            last = first + query.limit
            if options.result_cap is not None and last > options.result_cap:
                if options.past_result_cap != "empty":
                    r, status = (500, 500) if options.past_result_cap == "error" else (1, 200)
                    raise Refusal(r, f"Result window is too large: at most {options.result_cap}", status)
                last = options.result_cap
            positions = selection.positions[::-1] if query.descending else selection.positions
            return HistoryPage(
                self._rows(positions[first : max(first, last)], query, now_ms, doubles),
                total,
                math.ceil(total / query.limit),
            )
        if query.search_after is None:
            rest = selection.positions[::-1] if query.descending else selection.positions
        else:
            rest = after(selection.positions, selection.key, query.search_after, query.descending)
        positions = rest[: query.limit]
        cursor: Any = list(selection.key(positions[-1])) if positions else options.search_after_at_end
        rows = self._rows(positions, query, now_ms, doubles)
        return HistoryPage(rows, total, 0, MISSING if cursor == "missing" else cursor)

    def _rows(
        self, positions: Sequence[int], query: HistoryQuery, now_ms: int, doubles: Sequence[Double]
    ) -> list[bytes]:
        rows = []
        for position in positions:
            row = self.store.row_json(max(position, ~position), query.version, now_ms)
            rows.append(row if position >= 0 else self._double(self.store.key(~position)[1], row, doubles))
        return rows

    @staticmethod
    def _double(call_id: str, row: bytes, doubles: Sequence[Double]) -> bytes:
        return next(made for double in doubles if (made := double(call_id, row)) is not None)

    @staticmethod
    def _doubled(selection: _Selection, doubles: Sequence[Double]) -> _Selection:
        """Add doubles: the one of ``position`` is ``~position``, and comes behind it in the index."""
        first_key = selection.key

        def key(position: int) -> Key:
            if position >= 0:
                return first_key(position)
            start_ms, call_id = first_key(~position)
            return start_ms, call_id + _BEHIND

        again = [
            ~position
            for position in selection.positions
            if any(double(first_key(position)[1], b"{}") is not None for double in doubles)
        ]
        return replace(selection, positions=sorted([*selection.positions, *again], key=key), key=key)

    def _shown(
        self, selection: _Selection, query: HistoryQuery, now_ms: int, shows: Callable[[int, str], bool]
    ) -> _Selection:
        window, _ = self.store.select(query.start_ms, query.end_ms, now_ms)
        shown = {position for place, position in enumerate(window) if shows(place, self.store.key(position)[1])}
        return replace(selection, positions=[position for position in selection.positions if position in shown])

    def _select(self, query: HistoryQuery, now_ms: int) -> _Selection:
        """Return the query's calls in ascending order; remembered while nothing can have changed."""
        name = (query.start_ms, query.end_ms, query.sort_by, query.filters)
        kept = self._selections.get(name)
        if kept is not None and kept.revision == self.store.revision and kept.made_ms <= now_ms < kept.valid_until_ms:
            return kept
        positions, valid_until_ms = self.store.select(query.start_ms, query.end_ms, now_ms)
        key = self.store.key
        if query.filters or query.sort_by != "start_time":
            rows = {position: self.store.row(position, 2, now_ms) for position in positions}
            positions = [position for position in positions if self._matches(position, rows[position], query.filters)]
            valid_until_ms = now_ms  # a row's fields may change before its visibility does
            if query.sort_by != "start_time":
                values = {position: _number(rows[position].get(query.sort_by)) for position in positions}

                def key(position: int) -> Key:
                    return values[position], self.store.key(position)[1]

                positions = sorted(positions, key=key)
        selection = _Selection(positions, key, self.store.revision, now_ms, valid_until_ms)
        self._selections[name] = selection
        if len(self._selections) > _SELECTIONS_KEPT:
            del self._selections[next(iter(self._selections))]
        return selection

    def _matches(self, position: int, row: dict[str, Any], filters: tuple[tuple[str, str], ...]) -> bool:
        for name, wanted in filters:
            value = self.store.key(position)[1] if name == "call_id" else row.get(_FIELD_OF_FILTER.get(name, name))
            if str(value) != wanted:
                return False
        return True


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
