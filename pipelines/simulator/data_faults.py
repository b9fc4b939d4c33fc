"""Faults of the calls that a portal serves: fields that are gone or odd, calls that are gone, another portal's calls.

They are wrong in every answer for as long as they are switched on, whole and well formed, with counts that agree; and
they act beside each other and beside another fault. What is not told by ``call_id`` or ``share`` is hit in every row.
"""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from pipelines.simulator.fault import Fault
from pipelines.simulator.generator import generate
from pipelines.simulator.history import HistoryPage, HistoryQuery
from pipelines.simulator.rows import Row
from pipelines.simulator.state import PortalState

_INSTANT_FROM_MS = 10**11
_OTHER_SEEDS = 1_000_003
_NO_UTF8 = "\udcff"  # what Python reads the byte 0xFF as, and writes as that byte again
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # those that stand for no byte


@dataclass(kw_only=True)
class DataFault(Fault):
    """Base of the faults of this module."""

    acts_beside_others: ClassVar[bool] = True


@dataclass(kw_only=True)
class RowFault(DataFault):
    """Base of what changes rows: of the call ``call_id`` only, or of a ``share`` of all calls, drawn by ``seed``."""

    call_id: str | None = None
    share: float = 1.0

    def on_page(self, page: HistoryPage, query: HistoryQuery, portal: PortalState) -> HistoryPage:  # noqa: D102
        return dataclasses.replace(page, rows=[self._changed(row) for row in page.rows])

    def _changed(self, served: bytes) -> bytes:
        row: Row = json.loads(served.decode(errors="surrogateescape"))
        if self.call_id is not None and row.get("id") != self.call_id:
            return served
        if not _drawn(f"{self.seed}/{row.get('id')}", self.share):
            return served
        self.change(row)
        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
        escaped = _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return escaped.encode(errors="surrogateescape")

    @abstractmethod
    def change(self, row: Row) -> None:
        """Change a row in place."""


@dataclass(kw_only=True)
class RenameField(RowFault):
    """A field is served under another name."""

    field: str
    to: str

    def change(self, row: Row) -> None:  # noqa: D102
        if self.field in row:
            row[self.to] = row.pop(self.field)


@dataclass(kw_only=True)
class DropField(RowFault):
    """A field is not served."""

    field: str

    def change(self, row: Row) -> None:  # noqa: D102
        row.pop(self.field, None)


@dataclass(kw_only=True)
class NullField(RowFault):
    """A field is served as null."""

    field: str

    def change(self, row: Row) -> None:  # noqa: D102
        row[self.field] = None


@dataclass(kw_only=True)
class SetField(RowFault):
    """A field is served with the same value in each row."""

    field: str
    value: Any

    def change(self, row: Row) -> None:  # noqa: D102
        row[self.field] = self.value


def _seconds(value: Any) -> Any:
    return value // 1000 if isinstance(value, int) and value >= _INSTANT_FROM_MS else value


def _iso8601(offset_hours: float | None) -> Callable[[Any], Any]:
    def form(value: Any) -> Any:
        if not isinstance(value, int) or value < _INSTANT_FROM_MS:
            return value
        zone = UTC if offset_hours is None else timezone(timedelta(hours=offset_hours))
        text = (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=value)).astimezone(zone)
        return text.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    return form


def _without_offset(value: Any) -> Any:
    text = _iso8601(None)(value)
    return text.removesuffix("Z") if text != value else value


def _float(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError):
        return value


def _invalid_utf8(value: Any) -> Any:
    text = str(value)
    return text[:1] + _NO_UTF8 + text[1:]


def _no_break(value: Any) -> Any:
    text = str(value)
    return f"\u202a{text[:-6]}\u00a0{text[-6:-3]}\u2011{text[-3:]}\u202c"


_FORMS: dict[str, Callable[[Any], Any]] = {
    "seconds": _seconds,
    "iso8601": _iso8601(None),
    "iso8601_local": _iso8601(7),
    "iso8601_without_offset": _without_offset,
    "text": str,
    "float": _float,
    "invalid_utf8": _invalid_utf8,
    "no_break": _no_break,
    "tel": lambda value: f"tel:+{value};ext=12",
    "sip": lambda value: f"sip:+{value}@pbx.example.com;user=phone",
}


@dataclass(kw_only=True)
class FieldAs(RowFault):
    """A field is served in another form; one that is null or missing stays so.

    ``seconds`` and ``iso8601`` (``_local``: with +07:00) are instants that were milliseconds, ``text`` and ``float``
    any value; ``invalid_utf8`` puts the byte 0xFF behind the first character. ``no_break`` (marks of direction, a
    no-break space and hyphen), ``tel`` and ``sip`` are numbers that were digits with their country code. Raises
    ValueError for another form.
    """

    field: str
    form: Literal[
        "seconds",
        "iso8601",
        "iso8601_local",
        "iso8601_without_offset",
        "text",
        "float",
        "invalid_utf8",
        "no_break",
        "tel",
        "sip",
    ]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.form not in _FORMS:
            raise ValueError(f"form {self.form!r}: choose one of {', '.join(_FORMS)}")

    def change(self, row: Row) -> None:  # noqa: D102
        if row.get(self.field) is not None:
            row[self.field] = _FORMS[self.form](row[self.field])


@dataclass(kw_only=True)
class FewerRows(DataFault):
    """Only the first ``keep`` calls of each window that is asked for are there."""

    keep: int

    def shows(self, place: int, call_id: str) -> bool:  # noqa: D102
        return place < self.keep


@dataclass(kw_only=True)
class OnlyShare(DataFault):
    """Only a ``share`` of the calls is there: the same ones in every window, drawn by ``seed``."""

    share: float

    def shows(self, place: int, call_id: str) -> bool:  # noqa: D102
        return _drawn(f"{self.seed}/{call_id}", self.share)


@dataclass(kw_only=True)
class DuplicateIds(DataFault):
    """A ``share`` of the calls, drawn by ``seed``, have a second row with the same id, right behind the first.

    It differs in its ``field``, or is the same row when that is null. It is counted, and a page can end between both.
    """

    share: float = 1.0
    field: str | None = "contactname"

    def double(self, call_id: str, row: bytes) -> bytes | None:  # noqa: D102
        if not _drawn(f"{self.seed}/{call_id}", self.share):
            return None
        if self.field is None:
            return row
        return SetField(field=self.field, value="the second row")._changed(row)


@dataclass(kw_only=True)
class OtherPortal(DataFault):
    """The calls of another portal: none of this one's; as many, or ``calls``, on the same local days; by ``seed``."""

    calls: int | None = None
    timezone: str = "Asia/Ho_Chi_Minh"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._other: PortalState | None = None

    def portal_asked(self, portal: PortalState) -> PortalState:  # noqa: D102
        if self._other is None:
            self._other = self._made(portal)
        return self._other

    def _made(self, portal: PortalState) -> PortalState:
        span = portal.store.span()
        if span is None:
            return PortalState(options=portal.options, clock=portal.clock)
        count, *ends_ms = span
        zone = ZoneInfo(self.timezone)
        first, last = (datetime.fromtimestamp(end_ms / 1000, zone).date() for end_ms in ends_ms)
        total = count if self.calls is None else self.calls
        calls = generate(_OTHER_SEEDS + self.seed, first, (last - first).days + 1, total, timezone=self.timezone)
        return PortalState(calls, portal.options, clock=portal.clock)


def _drawn(name: str, share: float) -> bool:
    return zlib.crc32(name.encode(errors="backslashreplace")) < share * 2**32
