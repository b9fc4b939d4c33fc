"""What is taken out of a row when somebody is erased: the same from a row as served, and from a call already."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.test_person_in_text import AROUND, FRONTS, GAPS, NATIONAL
from transforms.calls import CallTables, tables_of
from transforms.erased_calls import ids_that_mention, participants_that_mention, without_erased
from transforms.erasure import Erased, digests_of
from transforms.json_text import JsonValue, RepeatedKeys, exact_json
from transforms.person import Person
from transforms.schema import CALLS, Pii
from transforms.types import TEXT

KEY = b"a key of the tests"
START = datetime(2026, 1, 5, tzinfo=UTC)
START_MS = int(START.timestamp() * 1000)
CUSTOMER = Person.named(number="+84900000777", region="VN")
AGENT = Person.named(email="an@example.com", agent_id="agent_7", region="VN")
SOMEBODY_ELSE = "84900000778"


def erased(*people: Person) -> Erased:
    return Erased(frozenset().union(*(digests_of(person, KEY) for person in people)), KEY, "VN")


BOTH = erased(CUSTOMER, AGENT)


def tables(rows: list[JsonValue]) -> CallTables:
    return tables_of(rows, window_start=START, window_end=START + timedelta(days=1), timezone="UTC", region="VN")


@given(NATIONAL, FRONTS, GAPS, st.integers(2, 4), AROUND)
def test_a_number_is_known_in_every_form_by_its_hashes_alone(
    national: str, front: str, gap: str, group: int, around: tuple[str, str]
) -> None:
    person = Person.named(number=f"+84{national}", region="VN")
    written = gap.join(national[at : at + group] for at in range(0, len(national), group))
    text = f"{around[0]}{front}{written}{around[1]}"
    assert person.is_in(text)
    assert erased(person).mentions(text)


@given(NATIONAL, st.sampled_from(["0", "84", ""]), st.sampled_from(["1", "7", "00"]))
def test_a_longer_number_is_nobody_who_is_erased(national: str, front: str, more: str) -> None:
    person = Person.named(number=f"+84{national}", region="VN")
    assert not erased(person).mentions(f"{front}{national}{more}")
    assert not erased(person).mentions(f"1795{front}{national}")


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        ("An@Example.com", True),
        ("write to 'an@example.com'.", True),
        ("an@example.com.vn", False),
        ("dan@example.com", False),
        ("agent_7", True),
        ("for agent_7, later", True),
        ("agent_77", False),
    ],
)
def test_an_address_and_an_id_are_known_as_a_whole(text: str, is_known: bool) -> None:
    assert BOTH.mentions(text) is is_known


def test_an_id_of_a_digit_is_known_only_where_it_is_all_there_is() -> None:
    seven = erased(Person.named(agent_id="7", region="VN"))
    assert seven.mentions(" 7 ")
    assert not seven.mentions("queue 7")
    [hits] = seven.hits([{"id": "c", "status": 7, "talk_duration": 7, "project_id": 7, "account": 7}])
    assert hits == {"account"}


def test_nothing_of_a_person_is_in_their_hashes() -> None:
    digests = digests_of(CUSTOMER, KEY)
    assert len(digests) == 6
    assert not any("900000777" in digest for digest in digests)
    assert digests.isdisjoint(digests_of(CUSTOMER, b"another key"))


def test_the_row_stays_for_the_counts_and_the_person_goes() -> None:
    row: dict[str, JsonValue] = {
        "id": "call-1",
        "start_time": START_MS,
        "status": 1,
        "direction": 1,
        "talk_duration": 60,
        "customer_number": "84900000777",
        "contactname": "Somebody",
        "companyname": "Their shop",
        "account": "agent_8",
        "account_name": "Somebody else",
        "participants": "agent_8;84900000777;",
        "recorded": 1,
        "record_path": "/r/1.mp3",
        "queue_note": "angry",
    }
    gone = {
        "customer_number": None,
        "contactname": None,
        "companyname": None,
        "participants": ["agent_8", None],
        "recorded": None,
        "record_path": None,
    }
    [left] = erased(CUSTOMER).redacted([row])
    assert left == {field: gone.get(field, value) for field, value in row.items() if field != "queue_note"}


def test_every_column_of_personal_data_is_emptied_with_its_people() -> None:
    fields = {column.source: column.example for column in CALLS.columns if column.type is TEXT and not column.unknown}
    row: dict[str, JsonValue] = {
        **fields,
        "start_time": START_MS,
        "customer_number": "84900000777",
        "account": "agent_7",
        "from_user_id": "agent_7",
        "callee": "agent_7",
        "stringee_number": "agent_7",
        "crm": "angry",
    }
    assert all(
        column.source in row for column in CALLS.columns if column.pii is not Pii.NONE and column.name != "extra"
    )
    [call], [left] = (tables(rows).calls.to_pylist() for rows in ([row], BOTH.redacted([row])))
    personal = [column.name for column in CALLS.columns if column.pii is not Pii.NONE]
    assert [name for name in personal if call[name] is None] == []
    assert [name for name in personal if left[name] is not None] == []


def test_an_erased_agent_goes_under_all_their_ids_and_the_customer_stays() -> None:
    row: dict[str, JsonValue] = {
        "id": "call-1",
        "start_time": START_MS,
        "customer_number": SOMEBODY_ELSE,
        "contactname": "A customer",
        "account": "agent_9",
        "account_name": "An",
        "account_email": "An@Example.com",
        "from_user_id": "agent_9",
        "callee": "user_2",
        "participants": [{"userId": "agent_9"}, SOMEBODY_ELSE],
    }
    [left] = BOTH.redacted([row])
    gone = dict.fromkeys(("account", "account_name", "account_email", "from_user_id"))
    assert left == {**row, **gone, "participants": [None, SOMEBODY_ELSE]}


def test_a_note_that_names_somebody_goes_and_the_call_and_its_audio_stay() -> None:
    row: JsonValue = {"id": "call-1", "customer_number": SOMEBODY_ELSE, "note": "or 0900 000 777", "recorded": 1}
    assert BOTH.redacted([row]) == [{"id": "call-1", "customer_number": SOMEBODY_ELSE, "recorded": 1}]


def test_nobody_is_taken_out_of_a_time_or_a_count() -> None:
    german = Person.named(number="+491704567890", region="DE")
    row: JsonValue = {"id": "c", "start_time": 1_704_567_890, "end_time": "1704567890", "answer_time": 1_704_567_890}
    assert Erased(digests_of(german, KEY), KEY, "DE").redacted([row])[0] is row


def test_a_row_of_nobody_is_the_very_same_row() -> None:
    rows: list[JsonValue] = [{"id": "c", "customer_number": SOMEBODY_ELSE}, "text", None, 7, [SOMEBODY_ELSE]]
    assert all(after is before for before, after in zip(rows, BOTH.redacted(rows), strict=True))


def test_a_call_id_that_is_a_number_becomes_another_one_and_always_the_same() -> None:
    row: JsonValue = {"id": "84900000777-1", "start_time": START_MS}
    [once], [again] = BOTH.redacted([row]), BOTH.redacted([row])
    assert once == again
    assert isinstance(once, dict)
    assert str(once["id"]).startswith("erased-")


THEIRS = st.sampled_from([
    "84900000777", "0900 000 777", "+84 (0) 900 000 777", 84900000777, 84900000777.0, "sip:+84900000777@pbx.example",
    "\uff18\uff14900000777", "0900\x00000777", "00 84 900000777",
    "an@example.com", "AN@example.com", "agent_7", " agent_7",
])  # fmt: skip
OF_OTHERS = st.sampled_from(
    [SOMEBODY_ELSE, "agent_8", "user_2", "", None, 0, 1, 60, True, "1", START_MS, "x\x00", 1_700_000_000, 3.5, [], {}]
)
SOME = st.one_of(OF_OTHERS, OF_OTHERS, THEIRS)
VALUES = st.one_of(
    SOME,
    st.lists(SOME, max_size=3),
    st.dictionaries(st.sampled_from(["number", "userId", "type", "note"]), SOME, max_size=2),
)
_DECLARED = {column.source for column in CALLS.columns if column.source.isidentifier()} - {"id", "start_time"}
_OTHER_FIELDS = {
    "answer_time", "first_answer_time", "answer_duration", "enqueue_time", "queue_duration", "object_type", "note",
    "crm", "0900000777",
}  # fmt: skip
FIELDS = st.sampled_from(sorted(_DECLARED | _OTHER_FIELDS))
NAMES = st.lists(st.one_of(st.just("84900000777"), st.sampled_from(["user_1", "agent_7", SOMEBODY_ELSE])), max_size=3)
ROWS = st.fixed_dictionaries(
    {"id": st.sampled_from(["call-1", "84900000777-x", 84900000777])},
    optional={"customer_number": THEIRS, "account": THEIRS, "participants": NAMES.map(";".join)},
).flatmap(lambda row: st.dictionaries(FIELDS, VALUES, max_size=6).map(lambda more: {**more, **row}))


def _without(found: CallTables, who: Erased) -> tuple[pa.Table, pa.Table]:
    """Take people out of calls as they lie in the warehouse: with columns that tell when each came."""
    calls = found.calls
    for name in CALLS.column_names:
        if name not in calls.column_names:
            calls = calls.append_column(CALLS.arrow_schema.field(name), pa.nulls(len(calls), CALLS[name].type.arrow))
    left = without_erased(calls, found.participants, who)
    return left.calls.select(found.calls.column_names), left.participants


@given(ROWS)
@example({"id": "c", "customer_number": {"n": "84900000777"}, "duration": 84900000777, "direction": 84900000777})
@example({"id": "c", "account": "agent_7", "participants": [{"userId": "agent_7", "type": "agent"}, "agent_7;x"]})
@example({"id": "c", "video_call": "84900000777", "recorded": "84900000777", "extra": "84900000777"})
def test_a_call_comes_out_as_if_its_row_had_been_served_without_the_person(row: dict[str, Any]) -> None:
    row = {**row, "start_time": START_MS}
    served = tables([row])
    calls, participants = _without(served, BOTH)
    as_served_without = tables(BOTH.redacted([row]))
    assert calls.to_pylist() == as_served_without.calls.to_pylist()
    assert participants.to_pylist() == as_served_without.participants.to_pylist()


@given(ROWS)
def test_afterwards_nothing_of_a_call_mentions_them(row: dict[str, Any]) -> None:
    found = tables(BOTH.redacted([{**row, "start_time": START_MS}]))
    assert not any(ids_that_mention(found.calls, BOTH))
    assert not any(participants_that_mention(found.participants, BOTH))
    kept = {name: values for name, values in found.calls.to_pydict().items() if name not in ("row_hash", "started_at")}
    text = json.dumps([kept, found.participants.to_pydict()], default=str, ensure_ascii=False)
    assert not CUSTOMER.is_in(text)
    assert not AGENT.is_in(text)


def test_a_field_served_twice_loses_both() -> None:
    row = RepeatedKeys([("id", "c"), ("customer_number", "0900000777"), ("customer_number", SOMEBODY_ELSE)])
    [left] = BOTH.redacted([row])
    assert exact_json(left) == '{"id":"c","customer_number":null,"customer_number":null}'
    calls, _ = _without(tables([RepeatedKeys([*row.pairs, ("start_time", START_MS)])]), BOTH)
    [call] = calls.to_pylist()
    assert (call["customer_number"], call["customer_number_e164"], call["extra"]) == (None, None, None)
