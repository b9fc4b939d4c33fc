"""Which fields rows have, and of which JSON types: what a change of the source's schema is noticed by."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TypeAlias

from transforms.fields import columns_of, storable
from transforms.json_text import ExactNumber, JsonValue, RepeatedKeys

FIELD_MAX_LENGTH = 256
"""Characters of a field's name that are kept."""
MAX_FIELDS = 500
"""Different fields told apart in one window; further ones are counted together, as ``OTHER_FIELDS``."""
OTHER_FIELDS = "(other fields)"
NULL = "null"

_JSON_TYPES: dict[type, str] = {
    type(None): NULL,
    bool: "boolean",
    int: "integer",
    float: "number",
    ExactNumber: "number",
    str: "string",
    list: "array",
    dict: "object",
    RepeatedKeys: "object",
}

FieldTypes: TypeAlias = Counter[tuple[str, str]]
"""How many rows have a field with a value of a JSON type, by both."""


def count_field_types(rows: Sequence[JsonValue], counts: FieldTypes) -> None:
    """Add the fields of those ``rows`` that are objects to ``counts``."""
    of_shape: defaultdict[tuple[str, ...], list[dict[str, JsonValue]]] = defaultdict(list)
    for row in rows:
        if isinstance(row, dict):
            of_shape[tuple(row)].append(row)
    for alike in of_shape.values():
        for field, values in columns_of(alike).items():
            for json_type, count in Counter(map(type, values)).items():
                counts[_kept_name(field, counts), _JSON_TYPES[json_type]] += count


def _kept_name(field: str, counts: FieldTypes) -> str:
    name = storable(field)[:FIELD_MAX_LENGTH]
    is_known = any((name, json_type) in counts for json_type in _JSON_TYPES.values())
    return name if is_known or len(counts) < MAX_FIELDS else OTHER_FIELDS
