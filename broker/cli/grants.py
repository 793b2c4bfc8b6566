"""What lists of access tokens and of operators' certificates show."""

from collections.abc import Callable
from typing import TypeVar

from broker.access.models import AccessTokenView
from broker.console.listing import Cell, Column, Listing, Shown, time_column
from broker.contract.messages import JsonObject

__all__ = [
    "list_of_grants",
]


_Grant = TypeVar("_Grant")


def list_of_grants(
    noun: str, view: Callable[[_Grant], AccessTokenView], document: Callable[[_Grant], JsonObject]
) -> Listing[_Grant]:
    """Return the list of grants of one kind; `view` is what they have in common."""
    columns: tuple[Column[_Grant], ...] = (
        Column("id", lambda it: view(it).id),
        Column("principal", lambda it: view(it).principal),
        Column("role", lambda it: view(it).role),
        Column("groups", lambda it: _groups(view(it))),
        time_column("expires", lambda it: view(it).expires_at),
        time_column("revoked", lambda it: view(it).revoked_at),
        time_column("used", lambda it: view(it).used_at),
        time_column("created", lambda it: view(it).created_at, Shown.WIDE),
    )
    return Listing(noun, columns, name=lambda it: view(it).id, document=document)


def _groups(grant: AccessTokenView) -> Cell:
    return "all agents" if grant.groups is None else grant.groups
