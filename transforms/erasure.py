"""What is taken out of a row, so that nobody can tell of whom of the erased people it spoke.

People are known by keyed hashes alone. So the same rule serves when somebody is erased, and ever after: on each row
that the API serves again, or that a backup brings back. A row keeps its id, its times, its durations and its words, for
the counts; see `Erased.emptied` for what goes.
"""

from __future__ import annotations

import hmac
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

from transforms.call_ids import usable_call_id
from transforms.calls import KNOWN_FIELDS
from transforms.columns import CALL_ID, Table
from transforms.fields import (
    INSTANT_FROM_SECONDS,
    INSTANT_UNTIL_MS,
    columns_of,
    instant_ms,
    storable,
    text,
    whole_number,
)
from transforms.json_text import ExactNumber, JsonValue, RepeatedKeys
from transforms.participants import entries_of, name_of
from transforms.person import Person
from transforms.phones import parse_numbers
from transforms.schema import CALLS
from transforms.types import INSTANT, JSON, TEXT

NUMBER, EMAIL, IDENTIFIER = "number", "email", "identifier"

_CACHED_TOKENS = _CACHED_TEXTS = 65_536
_LONGEST_CACHED = 100
_DIGEST_DIGITS = 32
_SHORTEST_NUMBER, _LONGEST_NUMBER = 5, 20
_DIGITS = re.compile("[0-9]+")
_DIGIT_GROUPS = re.compile(r"[0-9]+(?:[\s().\-/]{0,3}[0-9]+)*")
_ADDRESS = re.compile(r"[\w.+'%&-]+@[\w-]+(?:\.[\w-]+)*")
_WORD = re.compile(r"[\w-]{4,}")
"""An id inside of a longer text; a shorter one, such as ``7``, would be found everywhere."""
_A_COUNT_UNTIL = 100_000_000
"""No duration and no code has nine digits, and hardly any phone number with its country code has fewer."""

_CUSTOMER = frozenset({"customer_number"})
_AGENT = frozenset({"account", "account_name", "account_email"})
_TAKES_PART = _CUSTOMER | _AGENT | {"id", "stringee_number", "from_user_id", "callee", "participants"}
_OF_CUSTOMER = _CUSTOMER | {"contactname", "company_id", "companyname"}
_OF_AUDIO = frozenset({"recorded", "have_voice_mail", "record_path"})
_MAY_BE_AGENT = ("from_user_id", "callee", "stringee_number")
_PHONES = ("customer_number", "stringee_number")
_INSTANTS = frozenset({"answer_time", "first_answer_time", "enqueue_time"}) | {
    column.source for column in CALLS.columns if column.type is INSTANT
}
_TEXTS = frozenset(column.source for column in CALLS.columns if column.type is TEXT) - {
    "direction",
    "status",
    "video_call",
}
_COUNTS = KNOWN_FIELDS - _TEXTS - _INSTANTS - {"participants", "object_type", "id"}

WHOLE_ROW = ""
"""Stands for the field of a row that is no object."""
NOBODY: frozenset[str] = frozenset()


def key_id(key: bytes) -> str:
    """Return what tells one key from another, and nothing else of it: 16 hexadecimal digits."""
    return hmac.digest(key, b"which key is it", "sha256").hex()[:16]


def digests_of(person: Person, key: bytes) -> frozenset[str]:
    """Return a person as keyed hashes, ``kind:hash``: HMAC-SHA-256 of each form that a text can have them in."""
    return frozenset(_digest(kind, token, key) for kind, token in person.tokens)


def _digest(kind: str, token: str, key: bytes) -> str:
    if kind == NUMBER:
        # Of the many digits in a row, most are told to be somebody else's by how many they are.
        kind = f"{NUMBER}{len(token)}"
    return f"{kind}:{hmac.digest(key, f'{kind}:{token}'.encode(), 'sha256').hex()[:_DIGEST_DIGITS]}"


