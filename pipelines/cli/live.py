"""``callhistory live``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from pipelines.cli.command import UsageError, command
from pipelines.cli.output import Output, Report, console_for, counted, table
from pipelines.cli.progress import tell_retries

if TYPE_CHECKING:
    from pipelines.context import Stores
    from pipelines.watch.live_calls import Snapshot
    from transforms.live_calls import LiveCall


@command
def live(
    output: Output,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again, until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=1, max=3600, help="Seconds between two looks with --watch.")] = 5.0,
    refreshes: Annotated[
        int | None, typer.Option(min=1, help="End --watch after so many looks, instead of at Ctrl-C.")
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="Write every look to the table live_calls.")] = False,
) -> Report:
    """Show the calls in progress."""
    if output.as_json and watch:
        raise UsageError("--json prints one object: leave --watch out, and call again for the next look")
    if (refreshes or interval != 5.0) and not watch:
        raise UsageError("--interval and --refreshes go with --watch")
    from pipelines.settings import load_settings

    settings = load_settings()
    from pipelines.context import open_stores
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.operations import StringeeX
    from pipelines.stringeex.request_budget import Priority
    from pipelines.watch.live_calls import take_snapshot

    tell_retries(output)
    with ExitStack() as stack:
        stores: Stores | None = stack.enter_context(open_stores(settings)) if store else None
        api = StringeeX(stack.enter_context(StringeeXClient(settings, priority=Priority.INTERACTIVE)))
        snapshot = take_snapshot(api, stores)
        zone = settings.timezone
        if watch:
            screen = console_for(stderr=False)
            shown = stack.enter_context(Live(console=screen, auto_refresh=False)) if screen.is_terminal else None
            looks = 1
            try:
                while True:
                    picture = _picture(snapshot, zone)
                    if shown:
                        shown.update(picture, refresh=True)
                    else:
                        screen.print(picture)
                    if looks == refreshes:
                        break
                    time.sleep(interval)
                    snapshot, looks = take_snapshot(api, stores), looks + 1
            except KeyboardInterrupt:
                output.log("stopped watching")
            return Report({}, lambda _: None)
    return Report(_as_json(snapshot), lambda console: console.print(_picture(snapshot, zone)))


def _picture(snapshot: Snapshot, zone: Any) -> Group:
    taken_at = snapshot.taken_at
    rows = [
        (
            call.call_id,
            _clock(call.started_at, zone),
            call.direction,
            "talking" if call.answered_at else "ringing",
            _age(call.answered_at or call.started_at, taken_at),
            call.agent_id,
            call.customer_number,
            call.stringee_number_name or call.stringee_number,
        )
        for call in _oldest_first(snapshot.calls)
    ]
    title = Text(f"{counted(len(snapshot.calls), 'call')} in progress at {_clock(taken_at, zone)} {zone.key}")
    if not rows:
        return Group(title)
    return Group(title, table(("call", "started", "direction", "state", "for", "agent", "customer", "number"), rows))


def _as_json(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "snapshot_at": snapshot.taken_at.isoformat(),
        "api_total": snapshot.api_total,
        "unreadable": snapshot.unreadable,
        "stored": snapshot.is_stored,
        "calls": [
            {
                "call_id": call.call_id,
                "direction": call.direction,
                "started_at": call.started_at and call.started_at.isoformat(),
                "answered_at": call.answered_at and call.answered_at.isoformat(),
                "agent_id": call.agent_id,
                "customer_number": call.customer_number,
                "customer_number_e164": call.customer_number_e164,
                "stringee_number": call.stringee_number,
                "stringee_number_name": call.stringee_number_name,
            }
            for call in _oldest_first(snapshot.calls)
        ],
    }


def _oldest_first(calls: Sequence[LiveCall]) -> list[LiveCall]:
    return sorted(calls, key=lambda call: (call.started_at is None, call.started_at, call.call_id))


def _clock(moment: datetime | None, zone: Any) -> str | None:
    return None if moment is None else f"{moment.astimezone(zone):%H:%M:%S}"


def _age(since: datetime | None, now: datetime) -> str | None:
    if since is None:
        return None
    seconds = max(int((now - since).total_seconds()), 0)
    return f"{seconds // 60}:{seconds % 60:02}"
