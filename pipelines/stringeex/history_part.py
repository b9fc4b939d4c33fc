"""The reading of one part of a window in one go: where it stands, what it has seen, and how it ends.

A row whose id came before is one of two things. Paging serves a row again when a page is repeated, or when others were
inserted before it: that is noise. Or the portal holds two rows of one id: then both are rows, and the count says so.
Two rows in one page are two. A row that comes again on a later page is kept back; at the end, the count decides.
Where it says two, another read has to say so too, with page borders elsewhere: a page can begin with the row that ended
the one before, in place of its own. Then the count is right, and a call is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.history_answer import Answer, fingerprint_of, read_answer, start_ms_of
from pipelines.stringeex.server_traits import DEFAULT_LIMIT, SAFE_LIMIT, ServerTraits
from transforms.call_ids import call_id_of
from transforms.epoch import instant_at
from transforms.errors import ApiError, CallHistoryError, DataError, RetryableError, ServerError
from transforms.json_text import JsonValue

MAX_PART_ROWS = 30_000
MOST_KEPT_BACK = 10_000
"""Rows whose id came on an earlier page: more are not held in memory."""
MOST_ROWS = 1_000_000
"""Of one part, whatever its count says."""
SORT_ORDER_REFUSED = 12
_STALLS_ALLOWED = 2
_DEPTH_STEP = 500
"""A page depth is a round number: an empty page elsewhere, short of the count, is a wrong count."""


class ReadAgainError(RetryableError):
    """Something about the server was learnt, by which the next read of the window gets further: begin it at once."""


class TooFullError(Exception):
    """The part counts ``total`` rows, more than one query gives: it is to be read in ``pieces``.

    ``is_certain`` is false where the count may mean "at least so many".
    """

    def __init__(self, total: int, pieces: int, *, is_certain: bool) -> None:
        super().__init__()
        self.total = total
        self.pieces = pieces
        self.is_certain = is_certain


class Read(Protocol):
    """The read of the window that a part belongs to."""

    served_rows: int
    repeated_rows: int
    outside_rows: int

    @property
    def client(self) -> StringeeXClient:
        """What requests go through."""

    @property
    def traits(self) -> ServerTraits:
        """What is known of the server."""

    def ask(self, params: list[tuple[str, str]]) -> Any:
        """Send one request for a page; return what its envelope carries."""

    def is_outside(self, start_time: int | None) -> bool:
        """Whether a row that starts at ``start_time`` (epoch ms) does not belong to the window."""


class Part:
    """Reads ``[start_ms, end_ms)``: iterate ``pages`` once, then look at ``total`` and ``dispute``.

    Raises ``TooFullError`` before a row was given, if ``may_split``.
    """

    def __init__(self, read: Read, start_ms: int, end_ms: int, *, may_split: bool, limit: int | None = None) -> None:
        self._read = read
        self._client = read.client
        self._traits = read.traits
        self._start_ms = start_ms
        self._end_ms = end_ms
        self._may_split = may_split
        self._cap = read.traits.cap(read.client.settings.result_cap)
        self._limit = self._wanted_limit = limit or 0
        self._by_page_number = False
        self._page_number = 1
        self._asking_again = False
        self._rows_before_asking_again = 0
        self._cursor: tuple[str, str] | None = None
        self._cursors: set[tuple[str, str]] = set()
        self._fingerprints: set[int] = set()
        self._ids: set[int] = set()
        self._kept_back: list[JsonValue] = []
        self._stalls = 0
        self._overfull_pages = 0
        self._outside = 0
        self._totals: set[int | None] = set()
        self._stuck: str | None = None
        self.counted = 0
        self.doubled_ids: set[str] = set()
        self.total: int | None = None
        self.dispute: str | None = None

    def pages(self) -> Iterator[list[JsonValue]]:
        """Give the rows to keep, page by page."""
        with self._traits.finding_out():
            wanted = self._wanted_limit or self._traits.limit_to_ask(self._client.settings.page_size)
            self._limit = min(wanted, self._cap or wanted)
            self._by_page_number = self._traits.version_2 is False
            answer = self._ask_first()
            self._learn(answer)
        if self._may_split:
            self._check_fullness(answer)
        while True:
            if answer.rows or answer.total or not self.counted:  # past the end, some servers count 0
                self.total = answer.total
                self._totals.add(answer.total)
            if not answer.rows:
                break
            seen = self._rows_seen
            rows = self._sift(answer.rows)
            progressed = self._rows_seen > seen
            if rows:
                yield rows
            if self._is_last(answer, progressed) or self._is_too_much():
                break
            if not self._advance(answer, progressed):
                break
            answer = self._ask_next()
        self._check_capped_count()
        yield from self._end()

    @property
    def _rows_seen(self) -> int:
        return self.counted + len(self._kept_back)

    def _is_too_much(self) -> bool:
        if len(self._kept_back) > MOST_KEPT_BACK or self.counted > MOST_ROWS:
            self._stuck = "the API serves rows without end"
        return self._stuck is not None

    def _ask_first(self) -> Answer:
        """Ask for the first page, and put up with a server that refuses the order or the page size."""
        try:
            answer = self._ask()
            too_large = self._limit > SAFE_LIMIT and len(answer.rows) == DEFAULT_LIMIT < (answer.total or 0)
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
        except (ApiError, ServerError) as error:
            # Rows came, and the same query is refused further on: so deep does the server go.
            if isinstance(error, ServerError) and not self._is_depth(self.counted):
                raise
            raise self._learnt_depth(error) from error
        if not answer.rows and self.total is not None and self.counted < self.total and self._is_depth(self.counted):
            raise self._learnt_depth(None)
        return answer

    def _is_depth(self, rows: int) -> bool:
        return rows == self._cap or (rows % _DEPTH_STEP == 0 and rows < (self._cap or rows + 1))

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
        answer = read_answer(self._read.ask(params), self._name)
        self._read.served_rows += len(answer.rows)
        return answer

    def _learn(self, answer: Answer) -> None:
        """Take note of what the first page tells about the server."""
        if answer.search_after and answer.rows:
            self._traits.remember(version_2=True)
        elif 0 < len(answer.rows) < (answer.total or 0):
            self._by_page_number = True
            self._traits.remember(version_2=False)
        elif answer.rows and self._traits.version_2 is None:
            self._by_page_number = True  # for this read only: all rows came, so a cursor may have been left out

    def _check_fullness(self, answer: Answer) -> None:
        """Have the part split when one query cannot give all of it, or not within the memory promised."""
        rows, total, cap = len(answer.rows), answer.total or 0, self._cap
        one_millisecond = self._end_ms - self._start_ms == 1
        # By page number the last page must fit under the cap as a whole, even when it is not full.
        depth = -(-total // rows) * rows if rows and self._by_page_number else total
        too_deep = rows < total and depth > cap and (self._by_page_number or bool(self._traits.keyset_capped))
        if cap and (total == cap or too_deep):
            if one_millisecond:
                raise self._full_millisecond(total)
            raise TooFullError(total, _pieces(total, cap), is_certain=total > cap)
        if total > MAX_PART_ROWS and not one_millisecond:
            raise TooFullError(total, _pieces(total, MAX_PART_ROWS), is_certain=True)

    def _check_capped_count(self) -> None:
        """Find out whether a round count means "at least so many": then the halves count more than the whole.

        Raises ``ReadAgainError`` when it does.
        """
        total = self.total or 0
        if not self._may_split or total < _DEPTH_STEP or total % _DEPTH_STEP or total == self._cap:
            return
        if self._rows_seen < total or self._end_ms - self._start_ms == 1:
            return
        middle_ms = (self._start_ms + self._end_ms) // 2
        halves = [self._count_of(self._start_ms, middle_ms), self._count_of(middle_ms, self._end_ms)]
        if sum(halves) > total and max(halves) <= total:
            self._traits.remember(result_cap=total)
            raise ReadAgainError(f"{self._name}: the API counts no further than {total}")

    def _count_of(self, start_ms: int, end_ms: int) -> int:
        params = [("time", f"{start_ms}-{end_ms - 1}"), ("sort_by", "start_time"), ("limit", "1")]
        version = "1" if self._by_page_number else "2"
        return read_answer(self._read.ask([*params, ("version", version)]), self._name).total or 0

    def _learnt_depth(self, refusal: CallHistoryError | None) -> Exception:
        """Take note of how deep the server goes, and return what to raise."""
        depth = (self._page_number - 1) * self._limit if self._by_page_number and refusal else self.counted
        known = self._cap and depth >= self._cap
        if not depth or (known and self._traits.keyset_capped and not self._by_page_number):
            return refusal or DataError(f"{self._name}: the API serves {self.counted} of {self.total} rows")
        if not known:
            self._traits.remember(result_cap=depth)
        if not self._by_page_number:
            self._traits.remember(keyset_capped=True)
        if self._end_ms - self._start_ms == 1:
            return self._full_millisecond(self.total or self.counted)
        return ReadAgainError(f"{self._name}: the API goes {depth} rows deep; the window is to be read in parts")

    def _full_millisecond(self, total: int) -> DataError:
        cap = self._traits.cap(self._client.settings.result_cap)
        return DataError(f"{self._name}: {total} calls in one millisecond, more than STRINGEEX_RESULT_CAP ({cap})")

    def _sift(self, rows: list[JsonValue]) -> list[JsonValue]:
        """Return the rows to keep; count them, and keep what recognises them later."""
        starts = [start_ms_of(row) for row in rows]
        outside = [start is not None and not self._start_ms <= start < self._end_ms for start in starts]
        if all(outside):
            raise RetryableError(f"{self._name}: the answer is another window's (all {len(rows)} rows of a page)")
        fingerprint = fingerprint_of(rows)
        if fingerprint in self._fingerprints:
            self._read.repeated_rows += len(rows)
            return []
        self._fingerprints.add(fingerprint)

        kept: list[JsonValue] = []
        on_page: set[str] = set()
        for index, row in enumerate(rows):
            row_id = call_id_of(row)
            if row_id is None:
                if index < self._rows_before_asking_again:
                    self._read.repeated_rows += 1
                    continue
            elif row_id in on_page:
                self.doubled_ids.add(row_id)
            elif hash(row_id) in self._ids:
                self._kept_back.append(row)
                continue
            else:
                on_page.add(row_id)
                self._ids.add(hash(row_id))
            self.counted += 1
            self._outside += outside[index]
            self._read.outside_rows += self._read.is_outside(starts[index])
            kept.append(row)
        return kept

    def _is_last(self, answer: Answer, progressed: bool) -> bool:
        """Whether nothing more can be asked for, or need be: the count is reached, and not by a full page by chance."""
        goes_on = self._by_page_number or answer.search_after is not None
        full = len(answer.rows) >= min(self._limit, self._traits.page_size or self._limit)
        # While the server's largest page is unknown, its likely ones have to count as full.
        full |= self._traits.page_size is None and len(answer.rows) in (DEFAULT_LIMIT, SAFE_LIMIT)
        if self.total is None or self.counted < self.total:
            return not goes_on
        if self.counted > self.total:
            self._overfull_pages += 1
            return not (goes_on and full and (self._overfull_pages == 1 or progressed))
        at_cap = self._by_page_number and 0 < self._cap < self.counted + len(answer.rows)
        return not (goes_on and full and progressed) or at_cap

    def _advance(self, answer: Answer, progressed: bool) -> bool:
        """Set the position of the next request; return false when the server does not go on."""
        self._stalls = 0 if progressed else self._stalls + 1
        if self._stalls == _STALLS_ALLOWED:
            self._stuck = "the API keeps serving the same page"
            return False
        if progressed:
            self._traits.saw_full_page(len(answer.rows))
        if self._by_page_number:
            self._advance_page_number(len(answer.rows), progressed)
        elif answer.search_after and answer.search_after not in self._cursors:
            self._cursors.add(answer.search_after)
            self._cursor = answer.search_after
        return True

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

    def _end(self) -> Iterator[list[JsonValue]]:
        """Decide about the rows that were kept back, by the count."""
        if self._outside * 2 > self.counted:
            raise RetryableError(
                f"{self._name}: the answer is another window's ({self._outside} of {self.counted} rows lie outside)"
            )
        kept_back, self._kept_back = self._kept_back, []
        # A row that went away has moved the following ones to an earlier page, past what was read.
        fell = self._by_page_number and len(self._totals) > 1 and self.total != max(t or 0 for t in self._totals)
        is_steady = len(self._totals) == 1 or not self._by_page_number
        if self.counted == self.total and not (self._stuck or fell):
            self._read.repeated_rows += len(kept_back)
            return
        is_proven = self.counted + len(kept_back) == self.total and is_steady and not self._stuck
        if is_proven and kept_back and not self._wanted_limit and not self._comes_again(kept_back):
            is_proven, self._stuck = False, "another read, with other pages, served other calls"
        yield from self._give(kept_back)
        if self._is_short_of_equal_keys():
            yield from self._with_another_page_size()
            is_proven = self.counted == self.total
        if not is_proven:
            counts = "gives no usable count" if self.total is None else f"counts {self.total} calls"
            others = sorted(t or 0 for t in self._totals if t != self.total)[:3]
            before = f" (before: {', '.join(map(str, others))})" if others else ""
            stuck = f"; {self._stuck}" if self._stuck else ""
            self.dispute = f"{self._name}: the API {counts}{before}, and served {self.counted}{stuck}"

    def _give(self, rows: list[JsonValue]) -> Iterator[list[JsonValue]]:
        if rows:
            self.doubled_ids |= {row_id for row in rows if (row_id := call_id_of(row)) is not None}
            self.counted += len(rows)
            yield rows

    def _is_short_of_equal_keys(self) -> bool:
        """Whether a keyset may have skipped rows that share start and id with the last row of a page."""
        return (
            not self._by_page_number
            and not self._wanted_limit
            and self._stuck is None
            and self.total is not None
            and 0 < self.total - self.counted <= len(self._cursors)
            and self._limit > 2
        )

    def _comes_again(self, kept_back: list[JsonValue]) -> bool:
        """Whether another read serves the same calls, and the rows that were kept back as second rows again."""
        again = self._another_part()
        for _ in again.pages():
            pass
        second = {row_id for row in kept_back if (row_id := call_id_of(row)) is not None}
        is_same = again._ids == self._ids and again.counted == self.counted + len(kept_back)
        return again.dispute is None and is_same and second <= again.doubled_ids

    def _another_part(self) -> Part:
        """Return a read of the same part with page borders elsewhere."""
        page_rows = self._traits.page_size or self._limit
        return Part(self._read, self._start_ms, self._end_ms, may_split=False, limit=max(page_rows - 1, 2))

    def _with_another_page_size(self) -> Iterator[list[JsonValue]]:
        """Read the part once more, with page borders elsewhere; give the rows of ids that it holds more often."""
        again = self._another_part()
        rows = [row for page in again.pages() for row in page if call_id_of(row) in again.doubled_ids]
        first = {call_id_of(row): place for place, row in reversed(list(enumerate(rows)))}
        more = [row for place, row in enumerate(rows) if place != first[call_id_of(row)]]
        more = [row for row in more if call_id_of(row) not in self.doubled_ids]
        if again.dispute is None and self.counted + len(more) == self.total:
            yield from self._give(more)

    @property
    def _name(self) -> str:
        start, end = (instant_at(instant) for instant in (self._start_ms, self._end_ms))
        return f"call history {start.isoformat()} to {end.isoformat()}"


def _pieces(total: int, cap: int) -> int:
    """Into how many equal parts to split: with a count of exactly the cap nothing is known, and halves it is."""
    return 2 if total <= cap else -(-3 * total // (2 * cap))
