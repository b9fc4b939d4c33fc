"""Whether a text speaks of a person: in every form of a number, and never of somebody whose number is longer."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.person import Person

NUMBER = "+84900000034"
PERSON = Person.named(number=NUMBER, region="VN")
NATIONAL = st.integers(900_000_000, 909_999_999).map(str)
GAPS = st.sampled_from(["", " ", ".", "-", " - ", "\u00a0"])
FRONTS = st.sampled_from(["+84", "84", "0084", "0", "+84 ", "(+84) ", "+84 (0)", "+84 (0) ", "(0)", "tel:+84", "%2B84"])
AROUND = st.sampled_from([("", ""), ('"', '"'), ("<sip:", "@pbx.example>"), ("call ", ", now"), ("[", "]"), ("", ".0")])


def fits(pattern: str, text: str) -> bool:
    """SQL's LIKE, with ``/`` as escape."""
    parts = re.findall(r"/.|.", pattern)
    meaning = {"%": ".*", "_": "."}
    regex = "".join(meaning.get(part) or re.escape(part.removeprefix("/")) for part in parts)
    return re.fullmatch(regex, text.lower(), re.DOTALL) is not None


@given(NATIONAL, FRONTS, GAPS, st.integers(2, 4), AROUND)
def test_a_number_is_found_in_every_form(
    national: str, front: str, gap: str, group: int, around: tuple[str, str]
) -> None:
    person = Person.named(number=f"+84{national}", region="VN")
    written = gap.join(national[at : at + group] for at in range(0, len(national), group))
    text = f"{around[0]}{front}{written}{around[1]}"
    assert person.is_in(text)
    assert any(fits(pattern, text) for pattern in person.like_patterns)


@given(NATIONAL, st.sampled_from(["0", "84", ""]), st.sampled_from(["1", "7", "00"]))
def test_a_longer_number_is_somebody_elses(national: str, front: str, more: str) -> None:
    person = Person.named(number=f"+84{national}", region="VN")
    assert not person.is_in(f"{front}{national}{more}")
    assert not person.is_in(f"1795{front}{national}")


@pytest.mark.parametrize("written", ["0900000034", "84900000034", "+84 900 000 034", "0084-900-000-034", "900000034"])
def test_whoever_asks_may_write_it_in_any_form(written: str) -> None:
    assert Person.named(number=written, region="VN") == PERSON


def test_digits_of_another_script_are_digits() -> None:
    assert PERSON.is_in("\uff18\uff14900000034")


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("An@Example.com", True),
        ('{"mail":"an@example.com"}', True),
        ("mailto:an@example.com.", True),
        ("lan@example.com", False),
        ("an@example.com.vn", False),
        ("an@example.community", False),
        ("x-an@example.com", False),
        ("anXexample.com", False),
    ],
)
def test_an_address_is_found_as_a_whole(text: str, is_found: bool) -> None:
    person = Person.named(email="an@example.com", region="VN")
    assert person.is_in(text) is is_found
    assert not is_found or any(fits(pattern, text) for pattern in person.like_patterns)


@pytest.mark.parametrize(("text", "is_found"), [('"user_3"', True), ("user_33", False), ("my-user_3", False)])
def test_an_id_is_found_as_a_whole(text: str, is_found: bool) -> None:
    person = Person.named(agent_id="user_3", region="VN")
    assert person.is_in(text) is is_found
    assert not any(fits(pattern, "userX3") for pattern in person.like_patterns)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "nobody"),
        ({"number": "user_2"}, "no phone number"),
        ({"number": "113"}, "no phone"),
        ({"email": "a"}, "e-mail"),
    ],
)
def test_what_names_nobody_is_refused(named: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Person.named(**named, region="VN")
