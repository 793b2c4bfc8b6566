"""Who asks: the principal that the proof in a request is of."""

from collections.abc import Collection
from typing import Protocol

from broker.access.access_tokens import AccessTokenStore, is_access_token
from broker.access.grants import Credential, InvalidCredential
from broker.access.operator_certificates import OperatorCertificateStore
from broker.access.sessions import SessionStore

__all__ = [
    "Authentication",
    "ForeignTokens",
]


class ForeignTokens(Protocol):
    """Tokens that others have issued."""

    def credential_of(self, text: str) -> Credential:
        """Return the principal of the bearer of this token; raises InvalidCredential."""
        ...

    def is_valid(self, credential: Credential) -> bool:
        """Whether a credential is of such a token that is valid now."""
        ...


class Authentication:
    """Looks proofs of all kinds up: access tokens, the certificates of operators, `foreign` tokens, and sessions."""

    def __init__(
        self,
        tokens: AccessTokenStore,
        certificates: OperatorCertificateStore,
        sessions: SessionStore,
        foreign: ForeignTokens | None = None,
    ) -> None:
        self._tokens = tokens
        self._certificates = certificates
        self._sessions = sessions
        self._foreign = foreign

    def valid_among(self, credentials: Collection[Credential]) -> set[Credential]:
        """Return those of these credentials that are valid now; for a request that lasts. Raises LedgerError."""
        ids = {it.id for it in credentials}
        valid = self._tokens.valid_among(ids) | self._certificates.valid_among(ids)
        foreign, sessions = self._foreign, {it.session for it in credentials if it.session is not None}
        lasting = self._sessions.valid_among(sessions) if sessions else set()
        return {
            it
            for it in credentials
            if (it.session is None or it.session in lasting)
            and (it.id in valid or (foreign is not None and foreign.is_valid(it)))
        }

    def credential_of_session(self, secret: str) -> Credential:
        """Return the principal of a session of the page, which ends with the credential that began it.

        Raises InvalidCredential and LedgerError.
        """
        credential = self._sessions.credential_of(secret)
        if credential not in self.valid_among([credential]):
            raise InvalidCredential("What the session began with is not valid any more.", code="credential_revoked")
        return credential

    def credential_of(self, bearer: str | None, certificate: bytes | None) -> Credential:
        """Return the principal of a token, or else of the certificate (DER) of the connection.

        A token decides alone: a program that shows its certificate on all connections may ask for less with a token.
        Raises InvalidCredential, LedgerError, and what reading the issuer's keys raises.
        """
        if bearer is not None and self._foreign is not None and not is_access_token(bearer):
            return self._foreign.credential_of(bearer)
        if bearer is not None:
            return self._tokens.credential_of(bearer)
        if certificate is not None:
            return self._certificates.credential_of(certificate)
        raise InvalidCredential(
            "The request has no credential: send an access token as `Authorization: Bearer TOKEN`, or show the "
            "certificate of an operator.",
            code="missing_credential",
        )
