"""What counts as audio, whole or damaged, of a known format or none; and what is no recording at all."""

from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.simulator.audio import recording
from pipelines.stringeex.audio import (
    Audio,
    DamagedAudioError,
    Doubt,
    NotARecordingError,
    doubt_about,
    inspect_audio,
    is_text,
)


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
        b"RIFF\x24\0\0\0",
        b'{"r":10,"msg":"Recording not found"}',
        b"<!doctype html><title>Bad Gateway</title>",
        b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>',
        "Không tìm thấy bản ghi âm".encode(),
        "<html><title>Không tìm thấy</title>".encode("cp1258", "replace"),
    ],
)
def test_text_and_next_to_nothing_are_no_recording(content: bytes) -> None:
    with pytest.raises(NotARecordingError) as caught:
        inspect_audio(io.BytesIO(content))
    assert not isinstance(caught.value, DamagedAudioError)


def test_text_is_told_by_all_of_its_beginning_and_not_by_one_byte() -> None:
    assert is_text(b"{")
    assert is_text(b"[1, 2")
    assert is_text("gọi".encode()[:-1]), "the beginning may end within a character"
    assert is_text("not found".encode("utf-16"))
    assert is_text(b"caf\xe9", "text/plain; charset=latin-1")
    for audio in (b"{\0\1\2", b"[\xd5\xd5\xd5", b"<\x7f", b"\xff\xfe\0\0\1\0", b"caf\xe9!"):
        assert not is_text(audio, "audio/wav")


@pytest.mark.parametrize(
    ("content", "extension", "content_type"),
    [
        (b"#!AMR\n\x3c" + bytes(31), "amr", "audio/AMR"),
        (b"#!AMR-WB\n\x44" + bytes(31), "awb", "audio/AMR-WB"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + bytes(9), "webm", "audio/webm"),
        (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x88matroska", "mka", "audio/x-matroska"),
        (b"fLaC\x80\0\0\x22" + bytes(34), "flac", "audio/flac"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9), "aac", "audio/aac"),
        (b"\xff\xf9\x50\x80\x02\x1f\xfc" + bytes(9), "aac", "audio/aac"),
        (b"RF64\xff\xff\xff\xffWAVEds64" + bytes(9), "wav", "audio/wav"),
        (b"\0\0\0\x18styp" + bytes(16), "m4a", "audio/mp4"),
        (b"FORM\0\0\0\x04AIFF" + bytes(9), "aiff", "audio/aiff"),
        (b"\0" * 5_000, "bin", "application/octet-stream"),
        (b"\xd5" * 5_000, "bin", "application/octet-stream"),
        (b"{\0" * 5_000, "bin", "application/octet-stream"),
    ],
)
def test_what_cannot_be_checked_is_kept_under_the_name_of_its_format(
    content: bytes, extension: str, content_type: str
) -> None:
    audio = inspect_audio(io.BytesIO(content))
    assert (audio.extension, audio.content_type, audio.doubt) == (extension, content_type, Doubt.UNKNOWN_FORMAT)


def test_the_answers_own_word_counts_where_no_format_is_known_and_it_names_audio() -> None:
    content = bytes(100)
    assert inspect_audio(io.BytesIO(content), "Audio/X-G729; rate=8000").content_type == "audio/x-g729"
    for said in ("text/html", "application/json", "audio/", "audio/x\r\ny", "audio/" + "x" * 80):
        assert inspect_audio(io.BytesIO(content), said).content_type == "application/octet-stream"


def test_a_file_of_a_mobile_phone_is_checked_as_any_other_of_its_kind() -> None:
    content = m4a().replace(b"ftypM4A ", b"ftyp3gp4")
    assert inspect_audio(io.BytesIO(content)) == Audio("3gp", "audio/3gpp", 5.0)
    with pytest.raises(DamagedAudioError):
        inspect_audio(io.BytesIO(content[:-1]))


@pytest.mark.parametrize("content", [wav(seconds=0), wav()[:-1], m4a()[:-1]])
def test_audio_that_is_less_than_it_promises_is_damaged(content: bytes) -> None:
    with pytest.raises(DamagedAudioError) as caught:
        inspect_audio(io.BytesIO(content))
    assert caught.value.audio.doubt is Doubt.DAMAGED


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


BEGINNINGS = [b"#!AMR\n", b"fLaC", b"\x1a\x45\xdf\xa3", b"\xff\xf1\x50\x80", b"FORM\0\0\0\x04AIFF", b"RF64\0\0\0\0WAVE"]


@given(
    prefix=st.sampled_from([*(content[:40] for content, *_ in WHOLE.values()), *BEGINNINGS, b""]),
    rest=st.binary(max_size=400),
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_end_in_another_error(prefix: bytes, rest: bytes) -> None:
    try:
        audio = inspect_audio(io.BytesIO(prefix + rest))
    except NotARecordingError:
        return
    assert audio.duration_seconds is None or audio.duration_seconds > 0
    assert (audio.doubt is None) <= (audio.duration_seconds is not None)


@pytest.mark.parametrize(
    ("audio_seconds", "call_seconds", "talk_seconds", "doubt"),
    [
        (60, 80, 60, None),
        (80, 80, 20, None),
        (100, 40, 30, None),
        (1, 1, 0, None),
        (500, None, None, None),
        (20, None, 60, None),
        (200, 100, 90, Doubt.LONGER_THAN_CALL),
        (3_600, None, 60, Doubt.LONGER_THAN_CALL),
        (5, 300, 290, Doubt.SHORTER_THAN_TALK),
        (None, 300, 290, None),
    ],
)
def test_a_length_that_does_not_go_with_the_call_is_doubtful(
    audio_seconds: float | None, call_seconds: int | None, talk_seconds: int | None, doubt: Doubt | None
) -> None:
    assert doubt_about(Audio("wav", "audio/wav", audio_seconds), call_seconds, talk_seconds) == doubt


def test_what_the_content_shows_goes_before_the_length() -> None:
    assert doubt_about(Audio("flac", "audio/flac", 5.0, Doubt.UNKNOWN_FORMAT), 300, 290) is Doubt.UNKNOWN_FORMAT
