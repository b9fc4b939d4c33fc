"""The participants of calls: one field in four shapes, as one table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

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

COLUMNS = ("participant", "kind", "number_e164", "raw")
"""The columns of ``call_participants`` that the entry itself decides."""


class ParticipantKind(StrEnum):
    """What a participant is."""

    AGENT = "agent"
    PHONE = "phone"
    USER = "user"
    UNKNOWN = "unknown"


class _Entry(NamedTuple):
    participant: str | None
    says_agent: bool
    raw: str


@dataclass(frozen=True)
class Participants:
    """The participants of a batch of calls, flat: call ``i`` has those from ``offsets[i]`` up to ``offsets[i + 1]``.

    ``columns`` holds ``COLUMNS``; ``unread`` the values, by call, that no list of participants can be made of.
    """

    columns: dict[str, pa.Array[Any]]
    offsets: pa.Array[Any]
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


def read_participants(values: Sequence[JsonValue], agent_ids: Sequence[str | None], region: str) -> Participants:
    """Read the field ``participants`` of a batch of calls, whose agents are ``agent_ids``.

    Understood are null; names between semicolons (``"user1;84909;"``); a list of names and objects, or one object; and
    any of these as JSON inside a string. An agent is who says so or has the id of the call's agent; ``phone`` is what
    ``transforms.phones`` takes for a number of ``region`` or abroad; ``user`` any other name; an entry that names nobody is
    ``unknown``.
    """
    unread: dict[int, JsonValue] = {}
    entries: list[_Entry] = []
    is_agent: list[bool] = []
    offsets = np.zeros(len(values) + 1, dtype=np.int32)
    for call, value in enumerate(values):
        if not is_blank(value):
            items = _items(value)
            if items is None:
                unread[call] = value
            else:
                read = [_entry(item) for item in items]
                entries += read
                is_agent += [
                    e.says_agent or (e.participant is not None and e.participant == agent_ids[call]) for e in read
                ]
        offsets[call + 1] = len(entries)

    participant = pa.array([entry.participant for entry in entries], pa.string())
    e164 = parse_numbers(participant, region).e164
    kinds = [
        _kind(entry, agent, number)
        for entry, agent, number in zip(entries, is_agent, e164.is_valid().to_pylist(), strict=True)
    ]
    columns = {
        "participant": participant,
        "kind": pa.array(kinds, pa.string()),
        "number_e164": e164,
        "raw": pa.array([entry.raw for entry in entries], pa.string()),
    }
    return Participants(columns, pa.array(offsets), unread)


def _items(value: JsonValue) -> list[JsonValue] | None:
    """Return the entries of one call's field, or None if it has no shape that we know."""
    if isinstance(value, str):
        return _items_of_text(value)
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) else None


def _items_of_text(value: str) -> list[JsonValue]:
    if value.lstrip().startswith(("[", "{")):
        try:
            decoded = json.loads(value)
        except (ValueError, RecursionError):
            decoded = None  # Not JSON after all: a name may begin with a bracket.
        if isinstance(decoded, (list, dict)):
            return decoded if isinstance(decoded, list) else [decoded]
    names: list[JsonValue] = list(value.split(";"))
    while names and is_blank(names[-1]):
        names.pop()
    return names


def _entry(item: JsonValue) -> _Entry:
    says_agent = False
    name = text(item)
    if isinstance(item, dict):
        name = next((found for key in NAME_KEYS if (found := text(item.get(key))) and found.strip()), None)
        says_agent = any(str(item.get(key)).strip().lower() == ParticipantKind.AGENT for key in KIND_KEYS)
    return _Entry((storable(name).strip() or None) if name else None, says_agent, exact_json(item))


def _kind(entry: _Entry, is_agent: bool, is_number: bool) -> ParticipantKind:
    if is_agent:
        return ParticipantKind.AGENT
    if is_number:
        return ParticipantKind.PHONE
    return ParticipantKind.UNKNOWN if entry.participant is None else ParticipantKind.USER
