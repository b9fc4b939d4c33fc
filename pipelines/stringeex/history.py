"""Reading a window of the call history: every row once, or an error that says why not.

The API's own count is the proof. A read ends when that many different rows were served, or with an empty page; a
short page alone means nothing. Pages come in ascending time order; a portal that refuses ``sort_order=asc`` gives
them in descending order within each part of the window.

Memory: one page, and 8-byte hashes of the ids of one part of at most `MAX_PART_ROWS` rows (about 3 MB); a fuller
window is read in parts. Source of the protocol: the provider's documentation of ``/v1/call/history``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.served import Answer, JsonValue, fingerprint_of, id_of, read_answer, start_ms_of
from pipelines.stringeex.traits import DEFAULT_LIMIT, SAFE_LIMIT, ServerTraits
from transforms.errors import ApiError, DataError, RetryableError, ServerError, UnsettledWindowError

MAX_PART_ROWS = 30_000
SORT_ORDER_REFUSED = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STALLS_ALLOWED = 2


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Rows as served, without those that were served before in the same read.

    ``supersedes`` holds the ids of those rows among them that were given before with other content: the later wins.
    """

    rows: list[JsonValue]
    supersedes: frozenset[str]


class ReadAgainError(RetryableError):
    """learnt"""


class HistoryReader:
    """Reads windows of the call history through ``client``.

    ``traits`` remembers what the server can do, for all readers that share it. Page size and result cap come from the
    client's settings.
    """

    def __init__(self, client: StringeeXClient, *, traits: ServerTraits | None = None) -> None:
        self.client = client
        self.traits = traits or ServerTraits()

    def read(self, window_start: datetime, window_end: datetime) -> WindowRead:
        """Begin a read of the half-open window of aware instants; the first page asked for is the first request."""
        if window_start.tzinfo is None or window_end.tzinfo is None or window_start >= window_end:
            raise ValueError("a window is a half-open interval of aware instants")
        return WindowRead(self.client, self.traits, _epoch_ms(window_start), _epoch_ms(window_end))


class WindowRead:
    """One read of one window: iterate it once, for its pages. The numbers are final when it is exhausted.

    ``api_total`` is the API's own count and equals ``distinct_rows`` then. ``served_rows`` counts every row that
    came, ``repeated_rows`` those that had come before, ``outside_rows`` those whose start lies outside the window.
    ``requests`` counts pages asked for (retries are the client's), ``parts`` the reads that the window was split into.

    Iterating raises UnsettledWindowError when count and rows differ at the end; another RetryableError when pages
    repeat without end, belong to another window, or lack the count; ApiError when the API refuses; DataError when
    one millisecond holds more calls than the API can serve.
    """

    def __init__(self, client: StringeeXClient, traits: ServerTraits, start_ms: int, end_ms: int) -> None:
        self.api_total = 0
        self.dispute: str | None = None
        self.distinct_rows = 0
        self.served_rows = 0
        self.repeated_rows = 0
        self.outside_rows = 0
        self.requests = 0
        self.parts = 0
        self._client = client
        self._traits = traits
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._begun = False

    def __iter__(self) -> Iterator[HistoryPage]:
        if self._begun:
            raise RuntimeError("a read is iterated once; begin another one to read the window again")
        self._begun = True
        yield from self._read_part(self._start_ms, self._end_ms, set())

    def _read_part(self, start_ms: int, end_ms: int, given_before: set[int]) -> Iterator[HistoryPage]:
        part = _Part(self, start_ms, end_ms, given_before)
        try:
            yield from part.pages()
        except _TooFullError as full:
            given_before = given_before | part.ids if part.has_given else given_before
            for sub_start_ms, sub_end_ms in pairwise(_boundaries(start_ms, end_ms, full.pieces)):
                yield from self._read_part(sub_start_ms, sub_end_ms, given_before)
        else:
            self.parts += 1
            self.api_total += part.total
            self.distinct_rows += part.distinct

    def is_outside(self, start_time: int | None) -> bool:
        """Whether a row that starts at ``start_time`` (epoch ms) does not belong to the window."""
        return start_time is not None and not self._start_ms <= start_time < self._end_ms


