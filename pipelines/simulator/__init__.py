"""A simulated StringeeX portal: a real HTTP server on loopback with believable calls, real limits, and faults.

In this process::

    from pipelines.simulator import CREDENTIALS, Portal, PortalOptions, SimulatedPortal, generate

    portal = Portal(generate(seed=1, start_date="2026-01-05", days=3, calls_total=2_000), PortalOptions(max_limit=100))
    with SimulatedPortal(portal) as server:      # server.base_url, server.stop(), server.start(), server.errors
        ...                                      # CREDENTIALS.api_key_sid, .api_key_secret, .email, .password

- ``Portal(calls=None, options=None, *, faults=(), odd_rows=None, clock=None, limits_clock=time.time,
  credentials=CREDENTIALS)``; look: ``rows(start_ms, end_ms, version=2)``, ``rows_json(...)``,
  ``keys(start_ms, end_ms)`` (both ends inclusive), ``log`` (``LogEntry``), ``counts`` (per operation), ``operations``,
  ``greetings``; change: ``add_call(row, *, start_ms, call_id, visible_from_ms)``, ``update_call(call_id, **fields)``,
  ``remove_call(call_id)``, ``realtime_calls``, ``clock.set/advance/resume``, ``options.<field>``, ``faults`` (a list:
  append, clear), ``access.revoke_tokens()``, ``warm()``.
- ``PortalOptions(rate_limits=NO_LIMITS)`` switches the limits off; ``RateLimits(history_per_10s=30, ...)``.
- ``mixed_faults(rate, seed)`` and the faults of ``simulator.faults``: ``Fault`` fields ``operation`` (``"*"`` = all),
  ``probability``, ``seed``, ``after``, ``count``, ``when``. ``OddRows(share, seed)`` makes rows odd.
- Faults of the calls themselves act beside each other and beside one other fault, for as long as they are switched on:
  ``RenameField(field, to)``, ``DropField(field)``, ``NullField(field)``, ``FieldAs(field, form)`` (``seconds``,
  ``iso8601``, ``iso8601_local``, ``iso8601_without_offset``, ``text``, ``float``, ``invalid_utf8``), of all rows, or of
  one ``call_id`` or a ``share``; ``FewerRows(keep)``, ``OnlyShare(share)``, ``OtherPortal(seed)``: calls are gone, or
  others, and the counts agree with it. ``RepeatKey(field, earlier)`` and ``LongNumber(field, text)`` of
  ``text_faults`` are JSON that parsers lose something of.

In a process of its own: ``python -m pipelines.simulator --calls 2000 --days 3`` prints one JSON line
(``base_url`` and credentials) and serves until SIGTERM; ``spawn(...)`` does that from Python. Faults are given with
``--fault '{"fault": "OnlyShare", "share": 0.1}'``, and later by ``/_simulator/faults`` (``simulator.control``);
``--help`` lists them all.
"""

from pipelines.simulator.access import CREDENTIALS, Credentials
from pipelines.simulator.clock import Clock
from pipelines.simulator.fault import Fault
from pipelines.simulator.faults import mixed_faults
from pipelines.simulator.generator import GeneratedCalls, generate
from pipelines.simulator.limits import NO_LIMITS, RateLimits
from pipelines.simulator.oddities import OddRows
from pipelines.simulator.options import PortalOptions
from pipelines.simulator.portal import Portal
from pipelines.simulator.process import SpawnedPortal, spawn
from pipelines.simulator.server import SimulatedPortal
from pipelines.simulator.state import LogEntry

__all__ = [
    "CREDENTIALS",
    "NO_LIMITS",
    "Clock",
    "Credentials",
    "Fault",
    "GeneratedCalls",
    "LogEntry",
    "OddRows",
    "Portal",
    "PortalOptions",
    "RateLimits",
    "SimulatedPortal",
    "SpawnedPortal",
    "generate",
    "mixed_faults",
    "spawn",
]
