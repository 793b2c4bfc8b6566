"""What the commands for access tokens and for operators' certificates have in common."""

from collections.abc import Sequence
from typing import Annotated, TypeVar

import typer

from broker.access.models import AccessGrantView
from broker.cli.documents import document_of
from broker.console.listing import Cell, Column, Listing, Shown, time_column
from broker.fleet.models import Role
from broker.suggestions import only_beginning_with

__all__ = [
    "DEFAULT_TTL",
    "GroupOption",
    "RoleOption",
    "TtlOption",
    "grant_id",
    "list_of_grants",
]


_Grant = TypeVar("_Grant", bound=AccessGrantView)
DEFAULT_TTL = "90d"
RoleOption = Annotated[Role, typer.Option("--role", help="What it may do; each role may do what those before it may.")]
GroupOption = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="GROUP", help="Only for the agents of this group; several times for more."),
]
TtlOption = Annotated[str, typer.Option("--ttl", metavar="DURATION", help="For how long it is valid.")]


def list_of_grants(noun: str) -> Listing[_Grant]:
    """Return the list of grants of one kind."""
    columns: tuple[Column[_Grant], ...] = (
        Column("id", lambda it: it.id),
        Column("principal", lambda it: it.principal),
        Column("role", lambda it: it.role),
        Column("groups", _groups),
        time_column("expires", lambda it: it.expires_at),
        time_column("revoked", lambda it: it.revoked_at),
        time_column("used", lambda it: it.used_at),
        time_column("created", lambda it: it.created_at, Shown.WIDE),
    )
    return Listing(noun, columns, name=lambda it: it.id, document=document_of)


def grant_id(given: str, grants: Sequence[AccessGrantView]) -> str:
    """Return the id of the only one of these grants whose id begins so, else what was given."""
    return only_beginning_with(given, (it.id for it in grants)) or given


def _groups(grant: AccessGrantView) -> Cell:
    return "all agents" if grant.groups is None else grant.groups
