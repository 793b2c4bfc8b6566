"""Enrolment tokens and enrolments as an operator sees them: the shapes that the API and its client share.

Times are aware datetimes in UTC (RFC 3339 in JSON), durations are seconds. Imports neither SQLAlchemy nor cryptography.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from broker.fleet.described import says

__all__ = [
    "MAX_ENROLMENT_TOKEN_S",
    "CreatedEnrolmentToken",
    "EnrolmentTokenRequest",
    "EnrolmentTokenView",
    "EnrolmentView",
    "RevocationReasonName",
    "RevocationRequest",
    "RevokedEnrolments",
]


MAX_ENROLMENT_TOKEN_S = 30 * 86400.0
_ID = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"
RevocationReasonName = Literal["unspecified", "key-compromise", "superseded", "cessation-of-operation"]


@dataclass(frozen=True)
class EnrolmentTokenRequest:
    """A token that lets one agent enroll, once."""

    agent: Annotated[str, says("The name of the agent; it need not be known yet.", "web-01", max_length=64)]
    ttl_s: Annotated[float, says("For how many seconds it is valid.", 3600.0, gt=0, le=MAX_ENROLMENT_TOKEN_S)] = 3600.0


@dataclass(frozen=True)
class EnrolmentTokenView:
    """An enrolment token, without its secret."""

    id: Annotated[str, says("The id of the token.", _ID)]
    agent: Annotated[str, says("The agent that may enroll with it.", "web-01")]
    state: Annotated[str, says("`open`, `used`, `expired` or `revoked`; only an open one is valid.", "open")]
    created_at: Annotated[datetime, says("When it was created.")]
    expires_at: Annotated[datetime, says("From when on it is not valid any more.")]
    used_at: Annotated[datetime | None, says("When an agent enrolled with it.")]
    key: Annotated[str | None, says("The fingerprint of the key that used it.")]
    enrolment_id: Annotated[str | None, says("The enrolment that it was used for.")]


@dataclass(frozen=True)
class CreatedEnrolmentToken(EnrolmentTokenView):
    """A new enrolment token with its text, which is in no other answer."""

    token: Annotated[str, says("Its text. Anyone who has it can enroll as this agent, once.")]
    server: Annotated[
        str, says("The URL of the enrolment server, for `acm-agent enroll --server`.", "https://acm.example.org:8443")
    ]


@dataclass(frozen=True)
class EnrolmentView:
    """An enrolment of an agent, with its newest certificate."""

    id: Annotated[str, says("The id of the enrolment.", _ID)]
    agent: Annotated[str, says("The agent.", "web-01")]
    enrolled_at: Annotated[datetime, says("When it enrolled.")]
    serial: Annotated[str, says("The serial number of its newest certificate, hexadecimal.")]
    key: Annotated[str, says("The fingerprint of its key.")]
    not_after: Annotated[datetime, says("The end of that certificate.")]
    state: Annotated[str, says("`valid`, `expired` or `revoked`.", "valid")]
    revoked_at: Annotated[datetime | None, says("When it was revoked.")]
    reason: Annotated[str | None, says("Why it was revoked.", "key-compromise")]


@dataclass(frozen=True)
class RevocationRequest:
    """Why something is revoked."""

    reason: Annotated[RevocationReasonName, says("The reason in the revocation list.", "key-compromise")] = (
        "unspecified"
    )


@dataclass(frozen=True)
class RevokedEnrolments:
    """What a revocation has revoked; those that were revoked before are not among them."""

    enrolments: tuple[EnrolmentView, ...]
