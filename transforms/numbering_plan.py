"""A country's numbering plan as regular expressions over a whole column: what `phonenumbers` says, for usual numbers.

The package parses number by number, in Python. Most numbers of a call history are those of one country, written as
digits. These are recognised here, by the package's own patterns. Any other number is left to the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from phonenumbers import PhoneMetadata, PhoneNumberDesc

_TYPES = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "personal_number",
    "voip",
    "pager",
    "uan",
    "voicemail",
)
"""The types whose numbers are valid, as in ``phonenumbers.phonenumberutil``."""
_TRUNK_PREFIX = "0"


@dataclass(frozen=True)
class NumberingPlan:
    """The national numbers of a country that alone has its country code.

    ``kinds`` are pairs of a pattern, which matches a whole national number, and the lengths that it may have.
    """

    country_code: int
    general: tuple[str, tuple[int, ...]]
    kinds: tuple[tuple[str, tuple[int, ...]], ...]
    has_trunk_zero: bool

    def e164(self, values: pa.Array[Any]) -> pa.Array[Any]:
        """Return the E.164 form of the valid numbers among ``values``, and null for all others, which may be valid too.

        Recognised are digits alone: the country code, or ``+`` or ``00`` and the country code, and the national number;
        and ``0`` and the national number, where that is how the country writes it.
        """
        written = rf"(?:\+|00)?{self.country_code}" + (f"|{_TRUNK_PREFIX}" if self.has_trunk_zero else "")
        national = pc.struct_field(pc.extract_regex(values, f"^(?:{written})(?P<national>[1-9][0-9]{{3,14}})$"), 0)
        is_valid = pc.and_(
            _matches(national, self.general), _any([_matches(national, kind) for kind in self.kinds], len(values))
        )
        valid = pc.if_else(is_valid, national, pa.scalar(None, pa.string()))
        found: pa.Array[Any] = pc.binary_join_element_wise(f"+{self.country_code}", valid, "")
        return found


@cache
def numbering_plan(region: str) -> NumberingPlan | None:
    """Return the plan of a country; null where its numbers cannot be told by patterns alone.

    That is so where several countries share a country code, where the package changes a number while it reads it, or
    where Arrow's regular expressions (RE2) do not know the patterns.
    """
    metadata = PhoneMetadata.metadata_for_region(region, None)
    if metadata is None or metadata.country_code is None or metadata.general_desc is None:
        return None
    if phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(metadata.country_code) != (region,):
        return None
    prefix, prefix_for_parsing = metadata.national_prefix, metadata.national_prefix_for_parsing
    # A national number that begins with 1 to 9 is taken as it is, unless that digit may be a prefix.
    if prefix_for_parsing not in (None, _TRUNK_PREFIX) or prefix not in (None, _TRUNK_PREFIX):
        return None
    kinds = tuple(_kind(found) for name in _TYPES if (found := getattr(metadata, name)) is not None)
    general = _kind(metadata.general_desc)
    # Where another prefix than 00 leads abroad, a number that begins with 0 may be one of another country.
    has_trunk_zero = prefix_for_parsing == _TRUNK_PREFIX and metadata.international_prefix == "00"
    plan = NumberingPlan(metadata.country_code, general, kinds, has_trunk_zero)
    try:
        plan.e164(pa.array([""]))
    except pa.ArrowInvalid:
        return None
    return plan


def _kind(description: PhoneNumberDesc) -> tuple[str, tuple[int, ...]]:
    return description.national_number_pattern or "", tuple(description.possible_length)


def _matches(national: pa.StringArray, kind: tuple[str, tuple[int, ...]]) -> pa.Array[Any]:
    pattern, lengths = kind
    matches = pc.match_substring_regex(national, f"^(?:{pattern})$")
    if not lengths:
        return matches
    return pc.and_(matches, pc.is_in(pc.binary_length(national), pa.array(lengths, pa.int32())))


def _any(conditions: list[pa.Array[Any]], length: int) -> pa.Array[Any]:
    found = pa.repeat(pa.scalar(False), length)
    for condition in conditions:
        found = pc.or_(found, condition)
    return found
