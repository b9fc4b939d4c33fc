"""Every table and column, declared once.

Arrow schemas, pandas dtypes, SQLAlchemy tables, comments in the database and the data dictionary all derive from
the declarations below, in `transforms.export_tables` and in `transforms.side_tables`; nothing else in the package
spells a column's type or meaning.
"""

from __future__ import annotations

from dataclasses import replace

from transforms.columns import (
    CALL_DATE,
    CALL_ID,
    CALL_ID_MAX_LENGTH,
    PARTITION_COLUMN,
    UNKNOWN,
    Column,
    Pii,
    Role,
    Table,
    bookkeeping,
)
from transforms.export_tables import CERTIFICATES, EXPORT_WINDOWS, LATE_CHANGES, PIPELINE_STATE, SOURCE_FIELDS
from transforms.side_tables import ERASURES, LIVE_CALLS, METRIC_PARAMETERS, RECORDINGS, REQUEST_BUDGET
from transforms.types import BOOLEAN, INSTANT, INTEGER, JSON, LOCAL_TIME, SMALL_INTEGER, TEXT

__all__ = [
    "CALLS",
    "CALL_ID_MAX_LENGTH",
    "CALL_PARTICIPANTS",
    "CALL_VERSIONS",
    "CERTIFICATES",
    "COLUMNS",
    "ERASURES",
    "EXPORT_WINDOWS",
    "LATE_CHANGES",
    "LIVE_CALLS",
    "METRIC_PARAMETERS",
    "PARTITION_COLUMN",
    "PIPELINE_STATE",
    "RECORDINGS",
    "REJECTED_ROWS",
    "REQUEST_BUDGET",
    "SOURCE_FIELDS",
    "TABLES",
    "Column",
    "Pii",
    "Role",
    "Table",
]


def _seconds(name: str, source: str, description: str) -> Column:
    return Column(name, SMALL_INTEGER, description, source=source, unit="seconds")


