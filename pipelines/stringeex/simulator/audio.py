"""Recordings: valid WAV audio, made from the call id, as long as the talk was."""

from __future__ import annotations

import io
import wave
import zlib

import numpy as np

SAMPLES_PER_SECOND = 1_000


def recording(call_id: str, seconds: int) -> bytes:
    """Return mono 8-bit WAV audio of whole seconds (at least one): a tone that differs from call to call."""
    pitch = 120 + zlib.crc32(call_id.encode()) % 300
    time = np.arange(max(seconds, 1) * SAMPLES_PER_SECOND) / SAMPLES_PER_SECOND
    samples = (128 + 60 * np.sin(2 * np.pi * pitch * time) * np.sin(np.pi * time) ** 2).astype(np.uint8)
    file = io.BytesIO()
    with wave.open(file, "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(1)
        audio.setframerate(SAMPLES_PER_SECOND)
        audio.writeframes(samples.tobytes())
    return file.getvalue()
