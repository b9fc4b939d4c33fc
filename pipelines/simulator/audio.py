"""Recordings: audio made from the call id, as long as the talk was; valid WAV, or the beginnings of other formats."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Literal

import numpy as np

SAMPLES_PER_SECOND = 1_000

RecordingFormat = Literal["wav", "mp3", "3gp", "amr", "webm", "flac", "aac", "raw"]

CONTENT_TYPES: dict[RecordingFormat, str] = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "3gp": "audio/3gpp",
    "amr": "audio/AMR",
    "webm": "audio/webm",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "raw": "audio/x-g729",
}
"""What the portal says of each format; ``raw`` is bytes that no signature tells of."""


def recording(call_id: str, seconds: int, form: RecordingFormat = "wav") -> bytes:
    """Return audio of whole seconds (at least one), which differs from call to call.

    WAV is a tone (mono, 8 bits). The other formats have the right signature, and MP3 and 3GP are whole, but there is
    nothing to hear.
    """
    seconds = max(seconds, 1)
    seed = zlib.crc32(call_id.encode())
    if form == "wav":
        return _wav(120 + seed % 300, seconds)
    noise = np.random.default_rng(seed).integers(0, 256, seconds * SAMPLES_PER_SECOND, np.uint8).tobytes()
    match form:
        case "mp3":
            # Frames of MPEG-1 layer III, 32 kbit/s, 32 kHz: 144 bytes and 36 milliseconds each.
            frames = [b"\xff\xfb\x18\xc0" + struct.pack("<I", seed) + bytes(136)] * (seconds * 1000 // 36)
            return b"".join(frames)
        case "3gp":
            length = _box(b"mvhd", bytes(12) + struct.pack(">II", 1_000, seconds * 1_000) + bytes(80))
            return _box(b"ftyp", b"3gp4\0\0\0\0isom") + _box(b"moov", length) + _box(b"mdat", noise)
        case "amr":
            return b"#!AMR\n" + b"\x3c" + noise
        case "webm":
            return b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm" + noise
        case "flac":
            return b"fLaC\x80\0\0\x22" + bytes(34) + noise
        case "aac":
            return b"\xff\xf1\x50\x80\x02\x1f\xfc" + noise
    # The first byte is that of an envelope, and the rest is none.
    return b"{\0" + noise


def _wav(pitch: int, seconds: int) -> bytes:
    time = np.arange(seconds * SAMPLES_PER_SECOND) / SAMPLES_PER_SECOND
    samples = (128 + 60 * np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time) ** 2).astype(np.uint8)
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(1)
        audio.setframerate(SAMPLES_PER_SECOND)
        audio.writeframes(samples.tobytes())
    return file.getvalue()


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body
