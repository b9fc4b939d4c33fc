"""What a file of audio is, by its content: its format, whether it is whole, and how long it plays."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from tinytag import TinyTag, TinyTagException

from transforms.errors import DataError, RetryableError

_UNKNOWN_SIZES = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})
"""What a WAV header says that was written before its length was known."""
_LONGER_SHARE, _LONGER_SECONDS = 1.1, 60
_SHORTER_SHARE, _SHORTER_FROM_SECONDS = 0.2, 30


class NotARecordingError(RetryableError):
    """What was served is no audio, or not all of it; a later answer may be."""


class ImplausibleAudioError(DataError):
    """The audio is whole, but its length does not go with the call."""


@dataclass(frozen=True)
class Audio:
    """The audio in a file; ``extension`` comes without a dot."""

    extension: str
    content_type: str
    duration_seconds: float


def inspect_audio(file: BinaryIO) -> Audio:
    """Return what a seekable ``file`` of WAV, MP3, OGG or M4A holds, in constant memory.

    Raises NotARecordingError for everything else, for a file that ends before its own headers say, and for audio of
    no length. The signatures are those of RIFF, ID3v2 and MPEG audio frames, RFC 3533 and ISO/IEC 14496-12.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    extension, content_type = _format_of(head)
    if extension == "wav":
        _check_riff_size(head, size)
    elif extension == "m4a":
        _check_boxes(file, size)
    duration = _duration_seconds(file)
    if extension == "wav" and duration is not None:
        duration = min(duration, _wav_seconds_at_most(file, size))
    if not duration or duration < 0 or duration == float("inf"):
        raise NotARecordingError(f"the {extension.upper()} audio that was served plays for no time at all")
    return Audio(extension, content_type, duration)


def check_plausible(audio: Audio, call_seconds: int | None, talk_seconds: int | None) -> None:
    """Raise ImplausibleAudioError when ``audio`` plays much longer than the call, or is but a scrap of the talk.

    Either length may be unknown. The tolerances are wide, for what a portal records (ringing, hold, only a part on
    the agent's demand) is not published.
    """
    longest = max((seconds for seconds in (call_seconds, talk_seconds) if seconds is not None), default=None)
    seconds = audio.duration_seconds
    if longest is not None and seconds > longest * _LONGER_SHARE + _LONGER_SECONDS:
        raise ImplausibleAudioError(f"the audio plays {seconds:.0f} seconds, the call took {longest}")
    if talk_seconds is not None and talk_seconds >= _SHORTER_FROM_SECONDS and seconds < talk_seconds * _SHORTER_SHARE:
        raise ImplausibleAudioError(f"the audio plays {seconds:.0f} seconds, the talk took {talk_seconds}")


def _format_of(head: bytes) -> tuple[str, str]:
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "wav", "audio/wav"
    if head.startswith(b"OggS\0"):
        return "ogg", "audio/ogg"
    if head[4:8] == b"ftyp":
        return "m4a", "audio/mp4"
    # 11 bits of sync, then a version, a layer and a bit rate that are not reserved.
    is_frame = len(head) >= 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0
    if head.startswith(b"ID3") or (is_frame and head[1] & 0x18 != 0x08 and head[1] & 0x06 and head[2] & 0xF0 != 0xF0):
        return "mp3", "audio/mpeg"
    raise NotARecordingError("what was served is not WAV, MP3, OGG or M4A audio")


def _check_riff_size(head: bytes, size: int) -> None:
    declared = struct.unpack_from("<I", head, 4)[0]
    if declared not in _UNKNOWN_SIZES and declared + 8 > size:
        raise NotARecordingError(f"the WAV audio is cut short: {size} of {declared + 8} bytes")


def _wav_seconds_at_most(file: BinaryIO, size: int) -> float:
    """Return how long the whole file could play: a header written ahead of the audio may promise hours."""
    file.seek(0)
    header = file.read(32)
    bytes_per_second: int = struct.unpack_from("<I", header, 28)[0] if header[12:16] == b"fmt " else 0
    return size / bytes_per_second if bytes_per_second else float("inf")


def _check_boxes(file: BinaryIO, size: int) -> None:
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
            raise NotARecordingError(f"the M4A audio is cut short or damaged at byte {position} of {size}")
        position += length
    if not has_media:
        raise NotARecordingError(f"the M4A audio is cut short: its {size} bytes hold no media data")


def _duration_seconds(file: BinaryIO) -> float | None:
    file.seek(0)
    try:
        return TinyTag.get(file_obj=file, tags=False).duration
    except TinyTagException as error:
        raise NotARecordingError(f"the audio that was served is damaged ({type(error).__name__})") from error
