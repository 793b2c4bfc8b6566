"""Checks what an agent sends to get a certificate: its request, its certificate, and the proof that it has the key."""

import base64
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

from broker.errors import BrokerError
from broker.pki.certificates import CertificateError, Issuer

__all__ = [
    "Identity",
    "IdentityError",
    "check_possession",
    "read_identity",
    "read_request",
]


class IdentityError(BrokerError):
    """A certificate does not show who sent it: it is not ours, not valid now, or its key is not the sender's."""


@dataclass(frozen=True)
class Identity:
    """Whom a certificate of ours speaks for."""

    agent: str
    serial: int
    key: Ed25519PublicKey


def read_request(pem: str, agent: str) -> Ed25519PublicKey:
    """Return the key that a certificate signing request proves to hold; nothing else in it is believed.

    Raises CertificateError unless it is signed by an Ed25519 key and made out to this agent.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key, signed = request.public_key(), request.is_signature_valid
        names = _common_names(request.subject)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError("`csr` is not a certificate signing request (PKCS#10) in PEM.") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("The request's key must be an Ed25519 key.")
    if not signed:
        raise CertificateError("The request is not signed by the key that it holds.")
    if names != [agent]:
        raise CertificateError(f"The request's common name must be {agent!r} and nothing else.")
    return key


def read_identity(certificate: str, issuer: Issuer, now: datetime) -> Identity:
    """Return whose certificate (PEM) this is, if this issuer made it and it is valid now; else raise IdentityError.

    Whether it was revoked is not looked at, nor whether the sender holds its key.
    """
    try:
        read = x509.load_pem_x509_certificate(certificate.encode())
        key = read.public_key()
        read.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise IdentityError("`certificate` is not a certificate of this authority in PEM.") from error
    if not read.not_valid_before_utc <= now < read.not_valid_after_utc:
        raise IdentityError("The certificate is not valid now: enroll the agent anew with a token.")
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("The certificate's key is not an Ed25519 key.")
    return Identity(_common_names(read.subject)[0], read.serial_number, key)


def check_possession(identity: Identity, csr: str, signature: str) -> None:
    """Raise IdentityError unless `signature` (base64) is that of the bytes of `csr` by the identity's key."""
    try:
        identity.key.verify(base64.b64decode(signature, validate=True), csr.encode())
    except (ValueError, InvalidSignature) as error:
        raise IdentityError("`signature` is not that of `csr` by the certificate's key, in base64.") from error


def _common_names(name: x509.Name) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
