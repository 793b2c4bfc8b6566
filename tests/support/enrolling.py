"""What an agent does to enroll: a key, a request, a proof."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.contract.enrolment import EnrollRequest, RenewRequest


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
