"""What lists of access tokens and of operators' certificates show."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from broker.access.access_tokens import view_of_token
from broker.access.grants import AccessGrant
from broker.console.listing import Column, Listing, Shown, time_column
from broker.contract.messages import JsonObject

__all__ = [
    "document_of_grant",
    "list_of_grants",
]


_Grant = TypeVar("_Grant", bound=AccessGrant)


def list_of_grants(noun: str, document: Callable[[_Grant], JsonObject]) -> Listing[_Grant]:
    """Return the list of grants of one kind."""
    columns: tuple[Column[_Grant], ...] = (
        Column("id", lambda it: it.id),
        Column("principal", lambda it: it.principal.name),
        Column("role", lambda it: it.principal.role),
        Column("groups", lambda it: "all agents" if it.principal.groups is None else sorted(it.principal.groups)),
        time_column("expires", lambda it: it.expires_at),
        time_column("revoked", lambda it: it.revoked_at),
        time_column("used", lambda it: it.used_at),
        time_column("created", lambda it: it.created_at, Shown.WIDE),
    )
    return Listing(noun, columns, name=lambda it: it.id, document=document)


def document_of_grant(grant: AccessGrant) -> JsonObject:
    """Return a grant as JSON."""
    document: JsonObject = msgspec.to_builtins(view_of_token(grant))
    return document
