"""``callhistory calls show | transfer | stop | add-participant``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pipelines.cli.call_record import show
from pipelines.cli.command import command
from pipelines.cli.confirm import confirmed, declined
from pipelines.cli.output import Output, Report

if TYPE_CHECKING:
    from pipelines.settings import Settings
    from pipelines.stringeex.operations import Accepted, CallEnd, StringeeX

calls = typer.Typer(
    name="calls",
    help="One call: shown with all that is held of it; transferred, stopped, joined.",
    no_args_is_help=True,
)
calls.command("show")(show)

CallId = Annotated[str, typer.Argument(metavar="CALL_ID", help="The call's id; callhistory live shows them.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without being asked.")]
_EndTypeChoice = Literal["internal", "external"]
ToType = Annotated[
    _EndTypeChoice | None,
    typer.Option(help="internal: a user id; external: a phone number. By default what --to looks like."),
]
ToAlias = Annotated[str | None, typer.Option(help="How the other end is shown; by default as --to.")]


@calls.command("transfer")
@command
def transfer(
    output: Output,
    call_id: CallId,
    to: Annotated[str, typer.Option("--to", help="A user id, or a phone number.")],
    to_type: ToType = None,
    to_alias: ToAlias = None,
    yes: Yes = False,
) -> Report:
    """Hand a call in progress over to an agent or a phone number."""
    settings = _settings()
    end = _end(settings, to, to_type, to_alias)
    return _do(
        output, settings, call_id, f"transfer call {call_id} to {end.type} {to}", yes,
        lambda api: api.transfer_call(call_id, end),
    )  # fmt: skip


@calls.command("stop")
@command
def stop(output: Output, call_id: CallId, yes: Yes = False) -> Report:
    """End a call in progress, for everyone in it."""
    settings = _settings()
    return _do(output, settings, call_id, f"stop call {call_id}", yes, lambda api: api.stop_call(call_id))


@calls.command("add-participant")
@command
def add_participant(
    output: Output,
    call_id: CallId,
    to: Annotated[str, typer.Option("--to", help="Who is to join: a user id, or a phone number.")],
    from_: Annotated[str, typer.Option("--from", help="The number or user id that they are called from.")],
    to_type: ToType = None,
    to_alias: ToAlias = None,
    from_type: Annotated[
        _EndTypeChoice | None, typer.Option(help="As --to-type, for the other end; by default what --from looks like.")
    ] = None,
    from_alias: Annotated[str | None, typer.Option(help="How the calling end is shown; by default as --from.")] = None,
    yes: Yes = False,
) -> Report:
    """Bring an agent or a phone number into a call in progress."""
    settings = _settings()
    to_end, from_end = _end(settings, to, to_type, to_alias), _end(settings, from_, from_type, from_alias)
    return _do(
        output, settings, call_id, f"add {to_end.type} {to} to call {call_id}, called from {from_}", yes,
        lambda api: api.add_participant(call_id, from_end, to_end),
    )  # fmt: skip


def _settings() -> Settings:
    from pipelines.settings import load_settings

    return load_settings()


def _end(settings: Settings, number: str, type_: _EndTypeChoice | None, alias: str | None) -> CallEnd:
    from pipelines.stringeex.operations import CallEnd

    return CallEnd.of(number, type_, alias, region=settings.region)


def _do(
    output: Output, settings: Settings, call_id: str, deed: str, yes: bool, act: Callable[[StringeeX], Accepted]
) -> Report:
    """Say what will be done, ask, do it once, and report what the API answered."""
    if not confirmed(output, deed, yes=yes):
        return declined()
    from pipelines.stringeex.client import StringeeXClient
    from pipelines.stringeex.operations import StringeeX
    from pipelines.stringeex.request_budget import Priority

    with StringeeXClient(settings, priority=Priority.INTERACTIVE) as client:
        accepted = act(StringeeX(client))
    data = {"done": True, "operation": accepted.operation, "call_id": call_id, "r": 0, "answer": dict(accepted.answer)}
    return Report(data, lambda console: console.print(f"Done: the API accepted {accepted.operation} (r=0)."))
