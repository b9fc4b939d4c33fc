"""How a simulated portal behaves where portals differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.simulator.audio import RecordingFormat
from pipelines.simulator.limits import RateLimits


@dataclass(slots=True)
class PortalOptions:
    """How this portal behaves where portals differ or nothing is published; may be changed while it runs.

    Recordings play as long as the talk was, or ``recording_seconds``; only the first ``recording_share`` of the bytes
    is served, as if that were all.
    """

    max_limit: int = 100
    default_limit: int = 10
    large_limit: Literal["truncate", "refuse", "bad_request"] = "truncate"
    supports_version_2: bool = True
    version_2_honours_limit: bool = True
    search_after_at_end: list[Any] | Literal["missing"] | None = field(default_factory=list)
    result_cap: int | None = None
    past_result_cap: Literal["empty", "error", "refused"] = "empty"
    refuses_ascending: bool = False
    message_key: Literal["msg", "message"] = "msg"
    auth_failure: Literal["401", "403", "envelope"] = "401"
    portal_count: int = 1
    retry_after: bool = False
    operation_methods: tuple[str, ...] = ("GET", "POST")
    latency_seconds: float = 0.0
    recording_ready_seconds: float = 60.0
    recording_kept_days: float = 36_500.0
    missing_recording: Literal["404", "envelope"] = "404"
    recording_format: RecordingFormat = "wav"
    recording_seconds: int | None = None
    recording_share: float = 1.0
    honours_if_range: bool = True
    range_says_total: bool = True
    most_bytes_per_range: int | None = None
    rate_limits: RateLimits = field(default_factory=RateLimits)
