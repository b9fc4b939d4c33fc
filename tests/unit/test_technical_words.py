"""The provider's own message may name a person: what is shown of it cannot."""

from __future__ import annotations

import re

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.simulator.people import FAMILY_NAMES, GIVEN_NAMES, MIDDLE_NAMES
from pipelines.stringeex.envelope import RejectedError, parse
from pipelines.stringeex.technical_words import technical_words_of
from transforms.errors import ApiError, ServerError


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("access token is invalid: InvalidSignatureError", "access token is invalid: InvalidSignatureError"),
        ("sort_order not allowed", "sort_order not allowed"),
        ("Server is busy, try again later", "Server is busy, try again later"),
        ("TOO MANY REQUESTS", "TOO MANY REQUESTS"),
        ("call of Nguyễn Văn An (an@example.com, 0900 000 034) not found", "call of … (….…, …) not found"),
        ("Không tìm thấy cuộc gọi", "…"),
        ("Long, An: user not found", "…, …: user not found"),
        ("token eyJhbGciOi.eyJqdGkiOi.c2lnbmF0dXJl expired", "token ….….… expired"),
        ("limit\nis\treached ", "limit is reached"),
        ("", ""),
    ],
)
def test_the_trades_words_are_shown_and_no_other(message: str, shown: str) -> None:
    assert technical_words_of(message) == shown


@pytest.mark.parametrize("name", [*FAMILY_NAMES, *MIDDLE_NAMES, *GIVEN_NAMES])
def test_no_name_is_a_word_of_the_trade(name: str) -> None:
    assert technical_words_of(f"call of {name} not found") == "call of … not found"
    assert technical_words_of(f"{name} not found") == "… not found"


@given(st.text(max_size=300))
def test_no_digit_and_no_letter_beyond_ascii_gets_through(message: str) -> None:
    shown = technical_words_of(message)
    assert len(shown) <= 200
    assert not re.search(r"\d|@", shown)
    assert all(not letter.isalpha() for letter in shown if not letter.isascii())


def test_a_message_without_end_is_short() -> None:
    assert len(technical_words_of("call " * 100_000)) <= 200


@pytest.mark.parametrize(
    ("message", "error", "shown"),
    [
        ("auth_token of Long is void", RejectedError, "… of … is …"),
        ("JWTs: hết hạn", RejectedError, "…: …"),
        ("Overloading, An", ServerError, "…, …"),
        ("An is overloaded", ServerError, "… is overloaded"),
        ("An is nobody", ApiError, "… is …"),
    ],
)
def test_what_a_message_means_was_judged_by_the_words_that_are_shown(
    message: str, error: type[Exception], shown: str
) -> None:
    body = orjson.dumps({"r": 7, "msg": message})
    with pytest.raises(error, match=f"r=7, {re.escape(shown)}$"):
        parse(httpx.Response(200), body, "GET /x", transient_codes=())