class Erased:
    """The people who are erased, by their ``digests`` under ``key``; ``region`` is that of national phone numbers."""

    def __init__(self, digests: Collection[str], key: bytes, region: str) -> None:
        self.region = region
        self._key = key
        self._digests = frozenset(digests)
        kinds = frozenset(digest.partition(":")[0] for digest in digests)
        self._lengths = frozenset(int(kind.removeprefix(NUMBER)) for kind in kinds if kind.startswith(NUMBER))
        self._has_emails, self._has_ids = EMAIL in kinds, IDENTIFIER in kinds
        self._is_known = lru_cache(_CACHED_TOKENS)(self._look_up)
        self._mentions_again = lru_cache(_CACHED_TEXTS)(self._mentions)

    def _look_up(self, kind: str, token: str) -> bool:
        return _digest(kind, token, self._key) in self._digests

    def mentions(self, value: str) -> bool:
        """Whether a text speaks of somebody, in any form of `transforms.person`; never because of a longer number."""
        # Short texts come again and again: words, agents, lines. Long ones would fill the memory.
        return self._mentions_again(value) if len(value) <= _LONGEST_CACHED else self._mentions(value)

    def _mentions(self, value: str) -> bool:
        value = storable(value)
        if not value.isascii():
            value = unicodedata.normalize("NFKC", value)  # digits in full width are digits
        if self._lengths and any(self._is_known(NUMBER, number) for number in _numbers_in(value, self._lengths)):
            return True
        if self._has_emails and "@" in value:
            found = (match[0].lstrip("'").lower() for match in _ADDRESS.finditer(value))
            if any(self._is_known(EMAIL, address) for address in found):
                return True
        if not self._has_ids:
            return False
        words = (match[0] for match in _WORD.finditer(value) if not match[0].isdigit())
        return self._is_known(IDENTIFIER, value.strip()) or any(self._is_known(IDENTIFIER, word) for word in words)

    def is_in(self, value: JsonValue) -> bool:
        """Whether a JSON value of any depth speaks of somebody, in its names or its values."""
        return any(map(self.mentions, _texts_in(value)))

    def hits(self, rows: Sequence[JsonValue]) -> list[frozenset[str]]:
        """Return for each row, as the API serves them, the fields that speak of somebody; `NOBODY` for most.

        A number counts in whatever form its column would be made of, such as ``sip:``. An instant is never a number,
        nor is a count.
        """
        found = self._fields_of_alike(rows) or [self._fields_in(row) for row in rows]
        if self._lengths:
            places = [(place, *named) for place, row in enumerate(rows) for named in _phones_in(row)]
            e164 = parse_numbers(pa.array([phone for _, _, phone in places], pa.string()), self.region).e164.to_pylist()
            for (place, field, _), number in zip(places, e164, strict=True):
                if number is not None and self._is_known(NUMBER, number.removeprefix("+")):
                    found[place] |= {field}
        return found

    def _fields_of_alike(self, rows: Sequence[JsonValue]) -> list[frozenset[str]]:
        """Return the same as `_fields_in` for rows that all have the same fields, as most have; else nothing.

        Each distinct value of a field is looked at once.
        """
        plain = [row for row in rows if type(row) is dict]
        columns = columns_of(plain) if len(plain) == len(rows) else {}
        if not columns:
            return []
        found = [NOBODY] * len(rows)
        for field, values in columns.items():
            if field in _INSTANTS and all(type(value) is int for value in values) and _are_instants(values):
                continue
            try:
                distinct = set(zip(map(type, values), values, strict=True))  # for 1 and True are equal
                speaking = {value for _, value in distinct if self._speaks(field, value)}
            except TypeError:  # lists and objects are no members of a set
                places = [place for place, value in enumerate(values) if self._speaks(field, value)]
            else:
                places = (
                    [p for p, v in enumerate(values) if v in speaking and self._speaks(field, v)] if speaking else []
                )
            for place in places:
                found[place] |= {field}
        return found

    def _fields_in(self, row: JsonValue) -> frozenset[str]:
        if not isinstance(row, dict):
            return frozenset({WHOLE_ROW}) if self.is_in(row) else NOBODY
        return frozenset(field for field, value in _pairs(row) if self._speaks(field, value))

    def _speaks(self, field: str, value: JsonValue) -> bool:
        """Whether a field speaks of somebody: by its name, if we do not know it, or by what it says."""
        if field not in KNOWN_FIELDS and self.mentions(field):
            return True
        if value is None or isinstance(value, bool) or _says_a_number(field, value):
            return False
        return self.mentions(value) if isinstance(value, str) else self.is_in(value)

    @staticmethod
    def takes_part(hits: frozenset[str]) -> bool:
        """Whether somebody is on the call, by the fields that speak of them: then the audio has their voice."""
        return not hits.isdisjoint(_TAKES_PART)

    def emptied(self, row: JsonValue, hits: frozenset[str]) -> frozenset[str]:
        """Return the fields of a row that lose what they say, given those that speak of somebody.

        Those go as a whole: what stands beside a number may tell of the person too. With the customer goes all that the
        contact book says of them, with the agent all that is theirs. Of a call on which somebody is, what points to the
        audio goes too, and every field that we do not know: nobody can tell what it says of them. Of ``participants``,
        only the entries go that are theirs.
        """
        if not isinstance(row, dict):
            return hits
        emptied = set(hits)
        if hits & _CUSTOMER:
            emptied |= _OF_CUSTOMER
        if hits & _AGENT:
            emptied |= _AGENT
            own = self.own_ids(row, hits)
            emptied |= {f for f, value in _pairs(row) if f in _MAY_BE_AGENT and (text(value) or "").strip() in own}
            if any(name_of(entry) in own for entry in _entries(row)):
                emptied.add("participants")
        if self.takes_part(hits):
            emptied |= _OF_AUDIO | (row.keys() - KNOWN_FIELDS)
        return frozenset(emptied)

    def without(self, row: JsonValue, emptied: frozenset[str], own_ids: Collection[str] | None = None) -> JsonValue:
        """Return a row without what the ``emptied`` fields say. Where its id speaks of somebody, it gets another one.

        ``own_ids`` are those of an erased agent; by default, what the row itself says.
        """
        if not emptied:
            return row
        if not isinstance(row, dict):
            return None
        own = self.own_ids(row, emptied) if own_ids is None else own_ids
        pairs = [
            (field, self._replaced(row, field, value, own) if field in emptied else value)
            for field, value in _pairs(row)
            if field not in emptied or field in KNOWN_FIELDS
        ]
        return RepeatedKeys(pairs) if isinstance(row, RepeatedKeys) else dict(pairs)

    @staticmethod
    def own_ids(row: dict[str, JsonValue], emptied: frozenset[str]) -> frozenset[str]:
        """Return the ids that a row gives its agent, where it is the agent who is erased."""
        if emptied.isdisjoint(_AGENT):
            return NOBODY
        named = ((text(value) or "").strip() for field, value in _pairs(row) if field == "account")
        return frozenset(filter(None, named))

    def redacted(self, rows: Sequence[JsonValue]) -> list[JsonValue]:
        """Return rows without the people who are erased; a row that speaks of none of them is the very same object."""
        return [
            self.without(row, self.emptied(row, hits)) if hits else row
            for row, hits in zip(rows, self.hits(rows), strict=True)
        ]

    def _replaced(self, row: dict[str, JsonValue], field: str, value: JsonValue, own: Collection[str]) -> JsonValue:
        if field == "id":
            call_id = usable_call_id(value)
            # A row without a usable id stays without one, and in quarantine.
            return [] if call_id is None else self.other_call_id(call_id)
        if field == "start_time":
            return "erased"  # no instant, so a row that is no call stays none
        if field == "participants":
            entries = entries_of(value)
            return None if entries is None else self.other_entries(entries, own)
        return None

    def columns_without(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values that a row of a plain table gets: null for a text that speaks of somebody.

        With it go the columns that are made of the same field. A call's id becomes another one. Null where any other
        part of the key speaks of somebody: the row has to go. Nothing changes where the result is empty.
        """
        texts = [column for column in table.columns if column.type in (TEXT, JSON)]
        found = [column for column in texts if row[column.name] is not None and self.mentions(row[column.name])]
        if any(column.key and column.name != CALL_ID.name for column in found):
            return None
        sources = {column.source or column.name for column in found}
        emptied = [column for column in table.columns if (column.source or column.name) in sources and column.nullable]
        changed: dict[str, Any] = dict.fromkeys(column.name for column in emptied)
        if CALL_ID.name in {column.name for column in found}:
            changed[CALL_ID.name] = self.other_call_id(row[CALL_ID.name])
        return changed

    def other_call_id(self, call_id: str) -> str:
        """Return the id that a call gets whose own speaks of somebody: the same whenever it is served again."""
        return f"erased-{_digest('call', call_id, self._key).partition(':')[2]}"

    def other_entries(self, entries: Sequence[JsonValue], own: Collection[str] = ()) -> list[JsonValue]:
        """Return participants with null in place of those who are erased, or have one of their ``own`` ids."""
        names = [name_of(entry) for entry in entries]
        e164 = parse_numbers(pa.array(names, pa.string()), self.region).e164.to_pylist()
        return [
            None
            if self.is_in(entry)
            or (name is not None and name in own)
            or (number is not None and self._is_known(NUMBER, number.removeprefix("+")))
            else entry
            for entry, name, number in zip(entries, names, e164, strict=True)
        ]


def _numbers_in(value: str, lengths: Collection[int]) -> Iterator[str]:
    """Yield the digits of whatever may be a number of one of ``lengths``: a run of digits, or runs that stand close."""
    for close in _DIGIT_GROUPS.finditer(value):
        written = close[0]
        if written.isdigit():
            if len(written) in lengths:
                yield written
            continue
        groups = _DIGITS.findall(written)
        for first in range(len(groups)):
            digits = ""
            for group in groups[first:]:
                digits += group
                if len(digits) in lengths:
                    yield digits
                elif len(digits) > _LONGEST_NUMBER:
                    break


def _texts_in(value: JsonValue) -> Iterator[str]:
    """Yield every text and number of a JSON value as text, and every name: of any depth, so without recursion."""
    pending = [value]
    while pending:
        inner = pending.pop()
        if isinstance(inner, str):
            yield inner
        elif isinstance(inner, ExactNumber):
            yield inner.text
        elif isinstance(inner, int | float) and not isinstance(inner, bool):
            yield str(inner)
        elif isinstance(inner, list):
            pending += inner
        elif isinstance(inner, dict):
            for name, of_name in _pairs(inner):
                pending += (name, of_name)


def _pairs(row: dict[str, JsonValue]) -> Iterable[tuple[str, JsonValue]]:
    return row.pairs if isinstance(row, RepeatedKeys) else row.items()


def _entries(row: dict[str, JsonValue]) -> Iterator[JsonValue]:
    for field, value in _pairs(row):
        if field == "participants":
            yield from entries_of(value) or ()


def _phones_in(row: JsonValue) -> Iterator[tuple[str, str]]:
    """Yield the texts that columns of phone numbers are made of, each with its field."""
    if not isinstance(row, dict):
        return
    for field, value in _pairs(row):
        if field in _PHONES and (number := text(value)):
            yield field, storable(number)
        elif field == "participants" and value is not None:
            for entry in entries_of(value) or ():
                if name := name_of(entry):
                    yield field, name


def _are_instants(values: Sequence[JsonValue]) -> bool:
    """Whether whole numbers are instants, all of them, as they nearly always are."""
    numbers: Sequence[Any] = values
    return bool(min(numbers) >= INSTANT_FROM_SECONDS and max(numbers) < INSTANT_UNTIL_MS)


def _says_a_number(field: str, value: JsonValue) -> bool:
    """Whether a value is what its field is for: an instant or a count, which may have the digits of a phone number."""
    if field in _INSTANTS:
        if instant_ms(value) is not None:
            return True
    elif field not in _COUNTS:
        return False
    number = whole_number(value)
    return number is not None and abs(number) < _A_COUNT_UNTIL
