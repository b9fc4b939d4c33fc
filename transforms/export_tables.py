"""The tables in which the export keeps what it did and found; ``transforms.schema`` has all tables together."""

from __future__ import annotations

from dataclasses import replace

from transforms.columns import CALL_DATE, Column, Role, Table, bookkeeping
from transforms.field_types import FIELD_MAX_LENGTH
from transforms.types import BOOLEAN, DATE, INSTANT, INTEGER, JSON, SMALL_INTEGER, TEXT

EXPORT_WINDOWS = Table(
    "export_windows",
    "The ledger: one row per export window, and its certificate of completeness.",
    columns=tuple(
        replace(column, role=Role.BOOKKEEPING)
        for column in (
            Column(
                "window_start", INSTANT, "First instant of the window.", nullable=False, key=True, unit="UTC instant"
            ),
            Column("window_end", INSTANT, "First instant after the window.", nullable=False, unit="UTC instant"),
            Column("call_date", DATE, "The local day the window belongs to.", nullable=False, index=True),
            Column(
                "status",
                TEXT,
                "running, complete, disputed (what was served is published or held, and does not prove that it is all; "
                "error says why) or failed.",
                nullable=False,
                max_length=16,
                example="complete",
            ),
            Column("api_total", INTEGER, "Calls in the window by the API's own count.", unit="calls"),
            Column("raw_rows", INTEGER, "Rows in the raw copy.", unit="rows"),
            Column("rejected", INTEGER, "Rows in quarantine.", unit="rows"),
            Column("lake_rows", INTEGER, "Calls of the window in the Parquet file.", unit="calls"),
            Column(
                "warehouse_rows", INTEGER, "Calls of the window in the warehouse, deleted ones left out.", unit="calls"
            ),
            Column(
                "late_changes",
                INTEGER,
                "Calls that later reads added, changed or found gone.",
                unit="calls",
                nullable=False,
            ),
            Column("attempts", INTEGER, "How often work on the window was begun.", nullable=False),
            Column(
                "content_hash",
                TEXT,
                "Hash of the window's calls in the lake, independent of their order.",
                max_length=64,
                example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            ),
            Column(
                "warehouse_content_hash",
                TEXT,
                "The same, computed from what the warehouse holds.",
                max_length=64,
                example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            ),
            Column(
                "claimed_by",
                TEXT,
                "The run that is working on the day; on the day's first window.",
                max_length=128,
                example="run-3f2a",
            ),
            Column("claim_expires_at", INSTANT, "When that claim lapses if it is not renewed.", unit="UTC instant"),
            Column("started_at", INSTANT, "When the last attempt began.", unit="UTC instant"),
            Column("completed_at", INSTANT, "When the window was last proven complete.", unit="UTC instant"),
            Column(
                "next_reread_at", INSTANT, "When it is due to be read again; null if it is not.", unit="UTC instant"
            ),
            Column("settled", BOOLEAN, "Whether the last re-read is behind it.", nullable=False),
            Column("ends_day", BOOLEAN, "Whether it is the last window of its local day; null until complete."),
            Column("run_id", TEXT, "The run of the last attempt.", max_length=128, example="run-3f2a"),
            Column(
                "error",
                TEXT,
                "Why the last attempt failed or is disputed; null if it is not.",
                example="window 2026-01-05: the API counts 120 calls and serves 119",
            ),
            Column(
                "made_by",
                TEXT,
                "Digest of the code and the settings that made the rows when the window was last proven complete.",
                max_length=64,
                example="0f1e2d3c4b5a69788796a5b4c3d2e1f0",
            ),
            Column(
                "held",
                BOOLEAN,
                "Whether the last read is disputed, and nothing of it was published until somebody has looked at it.",
            ),
        )
    ),
)

_MAY_BE_NULL = ("api_total", "made_by", "run_id")

