"""JSON as it was served, read without loss or refused, and written so that it reads back as the same."""

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.raw import json_line
from transforms.json_text import ExactNumber, RepeatedKeys, canonical_json, exact_json, is_plain, parse_json


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":"\\ud800"}', {"a": "\ud800"}),
        (b'{"a":123456789012345678901234567890}', {"a": 123456789012345678901234567890}),
        (b'{"a":-9223372036854775809}', {"a": -9223372036854775809}),
        (b'{"a":18446744073709551616}', {"a": 18446744073709551616}),
        (b'{"a":1e2,"b":"\\u0000"}', {"a": 100.0, "b": "\x00"}),
        (b'{"a":' + b"9" * 5000 + b"}", {"a": "9" * 5000}),
    ],
)
def test_json_is_read_without_loss(body, value):
    assert parse_json(body) == value


@pytest.mark.parametrize("body", [b"", b"{", b"<html>", b"\xff\xfe\xfa", b"[" * 200_000, b"\x00", b'{"a":1}\xff'])
def test_what_is_no_json_is_a_value_error(body):
    with pytest.raises(ValueError):
        parse_json(body)


# ---- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "0.1234567890123456789", "-1234567890.12345678901", "123456789012345678e3", "1.00000000000000000001",
        "0.30000000000000004001", "-0.10000000000000000000000000000000000000001", "0." + "1" * 5000,
        "0.00000000000000000001e-9999999999999999999",
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["%s", "[%s]", '{"r":0,"rows":[{"a": %s}]}'])
def test_a_number_beyond_a_double_was_rounded_in_the_raw_copy(number, form):
    text = (form % number).encode()
    value = parse_json(text)
    assert json_line(value).decode() == (form % number).replace(" ", "")
    assert parse_json(json_line(value)) == value
    assert canonical_json(value).count(number) == 1
    assert json.loads(text) == value, "whoever calculates with it sees what a double holds"


@pytest.mark.parametrize("number", ["1.10", "0.1", "1e22", "1.0000000000000000000", "0.30000000000000004", "5e-324"])
def test_a_number_that_a_double_holds_is_a_plain_one(number):
    assert type(parse_json(number.encode())) is float


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_a_plain_one(value):
    found = parse_json(repr(value).encode())
    assert found == value
    assert type(found) is float


@given(st.decimals(allow_nan=False, allow_infinity=False).filter(lambda value: "." in f"{value:f}"))
def test_no_decimal_is_rounded_when_it_is_written(value):
    text = f"{value:f}".encode()
    for written in (json_line(parse_json(text)), exact_json(parse_json(b"[%s]" % text))[1:-1].encode()):
        assert type(value)(written.decode()) == value or abs(value) < 1e-300


def test_an_exact_number_can_be_copied():
    number = parse_json(b"0.1234567890123456789")
    for same in (copy.deepcopy(number), pickle.loads(pickle.dumps(number))):
        assert isinstance(same, ExactNumber)
        assert same.text == "0.1234567890123456789"


# ---- keys ------------------------------------------------------------------------------------------------------------

REPEATED = [
    b'{"a":1,"a":2}',
    b'{"a":1,"b":{"c":[],"c":null},"a":"x\\":y"}',
    b'[[{"a":1,"a":1}]]',
    b'{"a" : 1, "a" : 2}',
    b'{"a\\\\":1,"a":"\\":","a":2}',
    b'{"\\u0061":1,"a":2}',
    b'{"r":0,"data":{"rows":[{"p":"[{\\"n\\":1}]","q":1,"q":2},{"p":[{"n":1}],"q":1}]}}',
]


