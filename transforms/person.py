"""A person, as somebody who asks for their data names themselves, and whether a text speaks of them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

import phonenumbers

from transforms.phones import parse_number

_BETWEEN_DIGITS = r"[\s().\-/]{0,3}"
"""What people and machines write between the digits of a number."""


@dataclass(frozen=True)
class Person:
    """Whoever has one of these: a phone number (E.164), an e-mail address, an agent's or user's id."""

    number_e164: str | None = None
    email: str | None = None
    agent_id: str | None = None

    @classmethod
    def named(
        cls, *, number: str | None = None, email: str | None = None, agent_id: str | None = None, region: str
    ) -> Person:
        """Return the person; ``number`` in any form that is understood in ``region``.

        Raises ``ValueError`` where nothing is given, or the number is none: what it cannot be told apart from would be
        somebody else's.
        """
        e164 = None
        if number is not None:
            e164, _ = parse_number(number, region)
            if e164 is None:
                raise ValueError("is no phone number: write it with its country code, such as +84...")
        if email is not None and not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
            raise ValueError("is no e-mail address")
        if not (e164 or email or agent_id):
            raise ValueError("nobody is named")
        return cls(e164, email, agent_id)

    @cached_property
    def like_patterns(self) -> tuple[str, ...]:
        """Patterns in lower case for SQL's LIKE, with ``/`` as escape.

        At least one fits whatever ASCII text `is_in` is true of; they fit more, too.
        """
        found = []
        if self.number_e164:
            found.append("%" + "%".join(_national_digits(self.number_e164)) + "%")
        texts = [text.lower() for text in (self.email, self.agent_id) if text]
        return (*found, *("%" + re.sub("([%_/])", r"/\1", text) + "%" for text in texts))

    def is_in(self, text: str) -> bool:
        """Whether ``text`` speaks of the person: never because of a longer number, address or id."""
        if not text.isascii():
            text = unicodedata.normalize("NFKC", text)  # digits in full width are digits
        return any(pattern.search(text) for pattern in self._patterns)

    @cached_property
    def tokens(self) -> frozenset[tuple[str, str]]:
        """Every form that a text can have the person in, as ``(kind, token)``: a number's digits, an address, an id."""
        found = []
        if self.number_e164:
            country, national = (
                str(phonenumbers.parse(self.number_e164).country_code),
                _national_digits(self.number_e164),
            )
            fronts = ("", "0", country, f"00{country}", f"{country}0", f"00{country}0")
            found += [("number", front + national) for front in fronts]
        if self.email:
            found.append(("email", self.email.lower()))
        if self.agent_id:
            found.append(("identifier", self.agent_id))
        return frozenset(found)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], ...]:
        found = []
        if self.number_e164:
            digits = _BETWEEN_DIGITS.join(_national_digits(self.number_e164))
            country = _BETWEEN_DIGITS.join(str(phonenumbers.parse(self.number_e164).country_code))
            before = rf"(?:(?:\+|00)?{_BETWEEN_DIGITS}{country}{_BETWEEN_DIGITS}(?:\(0\){_BETWEEN_DIGITS})?"
            found.append(re.compile(rf"(?<![0-9]){before}|0{_BETWEEN_DIGITS})?{digits}(?![0-9])"))
        if self.email:
            found.append(re.compile(rf"(?<![\w.+-]){re.escape(self.email)}(?![\w-]|\.\w)", re.IGNORECASE))
        if self.agent_id:
            found.append(re.compile(rf"(?<![\w-]){re.escape(self.agent_id)}(?![\w-])"))
        return tuple(found)


def _national_digits(e164: str) -> str:
    return phonenumbers.national_significant_number(phonenumbers.parse(e164))
