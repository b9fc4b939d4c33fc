"""Phone numbers as served, to E.164 and country."""

from __future__ import annotations

import numpy as np
import phonenumbers
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.simulator.people import STRINGEE_NUMBERS, customer_numbers
from transforms.numbering_plan import numbering_plan
from transforms.phones import parse_number, parse_numbers


@pytest.mark.parametrize(
    ("value", "e164", "country"),
    [
        ("84988886868", "+84988886868", "VN"),
        ("842473030658", "+842473030658", "VN"),
        ("+84900000001", "+84900000001", "VN"),
        ("+84 90 000 00 01", "+84900000001", "VN"),
        (" 84900000001 ", "+84900000001", "VN"),
        ("0084900000001", "+84900000001", "VN"),
        ("0900000001", "+84900000001", "VN"),
        ("090.000.0001", "+84900000001", "VN"),
        ("900000001", "+84900000001", "VN"),
        ("18001234", "+8418001234", "VN"),
        ("12015550123", "+12015550123", "US"),
        ("+442079460000", "+442079460000", "GB"),
        ("+80012345678", "+80012345678", None),
        # A written + is beyond doubt, so a possible number of a range that the plans do not know counts.
        ("+84100000001", "+84100000001", "VN"),
        ("84100000001", None, None),
    ],
)
def test_numbers(value: str, e164: str | None, country: str | None) -> None:
    assert parse_number(value, "VN") == (e164, country)


@pytest.mark.parametrize(
    "value",
    [
        "user_2",
        "user84900000001",
        "84900000001@example.com",
        "agent 84900000001",
        "113",
        "1900",
        "0",
        "+",
        "++84900000001",
        "+84",
        "+999123456789",
        "84900000001" * 2,
        "+84900000001900",
        "0012",
        "",
        "-",
        "1-800-FLOWERS",
    ],
)
def test_what_is_no_phone_number(value: str) -> None:
    assert parse_number(value, "VN") == (None, None)


@pytest.mark.parametrize(
    "dressed",
    [
        "+84\u00a0900\u202f000\u2009001",
        "\u202a+84900000001\u202c",
        "\u200e84900000001\u200f",
        "\ufeff84900000001",
        "+84\u2011900\u2013000\u2212001",
        "(+84) 900000001",
        "(+84)900000001",
        "+84 (0) 900000001",
        "tel:+84900000001",
        "TEL:+84-900-000-001;phone-context=example.com",
        "sip:+84900000001@pbx.example.com",
        "sips:84900000001@10.0.0.1:5061;user=phone",
        "+84900000001;ext=12",
        "tel:+84900000001;ext=12",
        "0900000001 ext. 7",
        "84900000001x99",
        "８４９０００００００１",
        "٨٤٩٠٠٠٠٠٠٠١",
        "+84\t900\u2028000\x85001",
        "(090) 000 0001",
        "(0)900000001",
        "(84) 900000001",
        "+(84) 900000001",
        "(+84) 0900000001",
        "84900000001.0",
        "+84900000001.0",
        "0900000001 #7",
        "tel:0900000001;isub=1",
        "tel:900000001;phone-context=+84",
        "84900000001;user=phone",
        "sip:%2B84900000001@pbx.example.com",
        "sip:+84900000001;ext=12@pbx.example.com;user=phone",
        "sip:0900000001;phone-context=+84@pbx.example.com",
        "<sip:+84900000001@pbx.example.com>;tag=1",
        '"Lan" <tel:+84900000001>',
    ],
)
def test_a_number_is_one_however_it_is_dressed(dressed: str) -> None:
    assert parse_number(dressed, "VN") == ("+84900000001", "VN")


@pytest.mark.parametrize(
    "name",
    [
        "sip:agent1@pbx.example.com",
        "sip:user_2@x",
        "sip:113@x",
        "tel:",
        "tel:7042;phone-context=example.com",
        "sip:@x",
        "ext=12",
        "(+84)",
        "x12",
        "+(+84) 900000001",
        '"84900000001" <sip:anonymous@anonymous.invalid>',
        "sip:10.0.0.1",
    ],
)
def test_an_address_of_a_user_is_no_number(name: str) -> None:
    assert parse_number(name, "VN") == (None, None)


CUSTOMERS = {*STRINGEE_NUMBERS, *map(str, customer_numbers(300, np.random.default_rng(7)))}
DRESS = ["", " ", "\u00a0", "-", "\u2011", "\u200b", "\u202d", ".", "\u3000", "\t", "\u2066"]


@given(
    st.integers(84_900_000_000, 84_900_999_999),
    st.lists(st.sampled_from(DRESS), min_size=12, max_size=12),
    st.booleans(),
)
def test_any_dress_of_a_number_gives_the_same(number: int, dress: list[str], plus: bool) -> None:
    digits = str(number)
    dressed = "".join(d + mark for d, mark in zip(digits, dress, strict=False))
    assert parse_number(("+" if plus else "") + dressed, "VN")[0] == f"+{digits}"


def test_a_number_belongs_to_the_country_that_its_context_names() -> None:
    assert parse_number("tel:2015550123;phone-context=+1", "VN") == ("+12015550123", "US")


