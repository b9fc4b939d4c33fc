"""Rows made odd in type or shape, as a careless or changing API would serve them.

The portal's index (start time and id) stays as it was: only the served row is odd.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
_DURATIONS = ("duration", "ivr_duration", "hold_duration", "talk_duration", "acw_duration", "answer_duration")
_FLAGS = ("recorded", "have_voice_mail", "route_to_agent")
_TEXTS = ("contactname", "campaign_name", "account_name", "companyname")


@dataclass(frozen=True, slots=True)
class OddRows:
    """A share of rows is odd; ``reject_share`` of those cannot be calls at all (no id, no usable start time).

    Which rows, and how, depends on ``seed`` and the call id only: a row is odd in the same way in every answer.
    """

    share: float
    seed: int = 0
    reject_share: float = 0.02

    def apply(self, row: Row) -> Row:
        """Return the row as it is served: unchanged, or odd (the given dict is changed then)."""
        draw = zlib.crc32(f"{self.seed}/{row['id']}".encode())
        if draw >= self.share * 2**32:
            return row
        rng = random.Random(draw)  # noqa: S311 - reproducible test data
        rng.choice(REJECTED if rng.random() < self.reject_share else ODD)(row, rng)
        return row


def _numbers_as_text(row: Row, rng: random.Random) -> None:
    for name in (*_DURATIONS, "start_time", "end_time", "answer_time", "direction", "status", "project_id"):
        if row.get(name) is not None:
            row[name] = str(row[name])


def _numbers_as_decimals(row: Row, rng: random.Random) -> None:
    for name in (*_DURATIONS, "start_time", "end_time"):
        if row.get(name) is not None:
            row[name] = float(row[name]) if rng.random() < 0.7 else f"{row[name]}.0"


def _text_as_numbers(row: Row, rng: random.Random) -> None:
    row["customer_number"], row["stringee_number"], row["account"] = 84900000007, 842473000001, 17
    row["company_id"], row["portal"], row["contactname"] = "C-5", 5, True


def _flags_as_text(row: Row, rng: random.Random) -> None:
    for name in _FLAGS:
        row[name] = rng.choice(("true", "True", "1") if row.get(name) else ("false", "False", "0", ""))


def _nulls(row: Row, rng: random.Random) -> None:
    for name in rng.sample([name for name in row if name not in ("id", "start_time")], 12):
        row[name] = None


def _missing(row: Row, rng: random.Random) -> None:
    for name in rng.sample([name for name in row if name not in ("id", "start_time")], 12):
        del row[name]


def _empty_text(row: Row, rng: random.Random) -> None:
    for name in (*_TEXTS, "account", "record_path", "customer_number", "queue_duration", "video_call"):
        row[name] = ""


def _unknown_fields(row: Row, rng: random.Random) -> None:
    row["sentiment_score"] = rng.random()
    row["tags"] = ["vip", None, {"nested": [1, 2.5, "ba"]}]
    row["Từ khóa mới"] = "giá trị"


def _nested(row: Row, rng: random.Random) -> None:
    row["duration"] = {"value": row.get("duration"), "unit": "second"}
    row["contactname"] = ["Lan", "Mai"]
    row["status"] = [row.get("status")]


def _nul_characters(row: Row, rng: random.Random) -> None:
    row["contactname"] = "Lan\x00 Mai\x00"
    row["end_call_reason"] = "\x00"


def _lone_surrogates(row: Row, rng: random.Random) -> None:
    row["contactname"] = "Lan \ud800 Mai"
    row["note\udfff"] = "\udbff"


def _long_text(row: Row, rng: random.Random) -> None:
    row["contactname"] = "Nguyễn Thị Hương " * 4_118


def _negative(row: Row, rng: random.Random) -> None:
    for name in ("duration", "talk_duration", "queue_duration"):
        row[name] = -rng.randrange(1, 10_000)


def _emoji(row: Row, rng: random.Random) -> None:
    for name in _TEXTS:
        row[name] = "Khách 👩🏽‍💻 VIP ‮olleh‬ 🇻🇳"


def _unknown_codes(row: Row, rng: random.Random) -> None:
    row["direction"], row["status"], row["video_call"] = 7, 42, rng.choice((2, True))


def _unreadable(row: Row, rng: random.Random) -> None:
    row["duration"], row["end_time"], row["answer_time"] = "about a minute", "yesterday", "NaN"
    row["recorded"], row["project_id"] = "maybe", 10**25


def _seconds_where_instants(row: Row, rng: random.Random) -> None:
    row["answer_time"] = row.get("answer_duration") or 0
    row["enqueue_time"] = row.get("queue_duration") or 0


def _far_future(row: Row, rng: random.Random) -> None:
    row["end_time"], row["first_answer_time"] = 9_999_999_999_999_999, -1


def _participants(row: Row, rng: random.Random) -> None:
    people = [{"userId": "user_1", "type": "internal"}, {"number": "84900000001", "type": "external", "alias": None}]
    row["participants"] = rng.choice(
        (
            "", ";", "user_1", "user1;84900000002;", "user1;;user1;", [], [None, 5, ""], ["user_1", "84900000003"],
            people, json.dumps(people), json.dumps(["user_1", "84900000004"]), "[not json", {"user_1": "84900000005"},
            84900000006, [["user_1"], people], "[]", "null",
        )
    )  # fmt: skip


ODD: tuple[Callable[[Row, random.Random], None], ...] = (
    _numbers_as_text, _numbers_as_decimals, _text_as_numbers, _flags_as_text, _nulls, _missing, _empty_text,
    _unknown_fields, _nested, _nul_characters, _lone_surrogates, _negative, _emoji, _unknown_codes, _unreadable,
    _seconds_where_instants, _far_future, _participants, _participants,
    lambda row, rng: _long_text(row, rng) if rng.random() < 0.05 else _emoji(row, rng),
)  # fmt: skip
"""What can happen to a row that stays a call. Long names are rare: they are 95 kB each."""


def _no_id(row: Row, rng: random.Random) -> None:
    del row["id"]


def _null_id(row: Row, rng: random.Random) -> None:
    row["id"] = rng.choice((None, "", {}))


def _unusable_start(row: Row, rng: random.Random) -> None:
    row["start_time"] = rng.choice((None, 0, "", "soon", -5, [1], {"ms": 1}))


REJECTED: tuple[Callable[[Row, random.Random], None], ...] = (_no_id, _null_id, _unusable_start)
"""What makes a row unfit to be a call."""
