"""What counts as audio: whole WAV, MP3, OGG and M4A files; and what is refused."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.recordings.audio import Audio, ImplausibleAudioError, NotARecordingError, check_plausible, inspect_audio
from pipelines.stringeex.simulator.audio import recording


def wav(seconds: float = 2.0, rate: int = 8_000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(rate)
        audio.writeframes(b"\1\2" * int(seconds * rate))
    return file.getvalue()


def mp3(frames: int = 100) -> bytes:
    """MPEG-1 layer III, 128 kbit/s, 44.1 kHz: frames of 417 bytes and 1152 samples."""
    return (b"\xff\xfb\x90\x00" + bytes(413)) * frames


def ogg(seconds: int = 3) -> bytes:
    """Opus in Ogg (RFC 7845): granule positions count samples at 48 kHz."""

    def page(kind: int, granule: int, number: int, body: bytes) -> bytes:
        return b"OggS\0" + struct.pack("<BqIIIBB", kind, granule, 7, number, 0, 1, len(body)) + body

    head = b"OpusHead\x01\x01" + struct.pack("<HIhB", 0, 48_000, 0, 0)
    tags = b"OpusTags" + struct.pack("<I", 4) + b"test" + struct.pack("<I", 0)
    return page(2, 0, 0, head) + page(0, 0, 1, tags) + page(4, seconds * 48_000, 2, bytes(200))


def m4a(seconds: int = 5) -> bytes:
    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body) + 8) + name + body

    mvhd = box(b"mvhd", bytes(12) + struct.pack(">II", 1_000, seconds * 1_000) + bytes(80))
    return box(b"ftyp", b"M4A \0\0\0\0isom") + box(b"moov", mvhd) + box(b"mdat", bytes(300))


WHOLE = {
    "wav": (wav(), "audio/wav", 2.0),
    "mp3": (mp3(), "audio/mpeg", 2.61),
    "ogg": (ogg(), "audio/ogg", 3.0),
    "m4a": (m4a(), "audio/mp4", 5.0),
}


@pytest.mark.parametrize("extension", WHOLE)
def test_the_four_formats_are_known_by_their_content(extension: str) -> None:
    content, content_type, seconds = WHOLE[extension]
    assert inspect_audio(io.BytesIO(content)) == Audio(extension, content_type, pytest.approx(seconds, abs=0.05))


def test_a_tag_in_front_of_the_first_frame_is_mp3() -> None:
    tagged = b"ID3\x03\0\0" + bytes((0, 0, 0, 64)) + bytes(64) + mp3()
    assert inspect_audio(io.BytesIO(tagged)).extension == "mp3"


def test_the_simulated_portal_serves_audio() -> None:
    assert inspect_audio(io.BytesIO(recording("call-1", 12))) == Audio("wav", "audio/wav", 12.0)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"r":10,"msg":"Recording not found"}',
        b"<!doctype html><title>Bad Gateway</title>",
        b"\0" * 5_000,
        b"RIFF\x24\0\0\0AVI LIST",
        b"\xff\xff\xff\xff" * 100,
        b"\xff\xd8\xff\xe0 a picture",
        wav(seconds=0),
    ],
)
def test_anything_else_is_no_recording(content: bytes) -> None:
    with pytest.raises(NotARecordingError):
        inspect_audio(io.BytesIO(content))


@pytest.mark.parametrize("extension", ["wav", "m4a"])
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.306640625)  # between two boxes: whole as far as it goes, and without audio
@settings(max_examples=60, deadline=None)
def test_a_file_that_ends_too_early_is_no_recording(extension: str, share: float) -> None:
    content = WHOLE[extension][0]
    # The box before the cut may end there, and then the file is whole but without audio.
    with pytest.raises(NotARecordingError):
        inspect_audio(io.BytesIO(content[: int(share * len(content))]))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_header_written_ahead_of_the_audio_does_not_promise_hours(size: int) -> None:
    content = bytearray(wav(seconds=3))
    struct.pack_into("<I", content, 4, size)
    struct.pack_into("<I", content, 40, 0xFFFFFFFF)
    assert inspect_audio(io.BytesIO(bytes(content))).duration_seconds == pytest.approx(3, abs=0.1)


@given(prefix=st.sampled_from([*(content[:40] for content, *_ in WHOLE.values()), b""]), rest=st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_no_bytes_end_in_another_error(prefix: bytes, rest: bytes) -> None:
    try:
        audio = inspect_audio(io.BytesIO(prefix + rest))
    except NotARecordingError:
        return
    assert audio.duration_seconds > 0


@pytest.mark.parametrize(
    ("audio_seconds", "call_seconds", "talk_seconds", "is_plausible"),
    [
        (60, 80, 60, True),
        (80, 80, 20, True),
        (100, 40, 30, True),
        (1, 1, 0, True),
        (500, None, None, True),
        (20, None, 60, True),
        (200, 100, 90, False),
        (3_600, None, 60, False),
        (5, 300, 290, False),
    ],
)
def test_the_length_has_to_go_with_the_call(
    audio_seconds: float, call_seconds: int | None, talk_seconds: int | None, is_plausible: bool
) -> None:
    audio = Audio("wav", "audio/wav", audio_seconds)
    if is_plausible:
        check_plausible(audio, call_seconds, talk_seconds)
    else:
        with pytest.raises(ImplausibleAudioError, match=f"{audio_seconds} seconds"):
            check_plausible(audio, call_seconds, talk_seconds)
