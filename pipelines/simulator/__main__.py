"""``python -m pipelines.simulator``: print one JSON line when ready, then serve until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import select
import signal
import sys
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from pipelines.simulator import (
    CREDENTIALS,
    NO_LIMITS,
    Fault,
    OddRows,
    Portal,
    PortalOptions,
    RateLimits,
    SimulatedPortal,
    generate,
    mixed_faults,
)
from pipelines.simulator.faults import FAULTS, fault_from_json


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.simulator",
        description=__doc__,
        epilog=_faults_described(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
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
    parser.add_argument(
        "--fault", action="append", default=[], type=_fault, metavar="JSON", help="a fault to switch on, such as "
        '\'{"fault": "RenameField", "field": "status", "to": "state"}\'; may be given more than once; see below',
    )  # fmt: skip
    parser.add_argument("--no-limits", action="store_true", help="serve as fast as asked, without rate limits")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end with the process that started this one")
    return parser.parse_args()


def _fault(text: str) -> Fault:
    try:
        description = json.loads(text)
        if not isinstance(description, dict):
            raise ValueError("should be a JSON object")
        return fault_from_json(description)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error}") from error


def _faults_described() -> str:
    lines = ["faults, with their own fields; each also takes operation, probability, seed, after and count:"]
    common = {field.name for field in dataclasses.fields(Fault)}
    for name, kind in FAULTS.items():
        own = [field.name for field in dataclasses.fields(kind) if field.name not in common]
        fields = f" ({', '.join(own)})" if own else ""
        first_line = (kind.__doc__ or "").partition("\n")[0]
        lines.append(f"  {name}{fields}\n      {first_line}")
    return "\n".join(lines)


class EndSignals:
    """Tells when SIGTERM or Ctrl-C came. The handler does nothing: what it locked could be held at that instant."""

    def __init__(self) -> None:
        self._told, teller = os.pipe()
        os.set_blocking(teller, False)
        signal.set_wakeup_fd(teller)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def wait(self, *, or_stdin_closes: bool) -> None:
        """Return at the first signal since this object was made; also when stdin closes, where that is asked for."""
        watched = [self._told, *([0] if or_stdin_closes else [])]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if self._told in ready or not os.read(0, 4096):
                return


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
    mixed = [mixed_faults(arguments.fault_rate, arguments.seed)] if arguments.fault_rate else []
    portal = Portal(
        calls,
        PortalOptions(max_limit=arguments.page_limit, rate_limits=limits),
        faults=[*arguments.fault, *mixed],
        odd_rows=OddRows(arguments.odd_share, arguments.seed) if arguments.odd_share else None,
    )
    portal.warm()
    end_signals = EndSignals()
    with SimulatedPortal(portal, arguments.port) as server:
        ready = {"base_url": server.base_url, **dataclasses.asdict(CREDENTIALS)}
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        end_signals.wait(or_stdin_closes=arguments.until_stdin_closes)


if __name__ == "__main__":
    main()
