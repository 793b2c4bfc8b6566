"""Both ends of an enrolment without a network: the agent's key, request and proof, and what the server records."""

import base64
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.app.factories import open_database
from broker.contract.enrolment import EnrollRequest, RenewRequest
from broker.contract.enrolment_token import EnrolmentToken
from broker.enrolment.sessions import RevokedSessions
from broker.enrolment.store import EnrolmentStore, IssuedCertificate
from broker.enrolment.tokens import TokenStore
from broker.pki.authority import CertificateAuthority, create_authority

HOUR = timedelta(hours=1)
MONTH = timedelta(days=30)


def request(key: Any, *names: str) -> str:
    """Return a certificate signing request for these common names, in PEM."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    algorithm = None if isinstance(key, Ed25519PrivateKey) else SHA256()
    signed = x509.CertificateSigningRequestBuilder(subject).sign(key, algorithm)
    return signed.public_bytes(Encoding.PEM).decode()


class EnrollingAgent:
    """Plays an agent with one key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = Ed25519PrivateKey.generate()

    def enroll(self, token: str) -> EnrollRequest:
        return EnrollRequest(token, self.name, request(self.key, self.name))

    def renew(self, certificate: str, new_key: Ed25519PrivateKey) -> RenewRequest:
        """Ask for a certificate of a new key, signed with the present one."""
        csr = request(new_key, self.name)
        return RenewRequest(certificate, csr, base64.b64encode(self.key.sign(csr.encode())).decode())


class EnrolmentBackend:
    """An authority, and the tokens and enrolments in the database at `url`; what an enrolment server works on."""

    def __init__(self, authority: CertificateAuthority, url: str, now: Callable[[], datetime]) -> None:
        self.authority = authority
        self.url = url
        self.database = open_database(url)
        self.tokens = TokenStore(self.database, now=now)
        self.enrolments = EnrolmentStore(self.database, now=now)
        self.sessions = RevokedSessions(self.database, now=now)

    @classmethod
    def create(cls, directory: Path, now: Callable[[], datetime], url: str | None = None) -> "EnrolmentBackend":
        """Make a new authority in `directory`/ca, with the database beside it unless its URL is given."""
        create_authority(directory / "ca", "test", now())
        url = url or f"sqlite:///{directory}/ledger.db"
        return cls(CertificateAuthority(directory / "ca", now=now), url, now)

    def token(self, agent: str = "web-01", ttl: timedelta = HOUR) -> EnrolmentToken:
        """Return a new token that is recorded."""
        token = EnrolmentToken(secrets.token_urlsafe(32), self.authority.fingerprint)
        self.tokens.add(agent, token, ttl)
        return token

    def enroll(
        self,
        agent: str = "web-01",
        key: Ed25519PrivateKey | None = None,
        token: EnrolmentToken | None = None,
        lifetime: timedelta = MONTH,
    ) -> IssuedCertificate:
        """Enroll the agent, by default with a new key and a new token."""
        public = (key or Ed25519PrivateKey.generate()).public_key()
        issue = partial(self.authority.issue, agent, public, lifetime)
        return self.enrolments.enroll(agent, token or self.token(agent), public, issue)

    def renew(self, issued: IssuedCertificate, key: Ed25519PrivateKey) -> IssuedCertificate:
        """Renew a certificate with this key."""
        serial = x509.load_pem_x509_certificate(issued.certificate.encode()).serial_number
        issue = partial(self.authority.issue, issued.agent, key.public_key(), MONTH)
        return self.enrolments.renew(serial, key.public_key(), issue)
