"""The tables of the side flows: recordings, and calls in progress; and the shared request budget."""

from __future__ import annotations

from dataclasses import replace

from transforms.columns import CALL_ID, Column, Pii, Table, bookkeeping
from transforms.types import BOOLEAN, DATE, INSTANT, INTEGER, JSON, SMALL_INTEGER, TEXT

METRIC_PARAMETERS = Table(
    "metric_parameters",
    "The numbers that the metrics' definitions depend on, as the settings have them; the views read them here.",
    columns=(
        bookkeeping(
            "name",
            TEXT,
            "What the definitions call it.",
            nullable=False,
            key=True,
            max_length=64,
            example="service_level_seconds",
        ),
        bookkeeping("value", INTEGER, "The number.", nullable=False, example="20"),
        bookkeeping(
            "unit", TEXT, "Its unit; empty for what has none.", nullable=False, max_length=32, example="seconds"
        ),
        bookkeeping(
            "description",
            TEXT,
            "What it decides.",
            nullable=False,
            example="An answer within this time meets the service level.",
        ),
    ),
)

RECORDINGS = Table(
    "recordings",
    "One row per call that was recorded or left a voicemail: whether its audio is in the archive, and what proves it.",
    columns=(
        CALL_ID,
        bookkeeping(
            "status",
            TEXT,
            "pending, archived, not_ready (the provider does not have it, yet or any more, and is asked again), "
            "missing (asked for at least three times, over a day or more, and not there), none (the same, but nothing "
            "said that there was one), failed (tried again later), deleted_at_source (archived, and deleted at the "
            "provider by us), or expired (older than CALLHISTORY_RETENTION_RECORDINGS, so gone from here).",
            nullable=False,
            max_length=32,
            index=True,
            example="archived",
        ),
        bookkeeping(
            "archive_path",
            TEXT,
            "Name of the audio file below CALLHISTORY_ARCHIVE_URL.",
            example="2026/01/05/call-vn-1-ABCDEFGHIJ-1767600000000.mp3",
        ),
        bookkeeping("bytes", INTEGER, "Size of the audio file.", unit="bytes"),
        bookkeeping(
            "sha256",
            TEXT,
            "SHA-256 of the audio file, in hexadecimal digits.",
            max_length=64,
            example="0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
        bookkeeping(
            "content_type", TEXT, "Media type of the audio, by its content.", max_length=64, example="audio/mpeg"
        ),
        bookkeeping(
            "duration_seconds", SMALL_INTEGER, "Length of the audio, rounded to the nearest second.", unit="seconds"
        ),
        bookkeeping(
            "doubt",
            TEXT,
            "What is odd about the archived audio; null if nothing is: shorter_than_talk, longer_than_call, "
            "unknown_format (it cannot be checked whether it is whole), or damaged (the provider has no better one).",
            max_length=32,
            example="shorter_than_talk",
        ),
        bookkeeping("attempts", SMALL_INTEGER, "How often the recording was asked for in vain.", nullable=False),
        bookkeeping(
            "not_found_count",
            SMALL_INTEGER,
            "How often the provider answered that there is no such recording; null: never.",
        ),
        bookkeeping("first_not_found_at", INSTANT, "When it first answered so.", unit="UTC instant"),
        bookkeeping("next_attempt_at", INSTANT, "When it is to be asked for again; null: now.", unit="UTC instant"),
        bookkeeping(
            "last_error",
            TEXT,
            "Why the last attempt, or the last verification, failed; null if it did not.",
            example="HTTP 404",
        ),
        bookkeeping("archived_at", INSTANT, "When the audio was published in the archive.", unit="UTC instant"),
        bookkeeping(
            "verified_at", INSTANT, "When the archived audio was last read back and was right.", unit="UTC instant"
        ),
        bookkeeping("source_deleted_at", INSTANT, "When it was deleted at the provider by us.", unit="UTC instant"),
        bookkeeping("expired_at", INSTANT, "When it was deleted from the archive for its age.", unit="UTC instant"),
        bookkeeping(
            "legal_hold", BOOLEAN, "Whether the recording must not be deleted, here or at the provider.", nullable=False
        ),
        bookkeeping("hold_reason", TEXT, "Why it is under legal hold; null if it is not.", pii=Pii.PAYLOAD),
        bookkeeping("held_at", INSTANT, "Since when it is under legal hold; null if it is not.", unit="UTC instant"),
        bookkeeping(
            "erase_requested_at",
            INSTANT,
            "When somebody on the call was erased while a legal hold kept the audio: it goes when it is released.",
            unit="UTC instant",
        ),
    ),
)

ERASURES = Table(
    "erasures",
    "The people who are erased, as keyed hashes: what the API serves or a backup brings back of them goes at once.",
    columns=(
        bookkeeping(
            "erasure_id",
            TEXT,
            "Hash of whom it is about: the same person, the same id.",
            nullable=False,
            key=True,
            max_length=64,
            example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
        bookkeeping(
            "key_id",
            TEXT,
            "Which CALLHISTORY_PII_KEY the hashes are made with.",
            nullable=False,
            max_length=32,
            example="0f1e2d3c4b5a6978",
        ),
        bookkeeping(
            "digests",
            JSON,
            "HMAC-SHA-256 of each form of a number, an address or an id, with its kind.",
            nullable=False,
            pii=Pii.IDENTIFIER,
            example='["number:0f1e2d3c4b5a69788796a5b4c3d2e1f0"]',
        ),
        bookkeeping("requested_at", INSTANT, "When it was asked for.", nullable=False, unit="UTC instant"),
        bookkeeping(
            "completed_at", INSTANT, "When nothing was left of them; null while it is to be done.", unit="UTC instant"
        ),
        bookkeeping(
            "found",
            JSON,
            "How many rows and files spoke of them when it was asked for, by place.",
            nullable=False,
            example='{"calls":7}',
        ),
    ),
)

LIVE_CALLS = Table(
    "live_calls",
    "Snapshots of the calls in progress: one row per call and snapshot.",
    columns=(
        bookkeeping(
            "snapshot_at", INSTANT, "When the snapshot was taken.", nullable=False, key=True, unit="UTC instant"
        ),
        replace(CALL_ID, source="callId"),
        Column(
            "direction",
            TEXT,
            "outbound, inbound, or unknown for a word that is not documented.",
            source="direction",
            nullable=False,
            max_length=32,
            example="inbound",
        ),
        Column("started_at", INSTANT, "When the call started.", source="startTime", unit="UTC instant"),
        Column("call_date", DATE, "Local day on which the call started.", source="startTime"),
        Column(
            "call_hour",
            SMALL_INTEGER,
            "Local hour in which the call started, 0 to 23.",
            source="startTime",
            unit="hour of day",
        ),
        Column(
            "answered_at", INSTANT, "When it was answered; null if not yet.", source="answeredTime", unit="UTC instant"
        ),
        Column("agent_id", TEXT, "The agent's id.", source="agent", pii=Pii.IDENTIFIER, example="agent_7"),
        Column(
            "customer_number",
            TEXT,
            "The customer's number as it was served.",
            source="customerNumber",
            pii=Pii.PHONE,
            example="84900000000",
        ),
        Column(
            "customer_number_e164",
            TEXT,
            "The customer's number in E.164 form (+84...); null if it is not a phone number.",
            source="customerNumber",
            pii=Pii.PHONE,
            max_length=32,
            example="+84900000000",
        ),
        Column(
            "stringee_number",
            TEXT,
            "Our side's number as it was served.",
            source="stringeeNumber",
            pii=Pii.LINE,
            example="842471000001",
        ),
        Column(
            "stringee_number_name",
            TEXT,
            "What our side's number is called.",
            source="stringeeNumberNickname",
            example="Hotline",
        ),
        bookkeeping(
            "superseded_at",
            INSTANT,
            "When the next snapshot was taken; null in the newest one.",
            unit="UTC instant",
            index=True,
        ),
    ),
)

REQUEST_BUDGET = Table(
    "request_budget",
    "The requests that all processes have sent in the current blocks of time: one row per API.",
    columns=(
        bookkeeping(
            "api", TEXT, "Host of the API.", nullable=False, key=True, max_length=512, example="api.stringeex.com"
        ),
        bookkeeping(
            "state",
            JSON,
            "Requests taken by limit and block of time, who waits for which, and until when the account is blocked.",
            nullable=False,
            example='{"blocks":{}}',
        ),
        bookkeeping("updated_at", INSTANT, "When a request last asked.", nullable=False, unit="UTC instant"),
    ),
)
"""Not one of `transforms.schema.TABLES`: it is no part of the export, and beside a database file it has its own."""
