"""What the enrolment server answers, apart from HTTP."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from broker.contract.enrolment import AuthorityResponse, EnrollRequest, EnrollResponse, RenewRequest
from broker.contract.enrolment_token import EnrolmentToken
from broker.contract.topics import InvalidName, check_agent_name
from broker.enrolment.store import EnrolmentRevoked, EnrolmentStore, IssuedCertificate
from broker.enrolment.tokens import TokenRefused
from broker.pki.authority import CertificateAuthority
from broker.pki.verification import check_possession, read_request
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "EnrolmentPolicy",
    "EnrolmentService",
]


@dataclass(frozen=True)
class EnrolmentPolicy:
    """What every agent is told, for how long its certificates hold, and the server's own name, which no agent gets."""

    broker: str
    topic_prefix: str
    lifetime: timedelta
    client_id: str


class EnrolmentService:
    """Exchanges tokens, and certificates of its own, for certificates. Any thread may call it.

    `is_listed` says whether the revocation list names a serial number: a restored ledger may have forgotten it.
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        keys: SigningKeyStore,
        enrolments: EnrolmentStore,
        terms: EnrolmentPolicy,
        is_listed: Callable[[int], bool],
    ) -> None:
        self._authority = authority
        self._keys = keys
        self._enrolments = enrolments
        self._terms = terms
        self._is_listed = is_listed

    def authority(self) -> AuthorityResponse:
        """Return the authority's certificate, which the asker must compare with the fingerprint in its token."""
        return AuthorityResponse(self._authority.certificate)

    def enroll(self, request: EnrollRequest) -> EnrollResponse:
        """Exchange a token for a certificate.

        Raises InvalidName, InvalidToken and CertificateError for what cannot be read; TokenRefused, TokenUsed and
        EnrolmentRevoked for a token that does not pay for this; LedgerError.
        """
        agent, token = check_agent_name(request.agent), EnrolmentToken.parse(request.token)
        if token.fingerprint != self._authority.fingerprint:
            raise TokenRefused(
                "The token is of another authority: create one with `acm token create` on this server.",
                code="token_of_another_authority",
            )
        self._refuse_own_name(agent)
        key = read_request(request.csr, agent)
        issue = partial(self._authority.issue, agent, key, self._terms.lifetime)
        return self._answer(self._enrolments.enroll(agent, token, key, issue))

    def renew(self, request: RenewRequest) -> EnrollResponse:
        """Exchange a valid certificate, whose key has signed the request, for a new one in the same name.

        Raises IdentityError, InvalidName, CertificateError, EnrolmentRevoked, LedgerError, AuthorityError.
        """
        identity = self._authority.identify(request.certificate)
        check_possession(identity, request.csr, request.signature)
        self._refuse_own_name(identity.agent)
        if self._is_listed(identity.serial):
            raise EnrolmentRevoked(
                "The certificate is on the revocation list: enroll again with a new token.", code="certificate_revoked"
            )
        key = read_request(request.csr, identity.agent)
        issue = partial(self._authority.issue, identity.agent, key, self._terms.lifetime)
        return self._answer(self._enrolments.renew(identity.serial, key, issue))

    def _refuse_own_name(self, agent: str) -> None:
        if agent == self._terms.client_id:
            raise InvalidName(
                f"{agent!r} is the server's own name at the broker: no agent may have it.", code="name_of_the_server"
            )

    def _answer(self, issued: IssuedCertificate) -> EnrollResponse:
        trusted = self._keys.update
        return EnrollResponse(
            agent=issued.agent,
            enrolment_id=issued.enrolment_id,
            certificate=issued.certificate,
            ca=self._authority.certificate,
            broker=self._terms.broker,
            topic_prefix=self._terms.topic_prefix,
            signing_keys=trusted.keys,
            not_after=issued.not_after,
            signing_keys_version=trusted.version,
        )
