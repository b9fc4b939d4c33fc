"""One request and one answer, as the portal sees them; the server turns them into bytes on a socket."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson

Delivery = Literal["whole", "close", "reset", "cut", "stall", "stall_head", "endless", "endless_head"]


@dataclass(slots=True)
class Request:
    """A request with its query split and its header names in lower case."""

    method: str
    path: str
    query_string: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    query: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.query = parse_qsl(self.query_string, keep_blank_values=True)

    def parameter(self, name: str) -> str | None:
        """Return the first value of a query parameter, or None."""
        return next((value for key, value in self.query if key == name), None)

    def parameters(self, name: str) -> list[str]:
        """Return all values of a query parameter, in order."""
        return [value for key, value in self.query if key == name]

    def positive(self, name: str, default: int) -> int:
        """Return a parameter that counts from 1, or the default where it is not given; raises Refusal otherwise."""
        text = self.parameter(name)
        if not text:
            return default
        if not re.fullmatch(r"[1-9]\d{0,8}", text):
            raise Refusal(5, f"{name} is invalid")
        return int(text)


@dataclass(slots=True)
class Response:
    """An answer, and how it reaches the client: whole, cut short, a byte at a time, without end, or not at all.

    Without end: the body over and over, behind the head as chunks of it, or in place of a head.
    """

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    delivery: Delivery = "whole"
    seconds_per_byte: float = 0.0


class Refusal(Exception):  # noqa: N818 - an answer of the API, not an error of the simulator
    """The portal refuses a request: an envelope with a non-zero ``r``, or another status."""

    def __init__(self, r: int, message: str, status: int = 200) -> None:
        super().__init__(message)
        self.r = r
        self.message = message
        self.status = status


def envelope(r: int, message: str, message_key: str = "msg", status: int = 200, **fields: Any) -> Response:
    """Return ``{"r", "msg"|"message", ...}`` as an answer."""
    return Response(status, orjson.dumps({"r": r, message_key: message, **fields}))