_STARTED_AT = Column(
    "started_at",
    INSTANT,
    "When the call started.",
    source="start_time",
    unit="UTC instant",
    nullable=False,
    index=True,
    needed=True,
)
CALLS = Table(
    "calls",
    "One row per call, as the provider last told it; a call that vanished there keeps its row, with deleted_at set.",
    partitioned=True,
    # For the calls of a number before or after another one.
    indexes=(("customer_number_e164", "started_at"),),
    columns=(
        CALL_ID,
        Column("project_id", INTEGER, "The project's number at the provider.", source="project_id", example="1"),
        Column("portal", TEXT, "The portal's id.", source="portal", example="demo"),
        Column(
            "direction",
            TEXT,
            "outbound, inbound, internal, or unknown for a code that is not documented.",
            source="direction",
            nullable=False,
            max_length=32,
            needed=True,
            unknown=UNKNOWN,
            example="inbound",
        ),
        Column(
            "direction_code",
            INTEGER,
            "The provider's code: 0 outbound, 1 inbound, 2 internal.",
            source="direction",
            example="1",
        ),
        Column(
            "status",
            TEXT,
            "answered, missed (which can include an agent who did not pick up), stopped_at_ivr, "
            "stopped_at_survey_ivr, or unknown for a code that is not documented.",
            source="status",
            nullable=False,
            max_length=32,
            needed=True,
            unknown=UNKNOWN,
            example="answered",
        ),
        Column(
            "status_code",
            INTEGER,
            "The provider's code: 1 answered, 2 missed, 3 stopped at IVR, 4 stopped at survey IVR.",
            source="status",
            example="1",
        ),
        Column(
            "channel",
            TEXT,
            "voice, video, or unknown.",
            source="video_call",
            nullable=False,
            max_length=32,
            unknown=UNKNOWN,
            example="voice",
        ),
        _STARTED_AT,
        Column("ended_at", INSTANT, "When the call ended.", source="end_time", unit="UTC instant"),
        Column(
            "answered_at",
            INSTANT,
            "When the call was answered; null if it never was.",
            source="answer_time, else first_answer_time",
            unit="UTC instant",
        ),
        Column("enqueued_at", INSTANT, "When the call entered a queue.", source="enqueue_time", unit="UTC instant"),
        CALL_DATE,
        Column(
            "call_hour",
            SMALL_INTEGER,
            "Local hour in which the call started, 0 to 23.",
            source="start_time",
            unit="hour of day",
            nullable=False,
        ),
        Column(
            "started_at_local",
            LOCAL_TIME,
            "The wall clock when the call started, in CALLHISTORY_TIMEZONE.",
            source="start_time",
            unit="local time",
            nullable=False,
            role=Role.DERIVED,
        ),
        _seconds("duration_seconds", "duration", "From start to end."),
        _seconds("ivr_seconds", "ivr_duration", "Time in the voice menu."),
        _seconds("queue_seconds", "queue_duration, else enqueue_time below 10^9", "Time waiting in a queue."),
        _seconds("talk_seconds", "talk_duration", "Time talking; whether it includes hold is not published."),
        _seconds("hold_seconds", "hold_duration", "Time on hold."),
        _seconds("acw_seconds", "acw_duration", "After-call work."),
        _seconds("answer_seconds", "answer_duration, else answer_time below 10^9", "From answer to end."),
        Column(
            "answer_minutes",
            SMALL_INTEGER,
            "From answer to end, rounded up by the provider.",
            source="answer_duration_minutes",
            unit="minutes",
        ),
        Column(
            "customer_number",
            TEXT,
            "The customer's number as it was served.",
            source="customer_number",
            pii=Pii.PHONE,
            example="84900000000",
        ),
        Column(
            "customer_number_e164",
            TEXT,
            "The customer's number in E.164 form (+84...); null if it is not a phone number.",
            source="customer_number",
            pii=Pii.PHONE,
            max_length=32,
            example="+84900000000",
        ),
        Column(
            "customer_country",
            TEXT,
            "Country of the customer's number (ISO 3166-1 alpha-2).",
            source="customer_number",
            max_length=8,
            example="VN",
        ),
        Column(
            "stringee_number",
            TEXT,
            "Our side's number, or a user id such as user_2, as it was served.",
            source="stringee_number",
            pii=Pii.LINE,
            example="842471000001",
        ),
        Column(
            "stringee_number_e164",
            TEXT,
            "Our side's number in E.164 form; null if it is not a phone number.",
            source="stringee_number",
            max_length=32,
            example="+842471000001",
        ),
        Column("agent_id", TEXT, "The agent's id.", source="account", pii=Pii.IDENTIFIER, example="agent_7"),
        Column("agent_name", TEXT, "The agent's name.", source="account_name", pii=Pii.NAME, example="Nguyễn Văn An"),
        Column(
            "agent_email",
            TEXT,
            "The agent's e-mail address.",
            source="account_email",
            pii=Pii.EMAIL,
            example="an@example.com",
        ),
        Column(
            "from_user_id", TEXT, "The calling user's id.", source="from_user_id", pii=Pii.IDENTIFIER, example="user_2"
        ),
        Column("callee", TEXT, "The called user's id.", source="callee", pii=Pii.IDENTIFIER, example="agent_7"),
        Column(
            "contact_name",
            TEXT,
            "The customer's name in the contact book.",
            source="contactname",
            pii=Pii.NAME,
            example="Lê Thị Bình",
        ),
        Column(
            "company_id", TEXT, "The customer's company's id in the contact book.", source="company_id", example="12"
        ),
        Column("company_name", TEXT, "The customer's company's name.", source="companyname", example="Sông Hồng"),
        Column("campaign_name", TEXT, "The campaign the call belongs to.", source="campaign_name", example="Tết"),
        Column("is_recorded", BOOLEAN, "Whether there is a recording.", source="recorded"),
        Column("has_voicemail", BOOLEAN, "Whether the customer left a voicemail.", source="have_voice_mail"),
        Column("routed_to_agent", BOOLEAN, "Whether the call was routed to an agent.", source="route_to_agent"),
        Column(
            "record_path",
            TEXT,
            "Where the provider keeps the recording.",
            source="record_path",
            example="/recordings/2026/01/05/1.mp3",
        ),
        Column(
            "end_call_reason",
            TEXT,
            "Why the call ended, in the provider's words.",
            source="end_call_reason",
            example="USER_END_CALL",
        ),
        Column(
            "participant_count",
            SMALL_INTEGER,
            "Rows of this call in call_participants.",
            source="participants",
            unit="participants",
            nullable=False,
        ),
        Column(
            "extra",
            JSON,
            "JSON object of the fields that are unknown, or whose value could not be read; else null.",
            source="all others",
            pii=Pii.PAYLOAD,
            example='{"queue_name":"sales"}',
        ),
        bookkeeping(
            "row_hash",
            TEXT,
            "Hash of all that the source says of the call: equal hashes, equal calls.",
            nullable=False,
            max_length=64,
            example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
        bookkeeping(
            "window_start",
            INSTANT,
            "Start of the export window that first brought this version.",
            unit="UTC instant",
            nullable=False,
        ),
        bookkeeping("first_seen_at", INSTANT, "When this call was first exported.", unit="UTC instant", nullable=False),
        bookkeeping(
            "updated_at", INSTANT, "When this row last changed here.", unit="UTC instant", nullable=False, index=True
        ),
        bookkeeping(
            "deleted_at",
            INSTANT,
            "When a complete re-read no longer had this call; null while the provider has it.",
            unit="UTC instant",
        ),
    ),
)

CALL_PARTICIPANTS = Table(
    "call_participants",
    "One row per participant of a call, in the provider's order.",
    partitioned=True,
    columns=(
        CALL_ID,
        Column(
            "position",
            SMALL_INTEGER,
            "Place in the call's list of participants, from 0.",
            source="participants",
            nullable=False,
            key=True,
        ),
        Column(
            "participant",
            TEXT,
            "The number or user id; null where the entry names nobody.",
            source="participants",
            pii=Pii.PHONE,
            example="84900000000",
        ),
        Column(
            "kind",
            TEXT,
            "agent, phone, user or unknown.",
            source="participants",
            nullable=False,
            max_length=32,
            example="phone",
        ),
        Column(
            "number_e164",
            TEXT,
            "The phone number in E.164 form, where it is one.",
            source="participants",
            pii=Pii.PHONE,
            max_length=32,
            example="+84900000000",
        ),
        Column(
            "raw",
            JSON,
            "The entry as it was served, as JSON.",
            source="participants",
            nullable=False,
            pii=Pii.PAYLOAD,
            example='"84900000000"',
        ),
        replace(_STARTED_AT, description="When the call started: a day of participants needs no join."),
        CALL_DATE,
    ),
)

REJECTED_ROWS = Table(
    "rejected_rows",
    "The quarantine: rows that cannot be a call, with the reason and the exact payload.",
    columns=(
        bookkeeping(
            "window_start",
            INSTANT,
            "Start of the export window that served the row.",
            nullable=False,
            key=True,
            unit="UTC instant",
        ),
        bookkeeping(
            "reject_id",
            TEXT,
            "Hash of the payload, and which occurrence of it in the window.",
            nullable=False,
            key=True,
            max_length=64,
            example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
        Column("reason", TEXT, "Why the row cannot be a call.", nullable=False, max_length=64, example="missing_id"),
        Column("field", TEXT, "The field at fault.", max_length=64, example="id"),
        Column(
            "call_id",
            TEXT,
            "The call's id, where it has a usable one.",
            source="id",
            example="call-vn-1-ABCDEFGHIJ-1767600000000",
        ),
        Column(
            "payload",
            JSON,
            "The row exactly as it was served, as JSON.",
            nullable=False,
            pii=Pii.PAYLOAD,
            example='{"start_time":1767600000000}',
        ),
        CALL_DATE,
        bookkeeping("first_seen_at", INSTANT, "When the row was first served.", nullable=False, unit="UTC instant"),
    ),
)

CALL_VERSIONS = Table(
    "call_versions",
    "What a call's row was before each change: why yesterday's number is another one today.",
    columns=(
        *(replace(column, index=False, role=Role.BOOKKEEPING) for column in CALLS.columns),
        bookkeeping(
            "superseded_at", INSTANT, "When the row stopped being so.", nullable=False, key=True, unit="UTC instant"
        ),
    ),
)

TABLES = (
    CALLS,
    CALL_PARTICIPANTS,
    REJECTED_ROWS,
    EXPORT_WINDOWS,
    CERTIFICATES,
    CALL_VERSIONS,
    LATE_CHANGES,
    SOURCE_FIELDS,
    PIPELINE_STATE,
    RECORDINGS,
    LIVE_CALLS,
    METRIC_PARAMETERS,
    ERASURES,
)

COLUMNS = {column.name: column for table in (LIVE_CALLS, CALL_PARTICIPANTS, CALLS) for column in table.columns}
"""Columns by the name that a view hands them on under."""