CERTIFICATES = Table(
    "certificates",
    "Every time a window was proven complete, each with the hash of the one before it; rows are only ever added.",
    columns=(
        bookkeeping("number", INTEGER, "Place in the chain, from 1.", nullable=False, key=True),
        bookkeeping(
            "cause",
            TEXT,
            "read (from the API), replayed (from the raw copy), erased (people were taken out) or earlier (certified "
            "by a version without a chain).",
            nullable=False,
            max_length=16,
            example="read",
        ),
        *(
            replace(EXPORT_WINDOWS[name], key=False, index=name == "call_date", nullable=name in _MAY_BE_NULL)
            for name in (
                "window_start",
                "window_end",
                "call_date",
                "completed_at",
                "api_total",
                "raw_rows",
                "rejected",
                "lake_rows",
                "warehouse_rows",
                "content_hash",
                "made_by",
                "run_id",
            )
        ),
        bookkeeping(
            "previous_hash",
            TEXT,
            "The certificate_hash of the one before it; null for the first.",
            max_length=64,
            example="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        ),
        bookkeeping(
            "certificate_hash",
            TEXT,
            "SHA-256 of all other values of the row that are not null, as JSON with sorted keys.",
            nullable=False,
            max_length=64,
            example="60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        ),
    ),
)

LATE_CHANGES = Table(
    "late_changes",
    "What re-reads of closed windows found changed: one row for each re-read that did.",
    columns=(
        bookkeeping(
            "window_start", INSTANT, "First instant of the window.", nullable=False, key=True, unit="UTC instant"
        ),
        bookkeeping(
            "found_at", INSTANT, "When the changes were first read.", nullable=False, key=True, unit="UTC instant"
        ),
        CALL_DATE,
        bookkeeping(
            "previous_read_at", INSTANT, "When the window was read before.", nullable=False, unit="UTC instant"
        ),
        bookkeeping(
            "age_days", SMALL_INTEGER, "Whole days from the window's end to found_at.", nullable=False, unit="days"
        ),
        bookkeeping(
            "previous_age_days",
            SMALL_INTEGER,
            "Whole days from the window's end to previous_read_at: the changes came between the two ages.",
            nullable=False,
            unit="days",
        ),
        bookkeeping("inserted", INTEGER, "Calls that were new.", nullable=False, unit="calls"),
        bookkeeping("updated", INTEGER, "Calls that had other values.", nullable=False, unit="calls"),
        bookkeeping("restored", INTEGER, "Calls that were back.", nullable=False, unit="calls"),
        bookkeeping("vanished", INTEGER, "Calls that were gone.", nullable=False, unit="calls"),
    ),
)

SOURCE_FIELDS = Table(
    "source_fields",
    "Which fields the rows of each window had, and of which JSON types: what a change of the source shows in.",
    columns=(
        bookkeeping(
            "window_start", INSTANT, "First instant of the window.", nullable=False, key=True, unit="UTC instant"
        ),
        bookkeeping(
            "field", TEXT, "The field's name.", nullable=False, key=True, max_length=FIELD_MAX_LENGTH, example="id"
        ),
        bookkeeping(
            "json_type",
            TEXT,
            "null, boolean, integer, number, string, array or object.",
            nullable=False,
            key=True,
            max_length=16,
            example="string",
        ),
        CALL_DATE,
        bookkeeping("row_count", INTEGER, "Rows with such a value.", nullable=False, unit="rows"),
        bookkeeping("first_seen_at", INSTANT, "When the first was read.", nullable=False, unit="UTC instant"),
    ),
)

PIPELINE_STATE = Table(
    "pipeline_state",
    "What the export remembers between runs.",
    columns=(
        bookkeeping("name", TEXT, "What is remembered.", nullable=False, key=True, max_length=128, example="timezone"),
        bookkeeping("value", JSON, "The value, as JSON.", nullable=False, example='"Asia/Ho_Chi_Minh"'),
        bookkeeping("updated_at", INSTANT, "When it last changed.", nullable=False, unit="UTC instant"),
    ),
)
