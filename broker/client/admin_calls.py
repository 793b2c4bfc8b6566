"""The requests of the API that need the role admin, most of them, and the shapes of their answers."""

from urllib.parse import quote

from broker.access.models import (
    AccessTokenRequest,
    AccessTokenView,
    CreatedAccessToken,
    LoggedAction,
    OperatorCertificateView,
)
from broker.client.calls import Call, change_call, given_parameters
from broker.fleet.enrolment_models import (
    CreatedEnrolmentToken,
    EnrolmentTokenRequest,
    EnrolmentTokenView,
    EnrolmentView,
    RevocationRequest,
    RevokedEnrolments,
)
from broker.fleet.key_models import SigningKeysView
from broker.fleet.models import PageOf

__all__ = [
    "for_access_tokens",
    "for_audit_log",
    "for_enrolment",
    "for_enrolment_tokens",
    "for_enrolments",
    "for_operator_certificates",
    "for_signing_keys",
    "to_create_access_token",
    "to_create_enrolment_token",
    "to_revoke_access_token",
    "to_revoke_agent",
    "to_revoke_enrolment",
    "to_revoke_enrolment_token",
    "to_revoke_operator_certificate",
]


def for_enrolment_tokens(
    agent: str | None, state: str | None, cursor: str | None, limit: int
) -> Call[PageOf[EnrolmentTokenView]]:
    """Return the call for a page of enrolment tokens."""
    query = given_parameters({"agent": agent, "state": state, "cursor": cursor, "limit": limit})
    return Call("GET", "/v1/enrolment-tokens", PageOf[EnrolmentTokenView], query)


def to_create_enrolment_token(request: EnrolmentTokenRequest) -> Call[CreatedEnrolmentToken]:
    """Return the call that creates an enrolment token."""
    return change_call("/v1/enrolment-tokens", CreatedEnrolmentToken, request)


def to_revoke_enrolment_token(token_id: str) -> Call[EnrolmentTokenView]:
    """Return the call that revokes an enrolment token."""
    return change_call(f"/v1/enrolment-tokens/{_part(token_id)}/revoke", EnrolmentTokenView)


def for_enrolments(agent: str | None, state: str | None, cursor: str | None, limit: int) -> Call[PageOf[EnrolmentView]]:
    """Return the call for a page of enrolments."""
    query = given_parameters({"agent": agent, "state": state, "cursor": cursor, "limit": limit})
    return Call("GET", "/v1/enrolments", PageOf[EnrolmentView], query)


def for_enrolment(enrolment_id: str) -> Call[EnrolmentView]:
    """Return the call for one enrolment."""
    return Call("GET", f"/v1/enrolments/{_part(enrolment_id)}", EnrolmentView)


def to_revoke_enrolment(enrolment_id: str, request: RevocationRequest) -> Call[EnrolmentView]:
    """Return the call that revokes an enrolment."""
    return change_call(f"/v1/enrolments/{_part(enrolment_id)}/revoke", EnrolmentView, request)


def to_revoke_agent(name: str, request: RevocationRequest) -> Call[RevokedEnrolments]:
    """Return the call that revokes all enrolments and unused tokens of an agent."""
    return change_call(f"/v1/agents/{_part(name)}/revoke", RevokedEnrolments, request)


def for_signing_keys() -> Call[SigningKeysView]:
    """Return the call for the list of signing keys."""
    return Call("GET", "/v1/signing-keys", SigningKeysView)


def for_access_tokens(cursor: str | None, limit: int) -> Call[PageOf[AccessTokenView]]:
    """Return the call for a page of access tokens."""
    query = given_parameters({"cursor": cursor, "limit": limit})
    return Call("GET", "/v1/access-tokens", PageOf[AccessTokenView], query)


def to_create_access_token(request: AccessTokenRequest) -> Call[CreatedAccessToken]:
    """Return the call that creates an access token."""
    return change_call("/v1/access-tokens", CreatedAccessToken, request)


def to_revoke_access_token(token_id: str) -> Call[AccessTokenView]:
    """Return the call that revokes an access token."""
    return change_call(f"/v1/access-tokens/{_part(token_id)}/revoke", AccessTokenView)


def for_operator_certificates(cursor: str | None, limit: int) -> Call[PageOf[OperatorCertificateView]]:
    """Return the call for a page of operators' certificates."""
    query = given_parameters({"cursor": cursor, "limit": limit})
    return Call("GET", "/v1/operator-certificates", PageOf[OperatorCertificateView], query)


def to_revoke_operator_certificate(certificate_id: str) -> Call[OperatorCertificateView]:
    """Return the call that revokes an operator's certificate."""
    return change_call(f"/v1/operator-certificates/{_part(certificate_id)}/revoke", OperatorCertificateView)


def for_audit_log(cursor: str | None, limit: int) -> Call[PageOf[LoggedAction]]:
    """Return the call for a page of the audit log."""
    query = given_parameters({"cursor": cursor, "limit": limit})
    return Call("GET", "/v1/audit-log", PageOf[LoggedAction], query)


def _part(text: str) -> str:
    """Return a text as one part of a path."""
    return quote(text, safe="")
