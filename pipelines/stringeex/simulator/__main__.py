"""``python -m pipelines.stringeex.simulator``: print one JSON line when ready, then serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import sys
import threading
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.stringeex.simulator import (
    CREDENTIALS,
    NO_LIMITS,
    OddRows,
    Portal,
    PortalOptions,
    RateLimits,
    SimulatedPortal,
    generate,
    mixed_faults,
)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipelines.stringeex.simulator", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="calls in all (default %(default)s)")
    parser.add_argument("--days", type=int, default=3, help="local days they are spread over (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same calls (default %(default)s)")
    parser.add_argument(
        "--start-date", type=date.fromisoformat, help="first local day (default: the last day is yesterday)"
    )
    parser.add_argument("--timezone", default="Asia/Ho_Chi_Minh", help="of the local days (default %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="loopback port (default: any free one)")
    parser.add_argument("--page-limit", type=int, default=100, help="most rows per page (default %(default)s)")
    parser.add_argument(
        "--ties", type=int, default=1, help="calls that share one start millisecond (default %(default)s)"
    )
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of requests that fail in mixed ways")
    parser.add_argument("--odd-share", type=float, default=0.0, help="share of rows that are odd in type or shape")
    parser.add_argument("--no-limits", action="store_true", help="serve as fast as asked, without rate limits")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    return parser.parse_args()


def _set_when_stdin_closes(event: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    event.set()


def main() -> None:
    """Serve one portal; the JSON line holds ``base_url`` and the fields of ``Credentials``."""
    arguments = _arguments()
    start_date = arguments.start_date
    if start_date is None:
        start_date = datetime.now(ZoneInfo(arguments.timezone)).date() - timedelta(arguments.days)
    calls = generate(
        arguments.seed, start_date, arguments.days, arguments.calls, timezone=arguments.timezone, ties=arguments.ties
    )
    limits = NO_LIMITS if arguments.no_limits else RateLimits()
    portal = Portal(
        calls,
        PortalOptions(max_limit=arguments.page_limit, rate_limits=limits),
        faults=[mixed_faults(arguments.fault_rate, arguments.seed)] if arguments.fault_rate else [],
        odd_rows=OddRows(arguments.odd_share, arguments.seed) if arguments.odd_share else None,
    )
    portal.warm()
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if arguments.until_stdin_closes:
        threading.Thread(target=_set_when_stdin_closes, args=(ended,), daemon=True).start()
    with SimulatedPortal(portal, arguments.port) as server:
        ready = {"base_url": server.base_url, **dataclasses.asdict(CREDENTIALS)}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        ended.wait()


if __name__ == "__main__":
    main()
