"""``callhistory check``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from pipelines.cli.command import DONE, FAILED, WRONG_USAGE, command
from pipelines.cli.output import Output, Report
from pipelines.cli.progress import tell_retries
from transforms.errors import SettingsError

if TYPE_CHECKING:
    from pipelines.watch.readiness import CheckResult


@command
def check(output: Output) -> Report:
    """Test settings, credentials (one request), database and storage, one line each.

    Changes nothing: what is not there yet is told of, and created by the first export.
    """
    from pipelines.settings import load_settings

    problem, settings = "", None
    try:
        settings = load_settings()
    except SettingsError as error:
        problem = str(error)
    try:
        # Without credentials, the database and the storage can still be tried.
        settings = settings or load_settings(require_api=False)
    except SettingsError:
        settings = None

    from pipelines.watch.readiness import CheckResult, check_all

    tell_retries(output)
    results = [CheckResult("settings", not problem, problem or "complete")]
    if settings is not None:
        results += check_all(settings, with_api=not problem)
    if problem:
        results.append(CheckResult("not tried", False, "what needs the settings above"))
    is_ok = all(result.is_ok for result in results)
    data = {
        "ok": is_ok,
        "checks": [{"name": result.name, "ok": result.is_ok, "message": result.message} for result in results],
    }
    return Report(
        data, lambda console: show_checks(console, results), DONE if is_ok else WRONG_USAGE if problem else FAILED
    )


def show_checks(console: Console, results: Sequence[CheckResult]) -> None:
    """Show what was tried, one line each."""
    for result in results:
        console.print("ok    " if result.is_ok else "FAILED", style="green" if result.is_ok else "bold red", end=" ")
        console.print(f"{result.name}: {result.message}", soft_wrap=True)
