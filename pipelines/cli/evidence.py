"""``callhistory evidence``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, UsageError, command
from pipelines.cli.dates import From, Last, To, date_range
from pipelines.cli.output import Output, Report, counted, table

if TYPE_CHECKING:
    from pipelines.proof.evidence import Comparison
    from pipelines.settings import Settings

_DAYS_SHOWN = 40


@command
def evidence(
    output: Output,
    first: From = None,
    last: To = None,
    newest: Last = None,
    output_file: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where to write the evidence; it names nobody.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="FILE", help="Compare evidence with what is there now. Writes nothing."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", metavar="FILE", help="Who has to have signed it; unset: the key in the settings."),
    ] = None,
    file_only: Annotated[
        bool, typer.Option("--file-only", help="With --verify: look at the signed file alone, not at the stores.")
    ] = False,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", metavar="FILE", help="Make a private key, and its public key beside it (FILE.pub)."),
    ] = None,
) -> Report:
    """Sign what is proven of local days, for an auditor; later, --verify says which day was touched since.

    Signed are the certificates, the hash of every file, and where the chain of certificates ends. Without a range, all
    days. Ends with exit code 3 where a day is not proven, or was touched.
    """
    from pipelines.settings import load_settings

    if [output_file, verify, new_key].count(None) != 2:
        raise UsageError("say one of the three: --output FILE, --verify FILE or --new-key FILE")
    if (public_key or file_only) and verify is None:
        raise UsageError("--public-key and --file-only go with --verify")
    if new_key is not None:
        return _new_key(new_key)
    settings = load_settings(require_api=False)
    if verify is not None:
        return _verify(output, settings, verify, public_key, file_only=file_only)
    assert output_file is not None
    return _write(output, settings, output_file, (first, last, newest))


def _new_key(path: Path) -> Report:
    from pipelines.proof.evidence import new_key

    public_path = new_key(path)
    data = {"private_key": str(path.absolute()), "public_key": str(public_path.absolute())}

    def show(console: Console) -> None:
        console.print(
            f"{path.absolute()} is the private key: CALLHISTORY_EVIDENCE_KEY_FILE={path.absolute()}\n"
            f"{public_path.absolute()} is the public key: give it to the auditor, by another way than the evidence.",
            soft_wrap=True,
        )

    return Report(data, show)


def _write(
    output: Output, settings: Settings, path: Path, days_given: tuple[str | None, str | None, str | None]
) -> Report:
    from pipelines.context import open_stores_to_read
    from pipelines.proof.evidence import evidence_of, is_proven, signed
    from pipelines.proof.verify import days_to_verify
    from sinks.private_files import create_file
    from transforms.errors import StorageError

    if path.exists():
        raise UsageError(f"--output: {path} is there already: choose another name")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--output: there is no folder {path.parent}")
    key = _private_key(settings)
    signed({}, key)  # a wrong key is told of before a year is read
    first, last, newest = days_given
    first_date, last_date = date_range(first, last, datetime.now(settings.timezone), newest)
    now = datetime.now(UTC)
    with open_stores_to_read(settings, reads_lake=True) as stores:
        days = days_to_verify(stores, first_date, last_date, now)
        facts = evidence_of(stores, days, now, lambda day: output.log(f"hashing the files of {day}"))
    try:
        with create_file(path, "x+b") as file:
            file.write(json.dumps(signed(facts, key), indent=1).encode() + b"\n")
    except OSError as error:
        raise StorageError(f"--output: cannot write {path}: {error.strerror}") from error
    data = {
        "file": str(path.absolute()),
        "days": len(days),
        "proven": is_proven(facts),
        "files": sum(len(day["files"]) for day in facts["days"]),
        "certificates": len(facts["certificates"]),
        "chain": facts["chain"],
    }
    return Report(data, lambda console: _show_written(console, data), DONE if data["proven"] else INCOMPLETE)


def _private_key(settings: Settings) -> str | None:
    return None if settings.evidence_key is None else settings.evidence_key.get_secret_value()


def _show_written(console: Console, data: Mapping[str, Any]) -> None:
    held = f"{counted(data['certificates'], 'certificate')} and {counted(data['files'], 'file')}"
    about = f"{data['file']} is evidence of {counted(data['days'], 'local day')}: {held}, signed."
    console.print(about, soft_wrap=True)
    _show_breaks(console, data["chain"]["breaks"])
    if not data["proven"]:
        console.print("Not all of it is proven: callhistory status names the days.", soft_wrap=True)


def _verify(output: Output, settings: Settings, path: Path, public_key: Path | None, *, file_only: bool) -> Report:
    from pipelines.context import open_stores_to_read
    from pipelines.proof.evidence import compare, public_key_of, read_evidence, read_public_key

    key = read_public_key(public_key) if public_key else public_key_of(_private_key(settings))
    facts = read_evidence(path, key)
    data: dict[str, Any] = {"signature": "valid", "made_at": facts["made_at"], "days": len(facts["days"])}
    if file_only:
        return Report(data, lambda console: console.print(_about(data), soft_wrap=True))
    with open_stores_to_read(settings) as stores:
        found = compare(stores, facts, datetime.now(UTC), lambda day: output.log(f"looking at {day}"))
    data |= {
        "untouched": found.is_untouched,
        "chain_follows": found.follows,
        "chain_breaks": list(found.breaks),
        "findings": [day.to_dict() for day in found.days],
    }
    return Report(data, lambda console: _show(console, data, found), DONE if found.is_untouched else INCOMPLETE)


def _about(data: Mapping[str, Any]) -> str:
    return f"The signature is valid: evidence of {counted(data['days'], 'local day')}, made at {data['made_at']}."


def _show(console: Console, data: Mapping[str, Any], found: Comparison) -> None:
    console.print(_about(data), soft_wrap=True)
    touched = [day for day in found.days if not day.is_untouched]
    if touched:
        rows = ((day.call_date, day.finding.value, len(day.files), day.differences) for day in touched[:_DAYS_SHOWN])
        console.print(table(("day", "now", "changed files", "differences"), rows))
        if len(touched) > _DAYS_SHOWN:
            console.print(f"... and {len(touched) - _DAYS_SHOWN:,} more; --json has all")
    if not found.follows:
        console.print(
            "The certificates do not go on from those of the evidence: this is another warehouse, one from an older "
            "backup, or its chain was written anew.",
            soft_wrap=True,
        )
    _show_breaks(console, found.breaks)
    console.print(f"{counted(len(found.days), 'day')} compared, {len(touched):,} touched since.")


def _show_breaks(console: Console, numbers: Sequence[int]) -> None:
    if numbers:
        console.print(
            f"The chain of certificates does not hold at number {numbers[0]:,}: somebody has changed the table.",
            soft_wrap=True,
        )
