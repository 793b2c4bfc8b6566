"""The operations of the enrolment server, without HTTP.

They are those of EST (RFC 7030): cacerts, simpleenroll, simplereenroll. docs/protocol.md, "Enrolment".
"""

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
from broker.pki.verification import check_possession, verify_csr
from broker.signing.key_store import SigningKeyStore

__all__ = [
    "EnrolmentPolicy",
    "EnrolmentService",
]


@dataclass(frozen=True)
class EnrolmentPolicy:
    """What every enrolment gets: the broker's URL, the topic prefix, the lifetime of certificates.

    A certificate can be renewed for `grace` after its expiry, see docs/security.md. `client_id` is the server's own
    name at the broker, which no agent may have.
    """

    broker: str
    topic_prefix: str
    lifetime: timedelta
    client_id: str
    grace: timedelta = timedelta()


class EnrolmentService:
    """Issues certificates for tokens, and for certificates that it issued before. Thread-safe.

    `is_listed` returns whether the revocation list has a serial number; a ledger restored from a backup may lack it.
    During a rollover a token's authority issues the certificate, and the successor renews it, once the broker accepts
    its certificates (`successor_accepted`).
    """

    def __init__(
        self,
        authority: CertificateAuthority,
        keys: SigningKeyStore,
        enrolments: EnrolmentStore,
        policy: EnrolmentPolicy,
        is_listed: Callable[[int], bool],
        successor_accepted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._authority = authority
        self._keys = keys
        self._enrolments = enrolments
        self._policy = policy
        self._is_listed = is_listed
        self._successor_accepted = successor_accepted

    def authority(self) -> AuthorityResponse:
        """Return the authority's certificate. The client must compare it with the fingerprint in its token."""
        return AuthorityResponse(self._authority.certificate)

    def enroll(self, request: EnrollRequest) -> EnrollResponse:
        """Exchange a token for a certificate.

        Raises InvalidName, InvalidToken and CertificateError for malformed members, TokenRefused, TokenUsed and
        EnrolmentRevoked for a token that is not valid for this enrolment, and LedgerError.
        """
        agent, token = check_agent_name(request.agent), EnrolmentToken.parse(request.token)
        if token.fingerprint != self._authority.fingerprint:
            raise TokenRefused(
                "The token is of another authority: create one with `acm token create` on this server.",
                code="token_of_another_authority",
            )
        self._refuse_server_name(agent)
        key = verify_csr(request.csr, agent)
        issue = partial(self._authority.issue, agent, key, self._policy.lifetime)
        return self._response(self._enrolments.enroll(agent, token, key, issue))

    def renew(self, request: RenewRequest) -> EnrollResponse:
        """Exchange a certificate, whose key has signed the request, for a new one with the same name.

        It must be valid, or have expired within the policy's grace. Raises IdentityError, InvalidName,
        CertificateError, EnrolmentRevoked, RenewedTooOften, LedgerError, AuthorityError.
        """
        identity = self._authority.identify(request.certificate, self._policy.grace)
        check_possession(identity, request.csr, request.signature)
        self._refuse_server_name(identity.agent)
        if self._is_listed(identity.serial):
            raise EnrolmentRevoked(
                "The certificate is on the revocation list: enroll again with a new token.", code="certificate_revoked"
            )
        key = verify_csr(request.csr, identity.agent)
        is_moved = self._authority.is_of_successor(request.certificate) or self._successor_accepted()
        issue = partial(self._authority.issue, identity.agent, key, self._policy.lifetime, by_successor=is_moved)
        return self._response(self._enrolments.renew(identity.serial, key, issue))

    def _refuse_server_name(self, agent: str) -> None:
        if agent == self._policy.client_id:
            raise InvalidName(
                f"{agent!r} is the server's own name at the broker: no agent may have it.", code="name_of_the_server"
            )

    def _response(self, issued: IssuedCertificate) -> EnrollResponse:
        trusted = self._keys.update
        return EnrollResponse(
            agent=issued.agent,
            enrolment_id=issued.enrolment_id,
            certificate=issued.certificate,
            ca=self._authority.trusted_by_holder(issued.certificate),
            broker=self._policy.broker,
            topic_prefix=self._policy.topic_prefix,
            signing_keys=trusted.keys,
            not_after=issued.not_after,
            signing_keys_version=trusted.version,
        )