WRAPPINGS = ["{}", "tel:{}", "sip:{}@pbx.example.com", "sips:{}@10.0.0.1:5061;user=phone", "<sip:{}@x>", "{};ext=12"]


@given(st.sampled_from(sorted(CUSTOMERS)), st.lists(st.sampled_from(DRESS), max_size=14), st.sampled_from(WRAPPINGS))
def test_a_customer_of_the_simulated_portal_is_one_in_every_form(number: str, dress: list[str], form: str) -> None:
    wanted = parse_number(number, "VN")
    assert wanted[0] is not None
    marks = [*dress, *[""] * len(number)]
    dressed = "".join(digit + mark for digit, mark in zip(number, marks, strict=False))
    assert parse_number(form.format(dressed), "VN") == wanted


@pytest.mark.parametrize(
    "value", ["1" + " " * 70_000 + "1", "+1" + "\u00a0" * 70_000 + "1", "<" * 70_000, "tel:" + ";" * 70_000]
)
def test_text_of_any_length_is_told_from_a_number_without_a_search(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of 20,000 characters took ten seconds, and one of 70,000 two minutes."""
    monkeypatch.setattr("transforms.phones._undressed", lambda value: pytest.fail(f"{len(value)} characters searched"))
    assert parse_number(value, "VN") == (None, None)


def test_the_national_form_belongs_to_the_region() -> None:
    assert parse_number("02079460000", "GB") == ("+442079460000", "GB")
    assert parse_number("0900000001", "GB") == (None, None)


def test_columns_keep_order_repeats_and_nulls() -> None:
    values = pa.array(["0900000001", None, "user_2", "0900000001"], pa.string())
    columns = parse_numbers(values, "VN")
    assert columns.e164.to_pylist() == ["+84900000001", None, None, "+84900000001"]
    assert columns.country.to_pylist() == ["VN", None, None, "VN"]
    assert [array.type for array in parse_numbers(pa.array([], pa.string()), "VN")] == [pa.string()] * 2


@given(st.text(st.sampled_from("+0123456789 -().84a"), max_size=20))
def test_whatever_parses_is_e164_made_of_the_digits_served(value: str) -> None:
    e164, country = parse_number(value, "VN")
    if e164 is None:
        assert country is None
        return
    assert e164[0] == "+"
    assert e164[1:].isdigit()
    assert len(e164) <= 16
    served = "".join(character for character in value if character.isdigit())
    assert served.endswith(e164[-6:])
    assert parse_number(e164, "US") == (e164, country)


def as_the_package_says(values: list[str], region: str) -> list[tuple[str | None, str | None]]:
    return [parse_number(value, region) for value in values]


def as_a_column(values: list[str], region: str) -> list[tuple[str | None, str | None]]:
    found = parse_numbers(pa.array(values, pa.string()), region)
    return list(zip(found.e164.to_pylist(), found.country.to_pylist(), strict=True))


PLANS = sorted(region for region in phonenumbers.SUPPORTED_REGIONS if numbering_plan(region) is not None)


def test_most_countries_have_a_plan_of_patterns_and_those_that_share_a_code_have_none() -> None:
    assert {"VN", "TH", "SG", "DE"} <= set(PLANS)
    assert len(PLANS) > 100
    assert numbering_plan("US") is None
    assert numbering_plan("XX") is None


def some_numbers(region: str, count: int, seed: int) -> list[str]:
    """Numbers of a country as they may be written: examples of its kinds, with some digits changed."""
    random = np.random.default_rng(seed)
    code = phonenumbers.country_code_for_region(region)
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    kinds = (metadata.fixed_line, metadata.mobile, metadata.toll_free, metadata.uan, metadata.voip)
    examples = [kind.example_number for kind in kinds if kind is not None and kind.example_number]
    found = []
    for form in random.integers(0, 9, count):
        national = list(examples[random.integers(len(examples))])
        for _ in range(random.integers(0, 9)):
            national[random.integers(len(national))] = str(random.integers(10))
        if random.random() < 0.1:
            national = national[: random.integers(1, len(national) + 1)] + ["7"] * random.integers(0, 3)
        text = "".join(national)
        found.append([
            f"{code}{text}", f"+{code}{text}", f"00{code}{text}", f"0{text}", text, f"+{code}0{text}", f"{code}0{text}",
            f"+{code} {text[:3]} {text[3:]}", f"8{text}",
        ][form])  # fmt: skip
    return found


@pytest.mark.parametrize("region", PLANS)
def test_the_plan_says_of_a_column_what_the_package_says_of_each_number(region: str) -> None:
    values = some_numbers(region, 20_000 if region == "VN" else 300, seed=7)
    column, each = as_a_column(values, region), as_the_package_says(values, region)
    assert [(v, c, e) for v, c, e in zip(values, column, each, strict=True) if c != e] == []
    plan = numbering_plan(region)
    assert plan is not None
    assert plan.e164(pa.array(values)).null_count < len(values) or region == "BJ", "all of Benin begin with 0"


@given(st.lists(st.one_of(st.text(), st.from_regex(r"(\+|00|0)?(84)?[0-9]{5,11}\n?", fullmatch=True)), max_size=20))
def test_any_column_is_what_its_values_are(values: list[str]) -> None:
    assert as_a_column(values, "VN") == as_the_package_says(values, "VN")
