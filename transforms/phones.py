"""Phone numbers as served, to E.164 and country, by Google's numbering plans (the ``phonenumbers`` package)."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
from phonenumbers import NumberParseException, PhoneNumber, PhoneNumberFormat, ValidationResult

from transforms.numbering_plan import numbering_plan

_CACHED_NUMBERS = 32_768
_LOOKS_LIKE_A_NUMBER = re.compile(r"\+?[0-9][0-9 ().-]{3,30}", re.ASCII)
_LONGEST_DRESSED = 256
"""Characters, with everything around the number. What is longer is text, and would take long to search."""
_DIGITS_AS_FLOAT = re.compile(r"(\+?[0-9]{7,})\.0")
"""A number that went through a spreadsheet: its last digit would be taken for one more of the number."""
_ADDRESS = re.compile(
    r"(?:[^<>]*<)?(?:tel:(?P<tel>[^;@<>]+)|sips?:(?P<sip>[^;@<>]+)(?:;[^@<>]*)?@[^@;<>]+)(?:;[^<>]*)?(?:>.*)?",
    re.IGNORECASE,
)
"""RFC 3966, and RFC 3261 with a number in place of a user; with a name beside it, it is in angle brackets."""
_ESCAPED_PLUS = re.compile("%2b", re.IGNORECASE)
_PHONE_CONTEXT = re.compile(r";\s*phone-context=(\+[0-9]{1,15})", re.IGNORECASE)
"""RFC 3966: what has to stand before a number that is not international."""
_PARAMETERS = re.compile(r";\s*[a-z-]+=.*$", re.IGNORECASE)
_EXTENSION = re.compile(r"(?:extension|extn|ext|x|#)[.:]?\s*[0-9]{1,7}$", re.IGNORECASE)
_BRACKETS_IN_FRONT = re.compile(r"(\+?)\(\s*(\+?[0-9][0-9 .-]*)\)")
_TRUNK_ZERO_IN_BRACKETS = re.compile(r"\(0\)")
_INVISIBLE, _DASH, _DIGIT = "Cf", "Pd", "Nd"
"""Unicode's categories of marks of direction and the like, of hyphens, and of digits of any script."""
_NOT_A_COUNTRY = "001"


class PhoneColumns(NamedTuple):
    """Numbers in E.164 form, and the countries (ISO 3166-1 alpha-2) they belong to; null where there is none."""

    e164: pa.Array[Any]
    country: pa.Array[Any]


def parse_numbers(values: pa.Array[Any], region: str) -> PhoneColumns:
    """Return the E.164 form and the country of every value, in order.

    Both are null for what is no phone number; ``country`` alone is null for a number of no single country. Each
    distinct value is parsed once. ``region`` is the country whose national form is understood.

    The form decides how a number is read, since the same digits can mean different numbers:

    1. ``+`` or ``00`` and a country code: international. Its meaning is beyond doubt, so a possible length is enough:
       a call took place, and new number ranges come into use before the numbering plans know them.
    2. ``0`` and digits: the national form of ``region``, if that is a valid number.
    3. Other digits: country code and number, as the API documents it, if that is valid; else the national form of
       ``region`` without its ``0``, if that is.

    So short codes (``113``), user ids (``user_2``) and anything too long are none. What a number is dressed with is
    taken off first: blanks, hyphens, digits and marks of direction of any script; brackets; an extension; ``tel:``
    (RFC 3966) or ``sip:`` (RFC 3261) with their parameters; the ``.0`` of a number that was made a decimal fraction.
    """
    encoded = values.dictionary_encode()
    distinct = encoded.dictionary
    plan = numbering_plan(region)
    usual = pa.nulls(len(distinct), pa.string()) if plan is None else plan.e164(distinct)
    unusual = pc.is_null(usual)
    parsed = [parse_number(value, region) for value in distinct.filter(unusual).to_pylist()]
    e164, country = (
        pc.replace_with_mask(of_usual, unusual, pa.array([pair[place] for pair in parsed], pa.string()))
        for place, of_usual in enumerate((usual, pa.repeat(pa.scalar(region), len(distinct))))
    )
    return PhoneColumns(e164.take(encoded.indices), country.take(encoded.indices))


@lru_cache(maxsize=_CACHED_NUMBERS)
def parse_number(value: str, region: str) -> tuple[str | None, str | None]:
    """Return one value's E.164 form and country, as ``parse_numbers`` does."""
    value = value.strip()
    if not _LOOKS_LIKE_A_NUMBER.fullmatch(value):
        value = _undressed(value) if len(value) <= _LONGEST_DRESSED else ""
        if not _LOOKS_LIKE_A_NUMBER.fullmatch(value):
            return None, None
    if as_float := _DIGITS_AS_FLOAT.fullmatch(value):
        value = as_float[1]
    return _understood(value, region) or (None, None)


def _undressed(value: str) -> str:
    plain = "".join(map(_plain, unicodedata.normalize("NFKC", value))).strip()
    context = _PHONE_CONTEXT.search(plain)
    if address := _ADDRESS.fullmatch(plain):
        plain = address["tel"] or _ESCAPED_PLUS.sub("+", address["sip"])
    plain = _EXTENSION.sub("", _PARAMETERS.sub("", plain).strip()).strip()
    plain = _BRACKETS_IN_FRONT.sub(r"\1\2 ", plain, count=1) if plain.startswith(("(", "+")) else plain
    if context is not None and not plain.startswith(("+", "00")):
        plain = f"{context[1]} {plain}"
    return _TRUNK_ZERO_IN_BRACKETS.sub("", plain, count=1).strip() if plain.startswith("+") else plain


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    category = unicodedata.category(character)
    if category == _DASH or character == "\N{MINUS SIGN}":
        return "-"
    if category == _DIGIT:
        return str(unicodedata.decimal(character))
    return "" if category == _INVISIBLE else character


def _understood(value: str, region: str) -> tuple[str, str | None] | None:
    if value.startswith(("+", "00")):
        number = _parse("+" + value.removeprefix("+").removeprefix("00"), None)
        if number is None or phonenumbers.is_possible_number_with_reason(number) != ValidationResult.IS_POSSIBLE:
            return None
        return _described(number, phonenumbers.region_code_for_number(number))
    if value.startswith("0"):
        return _valid(value, region)
    return _valid("+" + value, None) or _valid(value, region)


def _valid(value: str, region: str | None) -> tuple[str, str | None] | None:
    number = _parse(value, region)
    if number is None:
        return None
    # What `is_valid_number` does; it would keep the country, which takes as long to find, to itself.
    country = phonenumbers.region_code_for_number(number)
    is_valid = country is not None and phonenumbers.is_valid_number_for_region(number, country)
    return _described(number, country) if is_valid else None


def _described(number: PhoneNumber, country: str | None) -> tuple[str, str | None]:
    e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    return e164, None if country == _NOT_A_COUNTRY else country


def _parse(value: str, region: str | None) -> PhoneNumber | None:
    try:
        return phonenumbers.parse(value, region)
    except NumberParseException:
        return None
