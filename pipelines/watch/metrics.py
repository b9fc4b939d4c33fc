"""How the export stands, as Prometheus metrics: each declared once, read from the warehouse alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipelines.context import Stores, open_stores_to_read, utc_now
from pipelines.logs import logger
from pipelines.settings import Settings
from pipelines.watch.alerts import AlertKind, find_alerts
from pipelines.watch.last_runs import RunEnd, RunKind, read_run_end
from pipelines.watch.status import Status, read_status
from transforms.errors import CallHistoryError

_ANYBODY = 0o644
"""Whoever collects metrics is another user; they name nobody."""

UP = "callhistory_up"
UP_MEANING = "1 when the warehouse could be read, else 0 and nothing else is there"


@dataclass(frozen=True)
class Reading:
    """What the metrics are taken from: one look at the warehouse."""

    status: Status
    alerts: Mapping[AlertKind, int]
    run_ends: Mapping[RunKind, RunEnd]


@dataclass(frozen=True)
class Gauge:
    """A metric: its name with its unit, what it means, its label, and its values by the label's.

    A gauge without ``label`` has one value, under ``""``; one without values is left out.
    """

    name: str
    meaning: str
    values: Callable[[Reading], Mapping[str, float]]
    label: str | None = None


def _one(value: Callable[[Reading], float | None]) -> Callable[[Reading], Mapping[str, float]]:
    def values(reading: Reading) -> dict[str, float]:
        found = value(reading)
        return {} if found is None else {"": found}

    return values


def _age_seconds(status: Status) -> float | None:
    return (status.at - status.newest_instant).total_seconds() if status.newest_instant else None


GAUGES = (
    Gauge(
        "callhistory_days",
        "Local days since the export's first, today included, by where they stand",
        lambda r: {state.value: days for state, days in r.status.states.items()},
        "state",
    ),
    Gauge(
        "callhistory_gap_days",
        "Closed local days that failed or were not read to the end",
        _one(lambda r: sum((last - first).days + 1 for first, last in r.status.gaps)),
    ),
    Gauge("callhistory_failed_windows", "Windows whose last read failed", _one(lambda r: len(r.status.failed_windows))),
    Gauge(
        "callhistory_disputed_windows",
        "Windows that are published as served, and not proven",
        _one(lambda r: sum(not window.held for window in r.status.disputed_windows)),
    ),
    Gauge(
        "callhistory_held_windows",
        "Windows whose last read waits for somebody to look at it",
        _one(lambda r: sum(window.held for window in r.status.disputed_windows)),
    ),
    Gauge(
        "callhistory_newest_instant_timestamp_seconds",
        "The end of the newest stretch of time that is certified complete",
        _one(lambda r: r.status.newest_instant.timestamp() if r.status.newest_instant else None),
    ),
    Gauge(
        "callhistory_freshness_seconds",
        "How old that instant was when the metrics were read",
        _one(lambda r: _age_seconds(r.status)),
    ),
    Gauge("callhistory_due_windows", "Windows that the next export has to read", _one(lambda r: r.status.due.windows)),
    Gauge("callhistory_due_requests", "Requests that this will take, about", _one(lambda r: r.status.due.requests)),
    Gauge(
        "callhistory_due_seconds",
        "How long this will take within the request budget, about",
        _one(lambda r: r.status.due.hours * 3600),
    ),
    Gauge(
        "callhistory_calls",
        "Calls in lake and warehouse, by the certificates",
        _one(lambda r: sum(d.calls for d in r.status.days)),
    ),
    Gauge(
        "callhistory_late_changed_calls",
        "Calls that came or changed after their day was closed",
        _one(lambda r: r.status.late_changes),
    ),
    Gauge("callhistory_rejected_rows", "Rows in rejected_rows", _one(lambda r: r.status.rejected_rows)),
    Gauge("callhistory_drifted_fields", "Changes of the source's fields", _one(lambda r: len(r.status.drift))),
    Gauge(
        "callhistory_recordings",
        "Recordings, by what has become of them",
        lambda r: {status.value: count for status, count in r.status.recordings.items()},
        "status",
    ),
    Gauge(
        "callhistory_doubtful_recordings",
        "Archived recordings with something odd about them",
        _one(lambda r: r.status.doubtful_recordings),
    ),
    Gauge(
        "callhistory_alerts",
        "What callhistory alerts shows, by kind",
        lambda r: {kind.value: count for kind, count in r.alerts.items()},
        "kind",
    ),
    Gauge(
        "callhistory_last_run_end_timestamp_seconds",
        "When the last run of a kind ended, where one is known",
        lambda r: {kind.value: end.ended_at.timestamp() for kind, end in r.run_ends.items()},
        "run",
    ),
    Gauge(
        "callhistory_last_run_success",
        "1 when it ended complete, else 0",
        lambda r: {kind.value: end.problem is None for kind, end in r.run_ends.items()},
        "run",
    ),
)


def read(stores: Stores) -> Reading:
    """Look at the warehouse; nothing is written, and the API is not asked."""
    status = read_status(stores, utc_now())
    alerts = find_alerts(status, stores.settings.stale_after, stores.settings.reject_alert)
    run_ends = {kind: read_run_end(stores.state, kind) for kind in RunKind}
    return Reading(
        status,
        {kind: sum(alert.kind is kind for alert in alerts) for kind in AlertKind},
        {kind: end for kind, end in run_ends.items() if end is not None},
    )


def samples(reading: Reading) -> list[dict[str, object]]:
    """Return every value with its name and labels, as JSON can hold them."""
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in _families(reading)
        for sample in family.samples
    ]


def exposition(reading: Reading) -> str:
    """Return the metrics in Prometheus's text format."""
    return generate_latest(registry_of(lambda: _families(reading))).decode()


def write(reading: Reading, file: str) -> None:
    """Write the metrics to a file that is there as a whole or as it was before; raises OSError."""
    write_to_textfile(file, registry_of(lambda: _families(reading)))
    os.chmod(file, _ANYBODY)


def scraped_registry(settings: Settings) -> CollectorRegistry:
    """Return a registry that looks at the warehouse at each scrape, and has it open no longer than that."""

    def families() -> Iterable[Metric]:
        try:
            with open_stores_to_read(settings) as stores:
                return _families(read(stores))
        except CallHistoryError as error:
            logger.warning("the metrics cannot be read: %s", error)
            return [_up(0)]

    return registry_of(families)


def registry_of(families: Callable[[], Iterable[Metric]]) -> CollectorRegistry:
    """Return a registry that asks ``families`` each time."""

    class Families(Collector):
        def collect(self) -> Iterable[Metric]:
            return families()

    registry = CollectorRegistry()
    registry.register(Families())
    return registry


def _families(reading: Reading) -> list[Metric]:
    return [_up(1), *_gauges(reading)]


def _gauges(reading: Reading) -> Iterator[Metric]:
    for gauge in GAUGES:
        family = GaugeMetricFamily(gauge.name, gauge.meaning, labels=[gauge.label] if gauge.label else [])
        for label, value in gauge.values(reading).items():
            family.add_metric([label] if gauge.label else [], float(value))
        if family.samples:
            yield family


def _up(value: int) -> Metric:
    return GaugeMetricFamily(UP, UP_MEANING, value=value)
