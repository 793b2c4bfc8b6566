"""The asynchronous calls about enrolments and access; they differ in `async` and `await` alone."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TypeVar

from broker.access.models import (
    AccessTokenRequest,
    AccessTokenView,
    CreatedAccessToken,
    LoggedAction,
    OperatorCertificateView,
    RoleName,
)
from broker.client import admin_calls
from broker.client.calls import Call
from broker.fleet.enrolment_models import (
    CreatedEnrolmentToken,
    EnrolmentTokenRequest,
    EnrolmentTokenView,
    EnrolmentView,
    RevocationReasonName,
    RevocationRequest,
    RevokedEnrolments,
)
from broker.fleet.key_models import SigningKeysView
from broker.fleet.models import PageOf, Role

__all__ = [
    "AsyncAdminClient",
]


_Answer = TypeVar("_Answer")


class AsyncAdminClient(ABC):
    """The part of `AsyncClient` for enrolments, signing keys, access tokens and the audit log."""

    async def enrolment_tokens(
        self, *, agent: str | None = None, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[EnrolmentTokenView]:
        """Return a page of enrolment tokens, newest first."""
        return await self._do(admin_calls.for_enrolment_tokens(agent, state, cursor, limit))

    async def create_enrolment_token(self, agent: str, *, ttl_s: float = 3600.0) -> CreatedEnrolmentToken:
        """Create a token with which one agent can enroll, once; its text is only in this answer."""
        return await self._do(admin_calls.to_create_enrolment_token(EnrolmentTokenRequest(agent, ttl_s)))

    async def revoke_enrolment_token(self, token_id: str) -> EnrolmentTokenView:
        """Revoke a token that was not used."""
        return await self._do(admin_calls.to_revoke_enrolment_token(token_id))

    async def enrolments(
        self, *, agent: str | None = None, state: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[EnrolmentView]:
        """Return a page of enrolments, newest first."""
        return await self._do(admin_calls.for_enrolments(agent, state, cursor, limit))

    async def enrolment(self, enrolment_id: str) -> EnrolmentView:
        """Return one enrolment."""
        return await self._do(admin_calls.for_enrolment(enrolment_id))

    async def revoke_enrolment(
        self, enrolment_id: str, *, reason: RevocationReasonName = "unspecified"
    ) -> EnrolmentView:
        """Revoke an enrolment, and write the revocation list; return the enrolment."""
        return await self._do(admin_calls.to_revoke_enrolment(enrolment_id, RevocationRequest(reason)))

    async def revoke_agent(self, name: str, *, reason: RevocationReasonName = "unspecified") -> RevokedEnrolments:
        """Revoke all enrolments and unused tokens of an agent, and write the revocation list."""
        return await self._do(admin_calls.to_revoke_agent(name, RevocationRequest(reason)))

    async def signing_keys(self) -> SigningKeysView:
        """Return the keys that sign messages to agents, without the private parts."""
        return await self._do(admin_calls.for_signing_keys())

    async def access_tokens(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[AccessTokenView]:
        """Return a page of access tokens, newest first."""
        return await self._do(admin_calls.for_access_tokens(cursor, limit))

    async def create_access_token(
        self, principal: str, role: RoleName, *, groups: Sequence[str] | None = None, ttl_s: float = 90 * 86400.0
    ) -> CreatedAccessToken:
        """Create an access token, for all agents or those in `groups`; its text is only in this answer."""
        wanted = AccessTokenRequest(principal, Role(role), None if groups is None else tuple(groups), ttl_s)
        return await self._do(admin_calls.to_create_access_token(wanted))

    async def revoke_access_token(self, token_id: str) -> AccessTokenView:
        """Revoke an access token."""
        return await self._do(admin_calls.to_revoke_access_token(token_id))

    async def operator_certificates(
        self, *, cursor: str | None = None, limit: int = 100
    ) -> PageOf[OperatorCertificateView]:
        """Return a page of operators' certificates, newest first."""
        return await self._do(admin_calls.for_operator_certificates(cursor, limit))

    async def revoke_operator_certificate(self, certificate_id: str) -> OperatorCertificateView:
        """Revoke an operator's certificate."""
        return await self._do(admin_calls.to_revoke_operator_certificate(certificate_id))

    async def audit_log(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[LoggedAction]:
        """Return a page of what principals have changed by the API, newest first."""
        return await self._do(admin_calls.for_audit_log(cursor, limit))

    @abstractmethod
    async def _do(self, call: Call[_Answer]) -> _Answer:
        """Return the answer to a call."""