class _TooFullError(Exception):
    """The part holds more rows than one query gives: it is to be read in ``pieces``."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces


class _Part:
    """The reading of ``[start_ms, end_ms)`` in one go: where it stands, and what it has seen."""

    def __init__(self, read: WindowRead, start_ms: int, end_ms: int, given_before: set[int]) -> None:
        self._read = read
        self._client = read._client
        self._traits = read._traits
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._given_before = given_before
        self._cap = read._client.settings.result_cap
        self._limit = SAFE_LIMIT
        self._by_page_number = False
        self._page_number = 1
        self._asking_again = False
        self._rows_before_asking_again = 0
        self._cursor: tuple[str, str] | None = None
        self._cursors: set[tuple[str, str]] = set()
        self._fingerprints: set[int] = set()
        self._recent: dict[str, JsonValue] = {}
        self._stalls = 0
        self._overfull_pages = 0
        self._outside = 0
        self.ids: set[int] = set()
        self.has_given = False
        self.distinct = 0
        self.total = 0

    def pages(self) -> Iterator[HistoryPage]:
        """Give the new rows, page by page, and check at the end that they are all."""
        with self._traits.finding_out():
            limit = self._traits.limit_to_ask(self._client.settings.page_size)
            self._limit = min(limit, self._cap or limit)
            self._by_page_number = self._traits.version_2 is False
            answer = self._ask_first()
            self._learn(answer)
        self._check_fullness(answer)
        while True:
            if answer.rows or answer.total or not self.distinct:  # past the end, some servers count 0
                self.total = answer.total
            if not answer.rows:
                break
            known = self.distinct
            page = self._sift(answer.rows)
            progressed = self.distinct > known
            if page.rows:
                self.has_given = True
                yield page
            if self._is_last(answer, progressed):
                break
            self._advance(answer, progressed)
            answer = self._ask_next()
        self._check_end()

    def _ask_first(self) -> Answer:
        """Ask for the first page, and put up with a server that refuses the order or the page size."""
        try:
            answer = self._ask()
            too_large = self._limit > SAFE_LIMIT and len(answer.rows) == DEFAULT_LIMIT < answer.total
        except ApiError as error:
            if error.r == SORT_ORDER_REFUSED and self._traits.ascending is not False:
                self._traits.remember(ascending=False)
                return self._ask_first()
            if self._limit <= SAFE_LIMIT or error.status not in (200, 400, 413, 422):
                raise
            too_large = True
        if too_large:
            refused, self._limit = self._limit, SAFE_LIMIT
            answer = self._ask_first()
            self._traits.remember(refused_limit=refused)
        return answer

    def _ask_next(self) -> Answer:
        try:
            answer = self._ask()
        except ApiError as error:
            if self._cap and self.distinct >= self._cap:
                raise self._capped_on_the_way() from error
            raise
        if not answer.rows and self._cap and self.distinct == self._cap < self.total:
            raise self._capped_on_the_way()
        if answer.total < self.total and answer.rows and self._by_page_number:
            # A row that went away has moved the following ones to an earlier page, past what was read.
            raise UnsettledWindowError(f"{self._name}: the API's count fell from {self.total} to {answer.total}")
        return answer

    def _ask(self) -> Answer:
        params = [
            ("time", f"{self._start_ms}-{self._end_ms - 1}"),
            ("sort_by", "start_time"),
            ("limit", str(self._limit)),
        ]
        if self._traits.ascending is not False:
            params.append(("sort_order", "asc"))
        if self._by_page_number:
            params += [("version", "1"), ("page", str(self._page_number))]
        else:
            params += [("version", "2"), *(("search_after[]", value) for value in self._cursor or ())]
        self._read.requests += 1
        answer = read_answer(self._client.request("history", params=params), self._name)
        self._read.served_rows += len(answer.rows)
        return answer

    def _learn(self, answer: Answer) -> None:
        """Take note of what the first page tells about the server."""
        if answer.search_after and answer.rows:
            self._traits.remember(version_2=True)
        elif 0 < len(answer.rows) < answer.total:
            self._by_page_number = True
            self._traits.remember(version_2=False)
        elif answer.rows and self._traits.version_2 is None:
            self._by_page_number = True  # for this read only: all rows came, so a cursor may have been left out

    def _check_fullness(self, answer: Answer) -> None:
        """Have the part split when one query cannot give all of it, or not within the memory promised."""
        rows, total, cap, one_millisecond = (
            len(answer.rows),
            answer.total,
            self._cap,
            self._end_ms - self._start_ms == 1,
        )
        # By page number the last page must fit under the cap as a whole, even when it is not full.
        depth = -(-total // rows) * rows if rows and self._by_page_number else total
        too_deep = rows < total and depth > cap and (self._by_page_number or bool(self._traits.keyset_capped))
        if cap and (total == cap or too_deep):
            if one_millisecond:
                raise self._full_millisecond(total)
            raise _TooFullError(_pieces(total, cap))
        if total > MAX_PART_ROWS and not one_millisecond:
            raise _TooFullError(_pieces(total, MAX_PART_ROWS))

    def _capped_on_the_way(self) -> Exception:
        self._traits.remember(keyset_capped=True)
        if self._end_ms - self._start_ms == 1:
            return self._full_millisecond(self.total)
        return _TooFullError(_pieces(self.total, self._cap))

    def _full_millisecond(self, total: int) -> DataError:
        return DataError(
            f"{self._name}: {total} calls in one millisecond, more than STRINGEEX_RESULT_CAP ({self._cap})"
        )

    def _sift(self, rows: list[JsonValue]) -> HistoryPage:
        """Drop the rows that came before, count the others, and keep what recognises them later."""
        starts = [start_ms_of(row) for row in rows]
        outside = [start is not None and not self._start_ms <= start < self._end_ms for start in starts]
        if all(outside):
            raise RetryableError(f"{self._name}: the answer is another window's (all {len(rows)} rows of a page)")
        fingerprint = fingerprint_of(rows)
        if fingerprint in self._fingerprints:
            self._read.repeated_rows += len(rows)
            return HistoryPage([], frozenset())
        self._fingerprints.add(fingerprint)

        fresh: list[JsonValue] = []
        supersedes: set[str] = set()
        page: dict[str, JsonValue] = {}
        for index, row in enumerate(rows):
            row_id = id_of(row)
            if row_id is None:
                repeated = index < self._rows_before_asking_again
            else:
                repeated = hash(row_id) in self.ids
                if repeated and page.get(row_id, self._recent.get(row_id)) != row:
                    supersedes.add(row_id)
                    fresh.append(row)
                elif hash(row_id) in self._given_before:
                    supersedes.add(row_id)
                self.ids.add(hash(row_id))
                page[row_id] = row
            if repeated:
                self._read.repeated_rows += 1
            else:
                self.distinct += 1
                self._outside += outside[index]
                self._read.outside_rows += self._read.is_outside(starts[index])
                fresh.append(row)
        self._recent = page
        return HistoryPage(fresh, frozenset(supersedes))

    def _is_last(self, answer: Answer, progressed: bool) -> bool:
        """Whether nothing more can be asked for, or need be: the count is reached, and not by a full page by chance."""
        goes_on = self._by_page_number or answer.search_after is not None
        full = len(answer.rows) >= min(self._limit, self._traits.page_size or self._limit)
        # While the server's largest page is unknown, its likely ones have to count as full.
        full |= self._traits.page_size is None and len(answer.rows) in (DEFAULT_LIMIT, SAFE_LIMIT)
        if self.distinct < self.total:
            return not goes_on
        if self.distinct > self.total:
            self._overfull_pages += 1
            return not (goes_on and full and self._overfull_pages == 1)
        at_cap = self._by_page_number and 0 < self._cap < self.distinct + len(answer.rows)
        return not (goes_on and full and progressed) or at_cap

    def _advance(self, answer: Answer, progressed: bool) -> None:
        """Set the position of the next request."""
        self._stalls = 0 if progressed else self._stalls + 1
        if self._stalls == _STALLS_ALLOWED:
            raise ServerError(
                f"{self._name}: the API keeps serving the same page ({self.distinct} of {self.total} rows)"
            )
        if progressed:
            self._traits.saw_full_page(len(answer.rows))
        if self._by_page_number:
            self._advance_page_number(len(answer.rows), progressed)
        elif answer.search_after and answer.search_after not in self._cursors:
            self._cursors.add(answer.search_after)
            self._cursor = answer.search_after

    def _advance_page_number(self, rows: int, progressed: bool) -> None:
        again, self._asking_again = self._asking_again, False
        self._rows_before_asking_again = 0
        if self._page_number == 1 and not again and rows != self._limit:
            # Whether pages are counted in rows asked for or in rows served: from here on the two are the same.
            self._limit = rows
            self._page_number = 2
        elif not again and (rows < self._limit or not progressed):
            self._asking_again = True
            self._rows_before_asking_again = rows if progressed else 0
        else:
            self._page_number += 1

    def _check_end(self) -> None:
        if self._outside * 2 > self.distinct:
            raise RetryableError(
                f"{self._name}: the answer is another window's ({self._outside} of {self.distinct} rows lie outside)"
            )
        if self.distinct != self.total:
            self._read.dispute = (
                f"{self._name}: the API counts {self.total} calls, but served {self.distinct} different ones"
            )

    @property
    def _name(self) -> str:
        start, end = (_EPOCH + timedelta(milliseconds=instant) for instant in (self._start_ms, self._end_ms))
        return f"call history {start.isoformat()} to {end.isoformat()}"


def _epoch_ms(instant: datetime) -> int:
    return (instant - _EPOCH) // timedelta(milliseconds=1)


def _pieces(total: int, cap: int) -> int:
    """Into how many equal parts to split: with a count of exactly the cap nothing is known, and halves it is."""
    return 2 if total <= cap else -(-3 * total // (2 * cap))


def _boundaries(start_ms: int, end_ms: int, pieces: int) -> list[int]:
    pieces = min(max(pieces, 2), end_ms - start_ms)
    return [start_ms + (end_ms - start_ms) * piece // pieces for piece in range(pieces + 1)]
