"""What a file of audio is, by its content: its format, whether it is whole, how long it plays, and what is odd."""

from __future__ import annotations

import codecs
import os
import re
import struct
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import BinaryIO

from tinytag import TinyTag, TinyTagException

from transforms.errors import RetryableError

_UNKNOWN_SIZES = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
"""What a WAV header says that was written before its length was known."""
_LONGER_SHARE, _LONGER_SECONDS = 1.1, 60
_SHORTER_SHARE, _SHORTER_FROM_SECONDS = 0.2, 30


_BEGINNING_BYTES = 1_024
_ISO_TYPES = frozenset({"audio/mp4", "audio/3gpp", "audio/3gpp2"})
_MARKUP = re.compile(rb"\s*<(!doctype|!--|\?xml|[a-z][a-z0-9]*[\s/>])", re.IGNORECASE)
_TEXT_TYPES = re.compile(r"text/|application/(.*\+)?(json|xml)\b", re.IGNORECASE)
_CONTROL_BYTES = frozenset(range(32)) - frozenset(b"\t\n\f\r") | {127}


class Doubt(StrEnum):
    """What is odd about a recording that is kept all the same."""

    SHORTER_THAN_TALK = "shorter_than_talk"
    LONGER_THAN_CALL = "longer_than_call"
    UNKNOWN_FORMAT = "unknown_format"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class Audio:
    """The audio in a file; ``extension`` comes without a dot, ``duration_seconds`` is null where nobody can tell.

    ``doubt`` is what the content alone shows: that it is damaged, or of a format that cannot be checked.
    """

    extension: str
    content_type: str
    duration_seconds: float | None
    doubt: Doubt | None = None


class NotARecordingError(RetryableError):
    """What was served is no audio, or not all of it; a later answer may be."""


class DamagedAudioError(NotARecordingError):
    """The audio is less than its own headers promise; ``audio`` is what it is otherwise."""

    def __init__(self, message: str, audio: Audio) -> None:
        super().__init__(message)
        self.audio = audio


@dataclass(frozen=True)
class _Format:
    extension: str
    content_type: str
    signature: re.Pattern[bytes]
    is_checked: bool = False


def _format(extension: str, content_type: str, signature: bytes, *, is_checked: bool = False) -> _Format:
    return _Format(extension, content_type, re.compile(signature, re.DOTALL), is_checked)


_FORMATS = (
    _format("wav", "audio/wav", rb"RIFF....WAVE", is_checked=True),
    _format("wav", "audio/wav", rb"(RF64|BW64|RIFX)....WAVE"),
    _format("ogg", "audio/ogg", rb"OggS\0", is_checked=True),
    _format("3gp", "audio/3gpp", rb"....ftyp3g[prsegh]", is_checked=True),
    _format("3g2", "audio/3gpp2", rb"....ftyp3g2", is_checked=True),
    _format("m4a", "audio/mp4", rb"....ftyp", is_checked=True),
    _format("m4a", "audio/mp4", rb"....(moov|moof|mdat|styp)"),
    _format("mp3", "audio/mpeg", rb"ID3", is_checked=True),
    # 11 bits of sync, then a version, a layer and a bit rate that are not reserved.
    _format("mp3", "audio/mpeg", rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff][\x00-\xef]", is_checked=True),
    _format("aac", "audio/aac", rb"\xff[\xf0\xf1\xf8\xf9]|ADIF"),
    _format("amr", "audio/AMR", rb"#!AMR(_MC1\.0)?\n"),
    _format("awb", "audio/AMR-WB", rb"#!AMR-WB(_MC1\.0)?\n"),
    _format("flac", "audio/flac", rb"fLaC"),
    _format("webm", "audio/webm", rb"\x1a\x45\xdf\xa3.{0,60}?webm"),
    _format("mka", "audio/x-matroska", rb"\x1a\x45\xdf\xa3"),
    _format("aiff", "audio/aiff", rb"FORM....AIF[FC]"),
    _format("au", "audio/basic", rb"\.snd"),
    _format("wma", "audio/x-ms-wma", rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    _format("caf", "audio/x-caf", rb"caff\0\x01"),
)
"""Known by their beginnings, the first that matches. What is checked is checked to be whole, and has a length.

The signatures are those of RIFF and its 64-bit and big-endian forms, RFC 3533 (Ogg), ISO/IEC 14496-12, ID3v2, MPEG
audio frames and ADTS (ISO/IEC 11172-3 and 13818-7), RFC 4867 (AMR), RFC 9639 (FLAC), RFC 8794 (EBML), AIFF, AU, ASF
and Apple's CAF.
"""
_UNKNOWN_EXTENSION = "bin"
_UNKNOWN_CONTENT_TYPE = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"(audio|video)/[a-z0-9][a-z0-9!#$&^_.+-]{0,50}", re.IGNORECASE)
_SIGNATURE_BYTES = 80
_FEWEST_BYTES = 12
"""Less is not even the beginning of a file of audio."""

EXTENSIONS = tuple(dict.fromkeys([*(known.extension for known in _FORMATS), _UNKNOWN_EXTENSION]))
"""Every extension that a recording can get."""


