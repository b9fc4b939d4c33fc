"""``callhistory init``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from pipelines.cli.check import show_checks
from pipelines.cli.command import DONE, FAILED, UsageError, command
from pipelines.cli.output import Output, Report, console_for
from pipelines.cli.progress import tell_retries
from transforms.errors import StorageError

if TYPE_CHECKING:
    from pipelines.settings import Settings

_FILE = Path(".env")
_OWNER_ONLY = 0o600


@command
def init(output: Output) -> Report:
    """Ask for what an export needs, try it, and write it to .env, which only you can read.

    Changes nothing else, and never a .env that is there.
    """
    if _FILE.exists() or _FILE.is_symlink():
        raise UsageError(f"{_FILE.resolve()} is there already: change it by hand, or run init in another folder")
    from pipelines.settings import load_settings
    from pipelines.watch.readiness import check_all

    answers = {name: value for name, value in _asked(load_settings(None, require_api=False)).items() if value}
    settings = load_settings(None, overrides=answers)
    tell_retries(output)
    output.log("trying them:")
    results = list(check_all(settings))
    show_checks(console_for(stderr=True), results)
    if not all(result.is_ok for result in results) and not _yes("Not all of it works. Write .env all the same?"):
        return Report({"written": None}, lambda console: console.print("Nothing was written."), FAILED)
    _write(answers)
    return Report({"written": str(_FILE.resolve())}, _show, DONE)


def _asked(defaults: Settings) -> dict[str, str]:
    """Ask, on stderr, and return the answers by the names of the settings; an empty one is what was not answered."""
    answers = {"STRINGEEX_API_KEY_SID": _answer("API key: its SID, SK... (empty: log in by e-mail and password)")}
    if answers["STRINGEEX_API_KEY_SID"]:
        answers["STRINGEEX_API_KEY_SECRET"] = _answer("API key: its secret", hidden=True)
    else:
        answers["STRINGEEX_EMAIL"] = _answer("Portal login: e-mail")
        answers["STRINGEEX_PASSWORD"] = _answer("Portal login: password", hidden=True)
    questions = {
        "CALLHISTORY_WAREHOUSE_URL": ("Database", defaults.warehouse_url.get_secret_value()),
        "CALLHISTORY_LAKE_URL": ("Folder or bucket for the Parquet files", defaults.lake_url),
        "CALLHISTORY_TIMEZONE": ("Time zone of your days", defaults.timezone.key),
        "CALLHISTORY_START_DATE": ("First day to export, such as 2026-01-31 (empty: seven days ago)", ""),
    }
    for name, (question, default) in questions.items():
        answer = _answer(question, default)
        answers[name] = "" if answer == default else answer
    return answers


def _answer(question: str, default: str = "", *, hidden: bool = False) -> str:
    try:
        answer: str = typer.prompt(question, default=default, show_default=bool(default), hide_input=hidden, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    return answer.strip()


def _yes(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None


def _write(answers: dict[str, str]) -> None:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in answers.items()}
    text = "".join(f"{name}='{value}'\n" for name, value in quoted.items())
    try:
        descriptor = os.open(_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise StorageError(f"cannot write {_FILE.resolve()}: {error.strerror}. Run init in another folder") from error


def _show(console: Console) -> None:
    console.print(f"{_FILE.resolve()} is written. Next: callhistory export", soft_wrap=True)
