"""Access tokens, operators' certificates and the audit log: the shapes that the API and its client share.

Times are aware datetimes in UTC (RFC 3339 in JSON), durations are seconds. Imports neither SQLAlchemy nor cryptography.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from broker.fleet.described import says
from broker.fleet.models import Role

__all__ = [
    "MAX_ACCESS_TOKEN_S",
    "AccessGrantView",
    "AccessTokenRequest",
    "AccessTokenView",
    "CreatedAccessToken",
    "LoggedAction",
    "OperatorCertificateView",
    "RoleName",
]


RoleName = Literal["viewer", "operator", "admin"]
MAX_ACCESS_TOKEN_S = 366 * 86400.0
_Groups = Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=1000)]
_ID = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"


@dataclass(frozen=True)
class AccessTokenRequest:
    """A token for a principal: a person or a program."""

    principal: Annotated[str, says("Its name: the origin of what it sends.", "alice", max_length=64)]
    role: Annotated[Role, says("What it may do.", "operator")]
    groups: Annotated[_Groups | None, says("Only for the agents in these groups; null: for all.", ["edge"])] = None
    ttl_s: Annotated[float, says("For how many seconds it is valid.", 2592000.0, gt=0, le=MAX_ACCESS_TOKEN_S)] = (
        90 * 86400.0
    )


@dataclass(frozen=True)
class AccessGrantView:
    """That a principal may use the API, for a time."""

    id: Annotated[str, says("The id of the token or certificate.", _ID)]
    principal: Annotated[str, says("The name of the principal.", "alice")]
    role: Annotated[Role, says("What it may do.", "operator")]
    groups: Annotated[tuple[str, ...] | None, says("The groups whose agents it is for; null: all agents.", ["edge"])]
    created_at: Annotated[datetime, says("When it was created.")]
    created_by: Annotated[str, says("Who created it: a user of `acm` as `USER@HOST`, or a principal.", "root@ops")]
    expires_at: Annotated[datetime, says("From when on it is not valid any more.")]
    revoked_at: Annotated[datetime | None, says("When it was revoked.")]
    used_at: Annotated[datetime | None, says("When it was last used, to the minute.")]


@dataclass(frozen=True)
class AccessTokenView(AccessGrantView):
    """An access token, without its secret."""


@dataclass(frozen=True)
class OperatorCertificateView(AccessGrantView):
    """The certificate of an operator, whose name begins with `cert:`."""

    serial: Annotated[str, says("Its serial number, hexadecimal.", "5b2c9d0e8f")]


@dataclass(frozen=True)
class CreatedAccessToken(AccessTokenView):
    """A new access token with its text, which is in no other answer."""

    token: Annotated[str, says("Its text, for `Authorization: Bearer TOKEN`.")]


@dataclass(frozen=True)
class LoggedAction:
    """What a principal has changed by the API."""

    id: Annotated[str, says("The id of the entry.", _ID)]
    at: Annotated[datetime, says("When.")]
    principal: Annotated[str, says("Who.", "alice")]
    credential: Annotated[str, says("The id of the access token.", _ID)]
    action: Annotated[str, says("What it did.", "send restart-agent")]
    target: Annotated[str, says("To what, as it named it.", "web-*")]
    subject: Annotated[str, says("The id of what came of it; empty if it has none.", _ID)]
