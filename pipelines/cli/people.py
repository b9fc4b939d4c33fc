"""The options that name a person, and the person that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.command import UsageError

if TYPE_CHECKING:
    from transforms.person import Person

CustomerNumber = Annotated[str | None, typer.Option(metavar="NUMBER", help="Their phone number, in any usual form.")]
Email = Annotated[str | None, typer.Option(metavar="ADDRESS", help="Their e-mail address.")]
AgentId = Annotated[str | None, typer.Option(metavar="ID", help="Their id as an agent or a user.")]


def named_person(number: str | None, email: str | None, agent_id: str | None, region: str) -> Person:
    """Return the person whom the options name. Raises ``UsageError``."""
    from transforms.person import Person

    try:
        return Person.named(number=number, email=email, agent_id=agent_id, region=region)
    except ValueError as error:
        raise UsageError(f"--customer-number, --email, --agent-id: {error}") from None
