"""Tells people, at ``CALLHISTORY_NOTIFY_URLS``, of alerts and failed runs: once each, and again when it is over.

No message holds a secret or anybody's data: local days, counts, and what to do.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from pipelines.context import Stores, open_stores_to_read, utc_now
from pipelines.logs import logger
from pipelines.settings import Settings
from pipelines.watch.alerts import Alert, read_alerts
from pipelines.watch.last_runs import RunEnd, RunKind, keep_run_end, lasts, problem_of, read_run_end
from transforms.errors import CallHistoryError

_TOLD_ALERTS = "told_alerts"
_LINES = 20


def send_alerts(stores: Stores, now: datetime) -> list[Alert]:
    """Return the alerts there are, as `read_alerts` does, after telling of those that began or are over.

    What nobody could be told of counts as not told: the next time tries again.
    """
    alerts = read_alerts(stores, now)
    remembered = stores.state.get(_TOLD_ALERTS)
    told: Mapping[str, Any] = remembered if isinstance(remembered, dict) else {}
    current = {alert.key: alert for alert in alerts}
    begun = [alert for key, alert in current.items() if key not in told]
    over = [known for key, known in told.items() if key not in current and not _ended_by_itself(known, now)]
    if begun or over:
        title = f"callhistory: {_counted(len(begun), 'alert')}" if begun else "callhistory: an alert is over"
        zone = stores.settings.timezone
        lines = [f"{_local(alert.since, zone)}: {alert.what}. To do: {alert.what_to_do}." for alert in begun]
        lines += [f"Over: {known['what']}." for known in over]
        if not deliver(stores.settings.notify_urls, title, _shortened(lines), is_bad=bool(begun)):
            return alerts
    stores.state.set(_TOLD_ALERTS, {key: alert.to_dict() for key, alert in current.items()})
    return alerts


def notify_run_end(settings: Settings, kind: RunKind, problem: str | None, *, problem_lasts: bool = True) -> None:
    """Keep how a run ended, and tell of it if need be; ``problem`` is a line without anybody's data, null for none.

    Of a failure of scheduled work people are told once, and again when a run of that kind has ended well; of any
    other each time. A problem that does not last (see `last_runs.lasts`) is told each time, and its end is not. The
    alerts that the run has begun or ended are told along with it. Never raises: what could not be done is a warning in
    the log.
    """
    try:
        with open_stores_to_read(settings) as stores:
            before = read_run_end(stores.state, kind)
    except CallHistoryError:
        before = None  # the warehouse may be the problem itself: nobody knows then who was told
    now = utc_now()
    if problem is None or problem_lasts:
        is_told = _tell_run_end(settings, kind, problem, before, now)
    else:
        is_told = _tell_run_end_once(settings, kind, problem, before)
    end = RunEnd(now, problem, is_told)
    try:
        with open_stores_to_read(settings) as stores:
            keep_run_end(stores.state, kind, end)
            if settings.notify_urls:
                send_alerts(stores, now)
    except CallHistoryError as error:
        # A run that failed has said why, which is why here too as often as not.
        level = logging.WARNING if problem is None else logging.DEBUG
        logger.log(level, "the end of the run could not be noted: %s", error)


def notified(settings: Settings, kind: RunKind, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what ``run`` does, its summary, after `notify_run_end`; also when it raises, unless it was stopped."""
    try:
        summary = run()
    except Exception as error:
        # The text of a foreign exception may quote a row.
        notify_run_end(settings, kind, str(error) if isinstance(error, CallHistoryError) else type(error).__name__)
        raise
    notify_run_end(settings, kind, problem_of(kind, summary), problem_lasts=lasts(kind, summary))
    return summary


def deliver(urls: Sequence[SecretStr], title: str, body: str, *, is_bad: bool, attachment: Path | None = None) -> bool:
    """Send a message; return whether it got to anybody. A failure is logged, not raised.

    A service that takes no attachment is sent the text alone.
    """
    import apprise

    # Its own words quote the addresses, which hold secrets.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    delivered = False
    for number, url in enumerate(urls, start=1):
        service = apprise.Apprise()
        kind = apprise.NotifyType.WARNING if is_bad else apprise.NotifyType.SUCCESS
        with warnings.catch_warnings():
            # Loading its services imports a deprecated module of the standard library.
            warnings.simplefilter("ignore", DeprecationWarning)
            is_known = service.add(url.get_secret_value())
        if is_known and service.notify(
            body=body,
            title=title,
            notify_type=kind,
            body_format=apprise.NotifyFormat.TEXT,
            attach=None if attachment is None else str(attachment),
        ):
            delivered = True
        else:
            why = "it was not taken" if is_known else "Apprise does not know such an address"
            logger.warning("a notification did not get to address %d of CALLHISTORY_NOTIFY_URLS: %s", number, why)
    return delivered


def _tell_run_end(settings: Settings, kind: RunKind, problem: str | None, before: RunEnd | None, now: datetime) -> bool:
    """Tell of a run's end if need be; return whether people have been told of a problem, and not yet of its end."""
    urls, was_told = settings.notify_urls, before is not None and before.is_told and kind.is_scheduled
    if not urls or was_told == (problem is not None):
        return was_told
    if problem is not None:
        return deliver(urls, f"callhistory: {kind.value} failed", f"{problem}.", is_bad=True)
    text = f"The {kind.value} that ended at {_local(now, settings.timezone)} is complete."
    return not deliver(urls, f"callhistory: {kind.value} works again", text, is_bad=False)


def _tell_run_end_once(settings: Settings, kind: RunKind, problem: str, before: RunEnd | None) -> bool:
    """Tell of a problem that does not last; return whether the end of an earlier one is still to be told."""
    if settings.notify_urls:
        deliver(settings.notify_urls, f"callhistory: {kind.value} failed", f"{problem}.", is_bad=True)
    return before is not None and before.is_told


def _ended_by_itself(known: Mapping[str, Any], now: datetime) -> bool:
    return known["ends_at"] is not None and datetime.fromisoformat(known["ends_at"]) <= now


def _local(instant: datetime, zone: ZoneInfo) -> str:
    return f"{instant.astimezone(zone):%Y-%m-%d %H:%M %z}"


def _shortened(lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - _LINES:,} more: callhistory alerts"] if len(lines) > _LINES else []
    return "\n".join([*lines[:_LINES], *more])


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun if number == 1 else noun + 's'}"
