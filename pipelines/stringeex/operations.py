"""The operations of the API beside the call history, each a method with a typed result.

::

    with StringeeXClient(load_settings()) as client:
        api = StringeeX(client)
        for call in api.realtime_calls().calls:
            print(call.call_id, call.direction)
        api.transfer_call(call_id, CallEnd.of("user_2"))

What changes the world is sent once: at most a second time, as POST, when the documented GET was answered with 404 or
405, which means that nothing was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pipelines.stringeex.audio import Audio, NotARecordingError, inspect_audio
from pipelines.stringeex.client import StringeeXClient
from pipelines.stringeex.download import fetch_recording
from pipelines.stringeex.history_answer import usable_count
from transforms.errors import DataError, TransportError
from transforms.live_calls import LiveCall, live_call
from transforms.phones import parse_number

EndType = Literal["internal", "external"]

_MOST_PAGES = 1_000
_GREETING_FORMATS = frozenset({"wav", "mp3"})


@dataclass(frozen=True)
class CallEnd:
    """One end of a call, as the API wants it: an agent (internal) or a phone number (external)."""

    type: EndType
    number: str
    alias: str

    @classmethod
    def of(cls, number: str, type: EndType | None = None, alias: str | None = None, *, region: str = "VN") -> CallEnd:
        """Return the end for ``number``; by default a phone number is external, and all else a user id."""
        kind: EndType = type or ("external" if parse_number(number, region)[0] else "internal")
        return cls(kind, number, alias or number)


@dataclass(frozen=True)
class RealtimeCalls:
    """The calls in progress; ``api_total`` is the API's own count, ``unreadable`` how many entries had no call id."""

    calls: tuple[LiveCall, ...]
    api_total: int | None
    unreadable: int


@dataclass(frozen=True)
class Accepted:
    """The API has accepted a request (``r`` is 0); ``answer`` is what else it said."""

    operation: str
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Greeting:
    """An uploaded greeting, by the API's own names."""

    filename: str | None
    file_sid: str | None


@dataclass(frozen=True)
class Recording:
    """A recording that was downloaded."""

    call_id: str
    bytes: int
    sha256: str
    audio: Audio


class StringeeX:
    """The operations of one account. Every method raises ApiError, AuthenticationError or a RetryableError."""

    def __init__(self, client: StringeeXClient) -> None:
        self._client = client

    def realtime_calls(self) -> RealtimeCalls:
        """Return the calls in progress, oldest page first, each once.

        Pages are asked for until both of the API's counts are reached, or until one brings no call that is new.
        """
        settings = self._client.settings
        calls: dict[str, LiveCall] = {}
        unreadable, total, page, served = 0, None, 1, 0
        while page <= _MOST_PAGES:
            data = self._client.request("realtime", params={"page": str(page)} if page > 1 else None)
            rows = data.get("calls") if isinstance(data, dict) else None
            if not isinstance(rows, list):
                raise TransportError("the answer about calls in progress holds no list of calls")
            known = len(calls)
            for row in rows:
                call = live_call(row, timezone=settings.timezone.key, region=settings.region)
                if call is None:
                    unreadable += 1
                else:
                    calls[call.call_id] = call
            served += len(rows)
            total, pages = usable_count(data.get("totalCount")), usable_count(data.get("totalPages"))
            is_counted = total is not None or pages is not None
            # A server that ignores `page` says the same again.
            if len(calls) == known or (is_counted and page >= (pages or 0) and served >= (total or 0)):
                break
            page += 1
        return RealtimeCalls(tuple(calls.values()), total, unreadable)

    def transfer_call(self, call_id: str, to: CallEnd) -> Accepted:
        """Hand a call in progress over to ``to``."""
        return self._change("transfer", {"callId": call_id, "to": asdict(to)})

    def stop_call(self, call_id: str) -> Accepted:
        """End a call in progress."""
        return self._change("stop", {"callId": call_id})

    def add_participant(self, call_id: str, from_: CallEnd, to: CallEnd) -> Accepted:
        """Bring ``to`` into a call in progress, called from ``from_``."""
        return self._change("add_participant", {"callId": call_id, "from": asdict(from_), "to": asdict(to)})

    def upload_greeting(self, path: Path, description: str) -> Greeting:
        """Upload a WAV or MP3 file as a greeting, after a look into it; raises DataError for anything else."""
        with path.open("rb") as file:
            audio = check_greeting(file)
            file.seek(0)
            answer = self._client.request(
                "upload_greeting",
                form={"desc": description},
                files={"file_upload": (path.name, file, audio.content_type)},
            )
        found = answer if isinstance(answer, dict) else {}
        return Greeting(_text(found.get("filename")), _text(found.get("fileSid")))

    def download_recording(self, call_id: str, file: BinaryIO, record_path: str | None = None) -> Recording:
        """Write a call's recording into the empty, seekable ``file``, and check that it is one.

        One of a format that is not known is a recording too, and its ``audio.doubt`` says so. ``record_path`` is the
        link that the call history gives, if there is one. Also raises RecordingNotFoundError, NotARecordingError,
        RefusedLinkError, and NoAddressError for an id that no address can name.
        """
        fetched = fetch_recording(self._client, call_id, file, record_path=record_path)
        audio = inspect_audio(file, fetched.content_type)
        return Recording(call_id, fetched.bytes, fetched.sha256, audio)

    def delete_recording(self, call_id: str) -> Accepted:
        """Delete a call's recording at the provider, for good."""
        answer = self._client.request("delete_recording", path_values={"call_id": call_id})
        return Accepted("delete_recording", _mapping(answer))

    def _change(self, operation: str, body: Mapping[str, Any]) -> Accepted:
        return Accepted(operation, _mapping(self._client.request(operation, json=body)))


def check_greeting(file: BinaryIO) -> Audio:
    """Return what audio a greeting's file holds; raises DataError that says what is wrong with it."""
    try:
        audio = inspect_audio(file)
    except NotARecordingError as error:
        raise DataError("this file is no whole WAV or MP3 audio: convert it first") from error
    if audio.extension not in _GREETING_FORMATS or audio.doubt is not None:
        kind = "of an unknown format" if audio.extension == "bin" else f"{audio.extension.upper()} audio"
        raise DataError(f"this file is {kind}: convert it to WAV or MP3 first")
    return audio


def _mapping(answer: Any) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {} if answer is None else {"data": answer}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