@pytest.mark.parametrize("text", REPEATED)
def test_the_first_of_two_equal_keys_was_dropped_from_the_raw_copy(text):
    value = parse_json(text)
    assert value == json.loads(text), "the last one counts"
    line = json_line(value)
    pairs = {"object_pairs_hook": lambda pairs: pairs}
    assert json.loads(line, **pairs) == json.loads(text, **pairs)
    assert parse_json(line) == value
    assert json_line(parse_json(line)) == line
    assert exact_json(value).encode() == line
    assert len(canonical_json(value)) == len(line)
    assert not is_plain(value)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a":"x\\":y","b\\\\":1}', b'{"a" : 1}', b'{"a"\n:1}', b'"a\\":b"', b'{"":{"":{"":[{},{"":1}]}}}',
        b'{"url":"https:\\/\\/x\\/y","n":"Th\\u1ecb","p":"[{\\"a\\":1}]","l":[{"a":1},{"a":2}]}', b"[]", b"1",
    ],
)  # fmt: skip
def test_keys_that_differ_or_lie_in_other_objects_are_no_repetition(text):
    value = parse_json(text)
    assert value == json.loads(text)
    assert is_plain(value)


TEXT = st.text(max_size=3) | st.sampled_from(['":', '\\":', "a", "b", "\\", ' "', ":"])
OBJECTS = st.recursive(
    st.none() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXT, inner), max_size=4).map(RepeatedKeys),
    max_leaves=10,
)


@given(OBJECTS, st.booleans())
def test_no_value_of_any_object_is_lost(value, escapes):
    line = json_line(value)
    read = parse_json(json.dumps(json.loads(line)).encode() if escapes and is_plain(value) else line)
    pairs = {"object_pairs_hook": lambda pairs: pairs}
    assert json.loads(json_line(read), **pairs) == json.loads(line, **pairs)
    assert parse_json(json_line(read)) == read


def test_the_earlier_values_of_repeated_keys_come_in_order():
    fields = parse_json(b'{"a":1,"b":2,"a":3,"c":4,"a":5}')
    assert fields.earlier() == [("a", 1), ("a", 3)]
    for same in (copy.deepcopy(fields), pickle.loads(pickle.dumps(fields))):
        assert isinstance(same, RepeatedKeys)
        assert (same, same.pairs) == (fields, fields.pairs)


# ---- characters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"n":"Zo\xeb","m":"Nguy\xe1\xbb\x85n"}', {"n": "Zo\udceb", "m": "Nguyễn"}),
        (b'{"n\xff":1}', {"n\udcff": 1}),
        (b'"\xe1\xbb"', "\udce1\udcbb"),
        (b'"\xc0\x80\xf5"', "\udcc0\udc80\udcf5"),
        (b'"\xed\xa0\x80"', "\ud800"),
        (b'"\xed\xa0\xbd\xed\xb8\x80\xff"', "😀\udcff"),
        (b'"\\\\\xff"', "\\\udcff"),
        (b'\xef\xbb\xbf{"a":"\xc3\xa9"}', {"a": "é"}),
        ('{"a":"é"}'.encode("utf-16"), {"a": "é"}),
        ('{"a":"é"}'.encode("utf-16-le"), {"a": "é"}),
        ('{"a":"é"}'.encode("utf-32"), {"a": "é"}),
        (b'{"a":"b\x00c","d":"e\tf\ng"}', {"a": "b\0c", "d": "e\tf\ng"}),
    ],
)
def test_a_byte_that_is_no_utf8_is_kept_and_reads_back(body, value):
    assert parse_json(body) == value
    assert parse_json(json_line(value)) == value


WHOLE = '{"r":0,"data":{"totalCount":1,"rows":[{"name":"Nguyễn 😀","n":1.5}]}}'.encode()


@pytest.mark.parametrize("text", [WHOLE, WHOLE.replace("ễ".encode(), b"\xff"), WHOLE.decode().encode("utf-16")])
def test_an_answer_cut_short_anywhere_is_no_json(text):
    assert parse_json(text)
    for end in range(len(text)):
        with pytest.raises(ValueError):
            parse_json(text[:end])


@pytest.mark.parametrize("body", [b'{"a":\xff}', b'\xff{"a":1}', b'{"a":1}\xe1\xbb', b'{\xff"a":1}', b'"\\\xff"'])
def test_a_wrong_byte_outside_of_a_string_is_no_json(body):
    with pytest.raises(ValueError):
        parse_json(body)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(body):
    try:
        value = parse_json(b'{"a":"' + body + b'"}')
    except ValueError:
        return
    assert parse_json(json_line(value)) == value
