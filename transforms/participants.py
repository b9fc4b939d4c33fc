"""The participants of calls: one field in four shapes, as one table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.fields import is_blank, storable, text
from transforms.json_text import JsonValue, exact_json
from transforms.phones import parse_numbers

NAME_KEYS = (
    "number",
    "phone",
    "phone_number",
    "userId",
    "user_id",
    "account",
    "agent_id",
    "id",
    "alias",
    "name",
)
"""Where an entry that is an object says who it is; the first that holds something counts. The API's documentation names
``number`` and ``alias`` (of a call's ``to`` and ``from``) and ``account``; it does not describe a participant."""

KIND_KEYS = ("type", "kind", "role")
"""Where such an entry can say that it is an agent."""


_BETWEEN_NAMES = re.compile(r";(?!\s*(?:ext|isub|phone-context|postd|user|transport|method|ttl|maddr)=)", re.IGNORECASE)
"""A semicolon that does not begin a parameter of ``tel:`` (RFC 3966) or ``sip:`` (RFC 3261)."""

ENTRY_COLUMNS = ("participant", "kind", "number_e164", "raw")
"""The columns that an entry decides, in the order in which a call's ``row_hash`` covers them."""


class ParticipantKind(StrEnum):
    """What a participant is."""

    AGENT = "agent"
    PHONE = "phone"
    USER = "user"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Participants:
    """The participants of a batch of calls, flat: call ``i`` has those from ``offsets[i]`` up to ``offsets[i + 1]``.

    ``columns`` holds the ``ENTRY_COLUMNS``; ``unread`` the values, by call, that make no list of participants.
    """

    columns: dict[str, pa.Array[Any]]
    offsets: pa.Int32Array
    unread: dict[int, JsonValue]

    @property
    def counts(self) -> Any:
        """Participants per call, as a NumPy array of int32."""
        return np.diff(self.offsets.to_numpy())

    @property
    def calls(self) -> Any:
        """For each participant, the place of its call in the batch."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    @property
    def positions(self) -> Any:
        """For each participant, its place in its call, from 0."""
        return np.arange(len(self.calls), dtype=np.int32) - self.offsets.to_numpy()[self.calls]


def read_participants(values: Sequence[JsonValue], agent_ids: pa.Array[Any], region: str) -> Participants:
    """Read the field ``participants`` of a batch of calls, whose agents are ``agent_ids``.

    Understood are null; names between semicolons (``"user1;84909;"``); a list of names and objects, or one object; and
    any of these as JSON inside a string. An agent is who says so or has the id of the call's agent; ``phone`` is what
    ``transforms.phones`` takes for a number of ``region`` or abroad; ``user`` any other name; an entry that names
    nobody is ``unknown``.
    """
    unread: dict[int, JsonValue] = {}
    entries: list[JsonValue] = []
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    for call, value in enumerate(values):
        items = entries_of(value)
        if items is None:
            unread[call] = value
        else:
            entries += items
        offsets[call + 1] = len(entries)
    own_agent = agent_ids.take(np.repeat(np.arange(len(values)), np.diff(offsets)))
    return Participants(_columns(entries, own_agent, region), pa.array(offsets, pa.int32()), unread)


def _columns(entries: list[JsonValue], own_agent: pa.Array[Any], region: str) -> dict[str, pa.Array[Any]]:
    participant = pa.array([name_of(entry) for entry in entries], pa.string())
    number_e164 = parse_numbers(participant, region).e164
    says_agent: Any = pa.array([isinstance(entry, dict) and _says_agent(entry) for entry in entries], pa.bool_())
    is_own_agent: Any = pc.equal(participant, own_agent)
    is_agent: Any = pc.or_(says_agent, is_own_agent.fill_null(False))
    known = pc.if_else(participant.is_valid(), pa.scalar(ParticipantKind.USER), pa.scalar(ParticipantKind.UNKNOWN))
    kind = pc.if_else(number_e164.is_valid(), pa.scalar(ParticipantKind.PHONE), known)
    kind = pc.if_else(is_agent, pa.scalar(ParticipantKind.AGENT), kind)
    raw = pa.array([exact_json(entry) for entry in entries], pa.string())
    return {"participant": participant, "kind": kind, "number_e164": number_e164, "raw": raw}


def entries_of(value: JsonValue) -> list[JsonValue] | None:
    """Return the participants of one call's field, as they were served; None if it has no shape that we know."""
    if value is None:
        return []
    if isinstance(value, str):
        return _items_of_text(value)
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) else None


def _items_of_text(value: str) -> list[JsonValue]:
    if value.lstrip().startswith(("[", "{", "null")):
        try:
            decoded: JsonValue = json.loads(value)
        except (ValueError, RecursionError):
            decoded = value  # Not JSON after all: a name may begin with a bracket.
        if decoded is None:
            return []
        if isinstance(decoded, (list, dict)):
            return decoded if isinstance(decoded, list) else [decoded]
    names: list[JsonValue] = list(_BETWEEN_NAMES.split(value) if "=" in value else value.split(";"))
    while names and is_blank(names[-1]):
        names.pop()
    return names


def name_of(entry: JsonValue) -> str | None:
    """Return who a participant is, by number or id; None for one who is not named."""
    if isinstance(entry, dict):
        names = (text(entry.get(key)) for key in NAME_KEYS)
        name = next((name for name in names if not is_blank(name)), None)
    else:
        name = text(entry)
    return storable(name).strip() or None if name else None


def _says_agent(entry: dict[str, JsonValue]) -> bool:
    return any((text(entry.get(key)) or "").strip().lower() == ParticipantKind.AGENT for key in KIND_KEYS)
