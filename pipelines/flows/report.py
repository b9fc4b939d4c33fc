"""The report as a flow: written where the settings say, and sent to people if that is asked for."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from pipelines.context import open_stores_to_read, utc_now
from pipelines.flows.artifacts import show_link
from pipelines.flows.states import named, run_and_tell, tells_crash
from pipelines.report.figures import MOST_DAYS, read_figures
from pipelines.report.language import Language
from pipelines.report.page import report_page
from pipelines.settings import load_settings
from pipelines.watch.last_runs import RunKind
from pipelines.watch.notifications import deliver
from pipelines.windows import ONE_DAY, local_date
from sinks.storage import Storage

REPORT_ARTIFACT = "callhistory-report"


@flow(
    name="write_report", flow_run_name=named("report"), persist_result=False, on_crashed=[tells_crash(RunKind.REPORT)]
)
def write_report(
    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 7,
    language: Language = Language.ENGLISH,
    send: bool = False,
) -> dict[str, Any] | State[Any]:
    """Write the report of the newest local days, up to yesterday, below `CALLHISTORY_REPORT_URL`.

    Returns where it lies, and which of its days are not proven complete. A run that was to send it and reached nobody
    ends as `Incomplete`, which is a failed state.

    Args:
        days: How many local days.
        language: English or Vietnamese.
        send: Send it to the addresses of `CALLHISTORY_NOTIFY_URLS` too, as an attachment where the service takes one.
            It names customers and agents.
    """

    def work() -> dict[str, Any]:
        settings, now = load_settings(require_api=False), utc_now()
        last = local_date(now, settings.timezone.key) - ONE_DAY
        first = last - timedelta(days=days - 1)
        with open_stores_to_read(settings) as stores:
            figures = read_figures(stores, first, last, now)
        storage = Storage(settings.report_url)
        name = f"report-{first}--{last}.{language.value}.html"
        place = f"{storage.location}/{name}"
        sent = None
        with TemporaryDirectory() as folder:
            page = Path(folder) / name
            page.write_text(report_page(figures, language), encoding="utf-8")
            storage.publish(page, name)
            if send:
                text = f"{figures.summary['calls']:,} calls from {first} to {last}: the report is attached."
                title = "callhistory: report"
                sent = deliver(settings.notify_urls, title, text, is_bad=False, attachment=page)
        show_link(REPORT_ARTIFACT, place, f"Calls from {first} to {last}")
        return {
            "from": first.isoformat(),
            "to": last.isoformat(),
            "report": place,
            "unproven_days": [day.isoformat() for day in figures.unproven],
            "sent": sent,
        }

    return run_and_tell(RunKind.REPORT, work, require_api=False)
