"""What an administrator can do with access tokens and operators' certificates, on a ledger or over the API."""

from collections.abc import Sequence
from typing import Protocol

from broker.access.models import AccessTokenView, CreatedAccessToken, OperatorCertificateView, RoleName
from broker.fleet.models import PageOf

__all__ = [
    "AccessTokens",
    "OperatorCertificates",
]


class AccessTokens(Protocol):
    """The access tokens of the API's users. Lists are read in pages. Every method may raise LedgerError."""

    def access_tokens(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[AccessTokenView]:
        """Return a page of tokens, newest first. Raises InvalidArgument for a cursor."""

    def create_access_token(
        self, principal: str, role: RoleName, *, groups: Sequence[str] | None = None, ttl_s: float
    ) -> CreatedAccessToken:
        """Create a token, for all agents or for those in `groups`; its text is only in this answer.

        Raises InvalidName and InvalidArgument.
        """

    def revoke_access_token(self, token_id: str) -> AccessTokenView:
        """Revoke a token. Raises UnknownAccessToken, also for one that is revoked."""


class OperatorCertificates(Protocol):
    """The certificates of operators; what makes one needs the authority. Every method may raise LedgerError."""

    def operator_certificates(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperatorCertificateView]:
        """Return a page of certificates, newest first. Raises InvalidArgument for a cursor."""

    def revoke_operator_certificate(self, certificate_id: str) -> OperatorCertificateView:
        """Revoke a certificate. Raises UnknownOperatorCertificate, also for one that is revoked."""
