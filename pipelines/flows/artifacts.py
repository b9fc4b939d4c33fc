"""What a flow run leaves to be seen in Prefect's UI: counts, days and windows, and nobody's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from uuid import UUID

import httpx
import stamina
from prefect import get_run_logger
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from pipelines.context import Stores, utc_now
from pipelines.watch.status import read_status

SUMMARY_ARTIFACT = "callhistory-run-summary"
ARCHIVE_ARTIFACT = "callhistory-archive-summary"
VERIFY_ARTIFACT = "callhistory-verify"
PROGRESS_ARTIFACT = "callhistory-progress"
COVERAGE_ARTIFACT = "callhistory-coverage"
COVERAGE_DAYS = 60

_AT_ONCE: Mapping[Any, Any] = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 5.0}
_PATIENCE_SECONDS = 300.0
_LONGEST_WAIT_SECONDS = 10.0

_SUMMARY_COLUMNS = ("api_total", "lake_rows", "rejected", "warehouse_rows")
_CHECK_COLUMNS = ("api_total", "raw_rows", "rejected", "lake_rows", "warehouse_rows")


class Progress:
    """An artifact that shows how many of ``total`` are done; it is written anew only when the percentage changes.

    A server that does not answer at once is told of the next percentage.
    """

    def __init__(self, total: int, description: str) -> None:
        self._total = total
        self._percent = 0
        self._artifact: UUID | None = None
        with _best_effort("the progress"):
            self._artifact = cast(UUID, create_progress_artifact(0.0, PROGRESS_ARTIFACT, description))

    def show(self, done: int) -> None:
        """Show that ``done`` are done."""
        percent = 100 * done // self._total
        if self._artifact is None or percent == self._percent:
            return
        with _best_effort("the progress"), temporary_settings(_AT_ONCE):
            update_progress_artifact(self._artifact, float(percent))
            self._percent = percent


def show_run(summary: Mapping[str, Any], stores: Stores) -> None:
    """Keep a run's summary, and how the newest days stand after it."""
    days = read_status(stores, utc_now()).days[-COVERAGE_DAYS:]
    rows = [{"day": day.call_date.isoformat(), "state": day.state.value, "calls": day.calls} for day in reversed(days)]
    _keep(lambda: create_markdown_artifact(run_markdown(summary), SUMMARY_ARTIFACT, f"Run {summary['run_id']}"))
    _keep(lambda: create_table_artifact(rows, COVERAGE_ARTIFACT, f"The newest {COVERAGE_DAYS} local days"))


def show_link(key: str, link: str, description: str) -> None:
    """Keep a link."""
    with _best_effort(description):
        create_link_artifact(link, key=key, description=description)


def show_archive(summary: Mapping[str, Any]) -> None:
    """Keep the summary of an archive run."""
    lines = ["| recordings | |", "|---|---:|", *(f"| {name} | {n} |" for name, n in summary["recordings"].items()), ""]
    lines += [f"- {name} in this run: {summary[name]}" for name in ("archived", "bytes", "requests")]
    reasons = Counter(error["error"] for error in summary["errors"])
    lines += [f"- {count} x {reason}" for reason, count in reasons.most_common()]
    if reasons:
        lines += ["", "The warehouse names the calls, in the table `recordings`: `status` missing or failed."]
    _keep(lambda: create_markdown_artifact("\n".join(lines), ARCHIVE_ARTIFACT, "Recordings"))


def show_verification(summary: Mapping[str, Any]) -> None:
    """Keep what a verification found."""
    days: Sequence[Mapping[str, Any]] = summary["days"]
    lines = [
        f"{len(days)} local days verified: " + ("nothing differs" if summary["ok"] else "**differences**"),
        "",
        "| day | API | raw | rejected | lake | warehouse | right |",
        "|---|---:|---:|---:|---:|---:|---|",
        *(f"| {day['call_date']} | {_counts(day, _CHECK_COLUMNS)} | {_yes(day['ok'])} |" for day in days),
        "",
    ]
    lines += [
        f"- {day['call_date']} {found['place']} {found['table']}: {found['count']} {found['kind']}"
        + (f" ({found['message']})" if found["message"] else "")
        for day in days
        for found in day["differences"]
    ]
    if not summary["ok"]:
        lines += ["", "`callhistory verify --from DATE --to DATE` names the calls."]
    _keep(lambda: create_markdown_artifact("\n".join(lines), VERIFY_ARTIFACT, "Verification"))


def run_markdown(summary: Mapping[str, Any]) -> str:
    """Return a run's summary as a page."""
    windows = [f"{count} {outcome.replace('_', ' ')}" for outcome, count in summary["windows"].items() if count]
    lines = [
        f"{'Complete' if summary['complete'] else '**Incomplete**'}. Windows: {', '.join(windows) or 'none was due'}.",
        "",
        "| day | API | lake | rejected | warehouse | complete |",
        "|---|---:|---:|---:|---:|---|",
        *(f"| {d['call_date']} | {_counts(d, _SUMMARY_COLUMNS)} | {_yes(d['complete'])} |" for d in summary["days"]),
    ]
    sums = (str(sum(day[column] or 0 for day in summary["days"])) for column in _SUMMARY_COLUMNS)
    lines += [f"| **all** | {' | '.join(sums)} | {_yes(summary['complete'])} |", ""]
    totals = ("calls_inserted", "calls_updated", "calls_restored", "calls_vanished", "files_written", "requests")
    lines += [f"- {total.replace('_', ' ')}: {summary[total]}" for total in totals]
    lines += [f"- {change['kind']}: `{change['field']}` since {change['since']}" for change in summary["drift"]]
    for word in ("held", "disputed"):
        lines += [f"- {word}: {reason}" for reason in summary[word]]
    lines += [f"- {error}" for error in summary["errors"]]
    return "\n".join(lines)


def _keep(create: Callable[[], object]) -> None:
    """Have an artifact created, as soon as the server answers: a server away is back after minutes, or not at all."""
    with _best_effort("a summary"):
        for attempt in stamina.retry_context(
            on=httpx.TransportError, attempts=None, timeout=_PATIENCE_SECONDS, wait_max=_LONGEST_WAIT_SECONDS
        ):
            with attempt:
                create()


@contextmanager
def _best_effort(what: str) -> Iterator[None]:
    """Go on without the server: what is exported is exported, whether it is told or not."""
    try:
        yield
    except httpx.HTTPError as error:
        get_run_logger().warning("the Prefect server does not know %s: %s", what, type(error).__name__)


def _counts(day: Mapping[str, Any], columns: Sequence[str]) -> str:
    return " | ".join("-" if day[column] is None else str(day[column]) for column in columns)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "**no**"
