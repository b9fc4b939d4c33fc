"""Recordings (download, delete) and greeting files (upload)."""

from __future__ import annotations

import email.message
import email.parser
import email.policy
import re
import zlib

from pipelines.simulator.audio import CONTENT_TYPES, recording
from pipelines.simulator.rows import Row
from pipelines.simulator.state import PortalState
from pipelines.simulator.wire import Refusal, Request, Response, envelope


def download(portal: PortalState, request: Request, call_id: str) -> Response:
    """Serve the audio of a recorded or voicemail call, whole or by ``Range``.

    It is missing before it is ready, and after it expired or was deleted. The options ``recording_...`` say what it is
    like, and the others named here how ranges are served.
    """
    row = _row_with_recording(portal, call_id)
    if row is None:
        if portal.options.missing_recording == "envelope":
            return envelope(10, "Recording not found", portal.options.message_key)
        return envelope(10, "Recording not found", portal.options.message_key, 404)
    options = portal.options
    seconds = row["talk_duration"] if options.recording_seconds is None else options.recording_seconds
    audio = recording(call_id, seconds, options.recording_format)
    audio = audio[: round(len(audio) * options.recording_share)]
    content_type, etag = CONTENT_TYPES[options.recording_format], f'"{zlib.crc32(audio):08x}"'
    headers = {"Accept-Ranges": "bytes", "ETag": etag}
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    has_changed = options.honours_if_range and request.headers.get("if-range", etag) != etag
    if wanted is None or wanted.groups() == ("", "") or has_changed:
        return Response(200, audio, content_type, headers)
    if wanted[1]:
        first, last = int(wanted[1]), min(int(wanted[2] or len(audio)), len(audio) - 1)
    else:
        first, last = max(len(audio) - int(wanted[2]), 0), len(audio) - 1
    if first > last:
        return Response(416, b"", content_type, headers | {"Content-Range": f"bytes */{len(audio)}"})
    if options.most_bytes_per_range is not None:
        last = min(last, first + options.most_bytes_per_range - 1)
    headers["Content-Range"] = f"bytes {first}-{last}/{len(audio) if options.range_says_total else '*'}"
    return Response(206, audio[first : last + 1], content_type, headers)


def delete(portal: PortalState, call_id: str) -> Response:
    """Delete a recording for good; the history keeps its row as it was."""
    if _row_with_recording(portal, call_id) is None:
        raise Refusal(10, "Recording not found", 404)
    portal.deleted_recordings.add(call_id)
    return envelope(0, "Success", portal.options.message_key)


def _row_with_recording(portal: PortalState, call_id: str) -> Row | None:
    now_ms = portal.clock.now_ms()
    position = portal.store.find(call_id, now_ms)
    if position is None or call_id in portal.deleted_recordings:
        return None
    row = portal.store.row_as_generated(position, now_ms)
    age_seconds = (now_ms - row["end_time"]) / 1000
    options = portal.options
    kept = options.recording_ready_seconds <= age_seconds <= options.recording_kept_days * 86_400
    return row if (row.get("recorded") or row.get("have_voice_mail")) and kept else None


def upload_greeting(portal: PortalState, request: Request) -> Response:
    """Keep an uploaded file; answers its name and its id."""
    head = b"Content-Type: " + request.headers.get("content-type", "").encode() + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    parts = {
        part.get_param("name", header="content-disposition"): part for part in message.walk() if not part.is_multipart()
    }
    description, file = parts.get("desc"), parts.get("file_upload")
    if description is None or file is None or not file.get_filename():
        raise Refusal(13, "desc and file_upload are required", 400)
    file_sid = f"GRSIMULATED{len(portal.greetings) + 1}"
    payload = file.get_payload(decode=True)
    portal.greetings[file_sid] = (str(file.get_filename()), payload if isinstance(payload, bytes) else b"")
    return envelope(0, "Success", portal.options.message_key, filename=file.get_filename(), fileSid=file_sid)
