"""``callhistory erase``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from pipelines.cli.command import DONE, INCOMPLETE, UsageError, command
from pipelines.cli.confirm import confirmed, declined
from pipelines.cli.output import Output, Report, counted, table
from pipelines.cli.people import AgentId, CustomerNumber, Email, named_person

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from transforms.person import Person

_ID = "id:"
_STAGES = {
    "begun": "this erasure was begun and cut off: it goes on",
    "done": "they were erased before, and nothing of them is back",
}


@command
def erase(
    output: Output,
    customer_number: CustomerNumber = None,
    email: Email = None,
    agent_id: AgentId = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", metavar="FILE", help="Several people in one pass, one a line: a number, an address, or id:ID."
        ),
    ] = None,
    at_source: Annotated[
        bool, typer.Option("--at-source", help="Delete their recordings at the provider, too, for good.")
    ] = False,
    receipt: Annotated[
        Path | None, typer.Option("--receipt", metavar="FILE", help="Where to write what proves it; names nobody.")
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option("--verify", metavar="FILE", help="Prove a receipt again: is nobody of it back? Writes nothing."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without being asked.")] = False,
) -> Report:
    """Take a person out of everything that is held, for good, with a receipt; the calls stay, for the counts.

    Needs CALLHISTORY_PII_KEY, under which a list keeps the person from coming back. What was cut off goes on when it is
    done again, or with the next export.
    """
    from pipelines.settings import load_settings

    settings = load_settings(require_api=at_source)
    if verify is not None:
        if any((customer_number, email, agent_id, file, receipt)) or at_source:
            raise UsageError("--verify FILE names whom it is about: leave the other options out")
        return _verify(output, settings, verify)
    if receipt is not None and receipt.exists():
        raise UsageError(f"{receipt} is there already: choose another name for the receipt")
    people = list(_people(settings, customer_number, email, agent_id, file))
    return _erase(output, settings, people, receipt, at_source=at_source, yes=yes)


def _people(
    settings: Settings, number: str | None, email: str | None, agent_id: str | None, file: Path | None
) -> Iterator[Person]:
    from transforms.person import Person

    if file is None:
        yield named_person(number, email, agent_id, settings.region)
        return
    if number or email or agent_id:
        raise UsageError("--file has everybody: leave the options that name one person out")
    try:
        lines = file.read_text().splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--file: cannot read {file} ({type(error).__name__})") from None
    named = [(place, line.strip()) for place, line in enumerate(lines, start=1) if line.strip()]
    if not named:
        raise UsageError(f"--file: {file} names nobody")
    for place, line in named:
        kind = "agent_id" if line.startswith(_ID) else "email" if "@" in line else "number"
        try:
            yield Person.named(**{kind: line.removeprefix(_ID)}, region=settings.region)
        except ValueError as error:
            raise UsageError(f"--file: line {place} {error}") from None


def _erase(
    output: Output, settings: Settings, people: list[Person], path: Path | None, *, at_source: bool, yes: bool
) -> Report:
    from pipelines.context import open_stores_in_use, utc_now
    from pipelines.erasure.receipt import receipt as receipt_of
    from pipelines.erasure.run import Stage, carry_out, delete_at_source, look_for

    def on_place(place: str) -> None:
        output.log(f"looking through {place}" if place.startswith("the ") else place)

    with open_stores_in_use(settings) as stores:
        request = look_for(stores, people, utc_now(), on_place)
        if request.stage is Stage.DONE and at_source:
            raise UsageError(
                "--at-source: they were erased before, so nobody knows which calls were theirs; what the provider has "
                "goes by callhistory recordings delete CALL_ID --without-copy"
            )
        if request.stage is not Stage.NEW:
            output.log(_STAGES[request.stage.value])
        if request.stage is Stage.NEW or at_source:
            _show_found(output, request.found.found)
            audio = f"the audio of {counted(len(request.found.call_ids), 'call')}"
            deed = (
                f"erase {counted(len(people), 'person')} from everything that is held, and {audio}"
                f"{', at the provider too' if at_source else ''}, for good"
            )
            if not confirmed(output, deed, yes=yes):
                return declined()
        not_deleted = delete_at_source(stores, settings, request.found.call_ids) if at_source else []
        erasures, last_look = carry_out(stores, request, on_place)
        facts = receipt_of(stores, erasures, last_look)
    if at_source:
        facts = {**facts, "not_deleted_at_source": not_deleted}
    if path is not None:
        _write(path, facts)
    is_done = last_look.is_clean and not not_deleted
    return Report(facts, lambda console: _show(console, facts, path), DONE if is_done else INCOMPLETE)


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    from sinks.private_files import create_file
    from transforms.errors import StorageError

    try:
        with create_file(path, "wb") as file:
            file.write(json.dumps(facts, indent=1).encode() + b"\n")
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}. The erasure is done: do it again for another receipt"
        ) from error


def _show_found(output: Output, found: Mapping[str, int]) -> None:
    places = ", ".join(f"{count:,} in {place}" for place, count in sorted(found.items()))
    output.log(f"found: {places}" if places else "found nothing that is held of them")


def _show(console: Console, facts: Mapping[str, Any], path: Path | None) -> None:
    if facts["found"]:
        console.print(table(("where", "rows and files"), sorted(facts["found"].items())))
    left = sum(facts["left"].values())
    looked_at = sum(facts["looked_at"].values())
    console.print(
        f"{looked_at:,} rows and files were looked through again: {left:,} speak of them now.", soft_wrap=True
    )
    for name in facts["unreadable"]:
        console.print(f"cannot be read, so nobody can tell: {name}. Bring it back from a backup, or delete it.")
    if facts["under_legal_hold"]:
        held = counted(facts["under_legal_hold"], "recording")
        console.print(f"{held} under legal hold stay until they are released.", soft_wrap=True)
    for problem in facts.get("not_deleted_at_source", ()):
        console.print(f"not deleted at the provider: {problem}", soft_wrap=True)
    if path is not None:
        console.print(f"{path.absolute()} is the receipt: callhistory erase --verify proves it again.", soft_wrap=True)


def _verify(output: Output, settings: Settings, path: Path) -> Report:
    from pipelines.context import open_stores_to_read
    from pipelines.erasure.receipt import prove_again, read_receipt

    facts = read_receipt(path)
    with open_stores_to_read(settings, reads_lake=True) as stores:
        found, forgotten = prove_again(stores, facts, lambda place: output.log(f"looking through {place}"))
    holds = found.is_clean and not forgotten
    data = {
        "holds": holds,
        "looked_at": dict(found.looked_at),
        "left": dict(found.found),
        "unreadable": sorted(found.unreadable),
        "forgotten": forgotten,
    }
    return Report(data, lambda console: _show_proof(console, data), DONE if holds else INCOMPLETE)


def _show_proof(console: Console, data: Mapping[str, Any]) -> None:
    if data["holds"]:
        console.print("The receipt holds: nothing that is held speaks of them.")
        return
    if data["left"]:
        console.print(table(("where", "rows and files"), sorted(data["left"].items())))
        console.print("They are back, as after a backup was restored: erase them again.", soft_wrap=True)
    for name in data["unreadable"]:
        console.print(f"cannot be read, so nobody can tell: {name}", soft_wrap=True)
    if data["forgotten"]:
        console.print(
            "The list of erased people has forgotten them, so the next export may bring them back: erase them again.",
            soft_wrap=True,
        )
