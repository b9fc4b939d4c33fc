"""JSON as it was served, read without loss or refused."""

import pytest

from transforms.json_text import parse_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a":-9223372036854775809}', {"a": -9223372036854775809}),
        (b'{"a":1e2,"b":"\\u0000"}', {"a": 100.0, "b": "\x00"}),
        (b'{"a":' + b"9" * 5000 + b"}", {"a": "9" * 5000}),
    ],
)
def test_json_is_read_without_loss(body, value):
    assert parse_json(body) == value


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff\xfe\xfa", b"[" * 200_000])
def test_what_is_no_json_is_a_value_error(body):
    with pytest.raises(ValueError):
        parse_json(body)
