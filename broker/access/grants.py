"""What access tokens and operators' certificates have in common: a principal, for a time, in a row of the ledger."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from broker.access.models import MAX_ACCESS_TOKEN_S
from broker.errors import BrokerError, InvalidArgument
from broker.fleet.models import Principal, Role
from broker.ledger.groups import check_group_name
from broker.ledger.ids import new_id
from broker.ledger.tables import moment, utc

__all__ = [
    "LONGEST_PRINCIPAL",
    "AccessGrant",
    "Credential",
    "InvalidCredential",
    "credential_of_grant",
    "facts_of_grant",
    "is_noted",
    "new_grant",
    "sees_grant",
    "shown_facts",
]


_MAX_LIFETIME = timedelta(seconds=MAX_ACCESS_TOKEN_S)
LONGEST_PRINCIPAL = 64  # characters, as in the tables
_NOTE_USE_EVERY_S = 60.0


class InvalidCredential(BrokerError):
    """The request has no credential of a principal: none at all, an unknown one, or one that was revoked or expired."""

    code = "invalid_credential"


@dataclass(frozen=True)
class AccessGrant:
    """That a client which has a secret may use the API as a principal. `used_at`: when it last did, to the minute."""

    id: str
    principal: Principal
    created_at: datetime
    created_by: str
    expires_at: datetime
    revoked_at: datetime | None
    used_at: datetime | None


@dataclass(frozen=True)
class Credential:
    """A principal, and the id of the token or certificate that proves it.

    `expires_at`: when one of an issuer ends. `session`: the session of the page that it is used in, if any.
    """

    principal: Principal
    id: str
    expires_at: datetime | None = None
    session: str | None = None


def new_grant(principal: Principal, lifetime: timedelta, created_by: str, now: datetime) -> dict[str, Any]:
    """Return the columns of a new grant, without its proof. Raises InvalidName, and InvalidArgument for a lifetime."""
    groups = None if principal.groups is None else sorted(map(check_group_name, principal.groups))
    if not timedelta() < lifetime <= _MAX_LIFETIME:
        raise InvalidArgument(f"Access is granted for at most {_MAX_LIFETIME.days} days.", code="lifetime_too_long")
    return {
        "id": new_id(),
        "principal": principal.name,
        "role": principal.role,
        "groups": None if groups is None else msgspec.json.encode(groups).decode(),
        "created_at": now.timestamp(),
        "created_by": created_by,
        "expires_at": (now + lifetime).timestamp(),
    }


def facts_of_grant(row: Any) -> dict[str, Any]:
    """Return the members of the grant in a row."""
    groups = None if row.groups is None else msgspec.json.decode(row.groups, type=frozenset[str])
    return {
        "id": row.id,
        "principal": Principal(row.principal, Role(row.role), groups),
        "created_at": utc(row.created_at),
        "created_by": row.created_by,
        "expires_at": utc(row.expires_at),
        "revoked_at": moment(row.revoked_at),
        "used_at": moment(row.used_at),
    }


def shown_facts(grant: AccessGrant) -> dict[str, Any]:
    """Return the members of an AccessGrantView of this grant."""
    principal, facts = grant.principal, vars(grant)
    return {
        **{name: facts[name] for name in ("id", "created_at", "created_by", "expires_at", "revoked_at", "used_at")},
        "principal": principal.name,
        "role": principal.role,
        "groups": None if principal.groups is None else tuple(sorted(principal.groups)),
    }


def sees_grant(within: frozenset[str] | None, grant: AccessGrant) -> bool:
    """Whether a caller with these groups sees a grant: one for some of them. None: it sees all."""
    groups = grant.principal.groups
    return within is None or (groups is not None and groups <= within)


def is_noted(grant: AccessGrant, now: datetime) -> bool:
    """Whether the use of a grant at this time is noted well enough."""
    return grant.used_at is not None and (now - grant.used_at).total_seconds() < _NOTE_USE_EVERY_S


def credential_of_grant(grant: AccessGrant, kind: str, now: datetime, *, is_listed: bool = False) -> Credential:
    """Return the credential of a grant that is valid now. `kind` is what its holder has; `is_listed`: as revoked.

    Raises InvalidCredential.
    """
    if grant.revoked_at is not None or is_listed:
        raise InvalidCredential(f"The {kind} was revoked: create a new one.", code="credential_revoked")
    if now >= grant.expires_at:
        raise InvalidCredential(f"The {kind} has expired: create a new one.", code="credential_expired")
    return Credential(grant.principal, grant.id)