def inspect_audio(file: BinaryIO, content_type: str = "") -> Audio:
    """Return what audio a seekable ``file`` holds, in constant memory.

    WAV, MP3, OGG and ISO media (M4A, 3GP) are checked to be whole. What is of another format is kept as
    ``unknown_format``, with a length where one can be told; where no format is known, the answer's ``content_type``
    counts if it names audio or video.

    Raises NotARecordingError for nothing and for text, and DamagedAudioError for a file that ends before its own
    headers say and for audio that plays for no time.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_BEGINNING_BYTES)
    if size < _FEWEST_BYTES:
        raise NotARecordingError(f"what was served is no audio: it has {size} bytes")
    known = next((known for known in _FORMATS if known.signature.match(head[:_SIGNATURE_BYTES])), None)
    if known is None:
        if is_text(head, content_type):
            raise NotARecordingError("what was served is no audio, but text")
        media_type = _MEDIA_TYPE.fullmatch(content_type.partition(";")[0].strip())
        name = media_type[0].lower() if media_type else _UNKNOWN_CONTENT_TYPE
        return Audio(_UNKNOWN_EXTENSION, name, None, Doubt.UNKNOWN_FORMAT)
    audio = Audio(known.extension, known.content_type, None)
    try:
        duration = _duration_seconds(file)
    except TinyTagException as error:
        duration = None
        if known.is_checked:
            raise _damaged(audio, f"the audio that was served is damaged ({type(error).__name__})") from error
    if duration is not None and not 0 < duration < float("inf"):
        duration = None
    if not known.is_checked:
        return replace(audio, duration_seconds=duration, doubt=Doubt.UNKNOWN_FORMAT)
    problem = None
    if known.extension == "wav":
        problem = _riff_problem(head, size)
        duration = min(duration, _wav_seconds_at_most(file, size)) if duration else None
    elif known.content_type in _ISO_TYPES:
        problem = _boxes_problem(file, size)
    if problem is None and not duration:
        problem = f"the {audio.extension.upper()} audio that was served plays for no time at all"
    audio = replace(audio, duration_seconds=duration)
    if problem is not None:
        raise _damaged(audio, problem)
    return audio


def doubt_about(audio: Audio, call_seconds: int | None, talk_seconds: int | None) -> Doubt | None:
    """Return what is odd about ``audio``: by its content, or as it plays much longer or shorter than the call.

    Either length may be unknown. The tolerances are wide, for what a portal records (ringing, hold, only a part on
    the agent's demand) is not published.
    """
    seconds = audio.duration_seconds
    if audio.doubt is not None or seconds is None:
        return audio.doubt
    longest = max((seconds for seconds in (call_seconds, talk_seconds) if seconds is not None), default=None)
    if longest is not None and seconds > longest * _LONGER_SHARE + _LONGER_SECONDS:
        return Doubt.LONGER_THAN_CALL
    if talk_seconds is not None and talk_seconds >= _SHORTER_FROM_SECONDS and seconds < talk_seconds * _SHORTER_SHARE:
        return Doubt.SHORTER_THAN_TALK
    return None


def is_text(beginning: bytes, content_type: str = "") -> bool:
    """Return whether an answer that begins so is text, such as an envelope, a page of HTML or a sentence.

    Text holds no control bytes, and is UTF-8, or says that it is text (``content_type``), or begins as HTML and XML do.
    Audio of any kind has control bytes, or is no UTF-8: one first byte, such as ``{``, says nothing. UTF-16 is known by
    the mark in front of it.
    """
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")):
        return beginning.decode("utf-16", "ignore").isprintable()
    if not _CONTROL_BYTES.isdisjoint(beginning):
        return False
    if _TEXT_TYPES.match(content_type.strip()) or _MARKUP.match(beginning):
        return True
    try:
        # The end may be in the middle of a character.
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return True


def _damaged(audio: Audio, message: str) -> DamagedAudioError:
    return DamagedAudioError(message, replace(audio, doubt=Doubt.DAMAGED))


def _riff_problem(head: bytes, size: int) -> str | None:
    declared = struct.unpack_from("<I", head, 4)[0]
    if declared not in _UNKNOWN_SIZES and declared + 8 > size:
        return f"the WAV audio is cut short: {size} of {declared + 8} bytes"
    return None


def _wav_seconds_at_most(file: BinaryIO, size: int) -> float:
    """Return how long the whole file could play: a header written ahead of the audio may promise hours."""
    file.seek(0)
    header = file.read(32)
    bytes_per_second: int = struct.unpack_from("<I", header, 28)[0] if header[12:16] == b"fmt " else 0
    return size / bytes_per_second if bytes_per_second else float("inf")


def _boxes_problem(file: BinaryIO, size: int) -> str | None:
    """Walk the outermost boxes, which have to end where the file does and to hold media data (``mdat``)."""
    position, has_media = 0, False
    while position < size:
        file.seek(position)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        has_media |= header[4:8] == b"mdat"
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        elif length == 0:
            length = size - position
        if length < 8 or position + length > size:
            return f"the audio is cut short or damaged at byte {position} of {size}"
        position += length
    return None if has_media else f"the audio is cut short: its {size} bytes hold no media data"


def _duration_seconds(file: BinaryIO) -> float | None:
    file.seek(0)
    return TinyTag.get(file_obj=file, tags=False).duration
