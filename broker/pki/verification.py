"""Checks what an agent sends to get a certificate: its request, its certificate, and the proof that it has the key."""

import base64
from dataclasses import dataclass
from datetime import datetime, timedelta

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
    "is_issued_by",
    "verify_certificate",
    "verify_csr",
]


class IdentityError(BrokerError):
    """The certificate does not authenticate its sender: not of this authority, not valid now, or of another key."""

    code = "identity_error"


@dataclass(frozen=True)
class Identity:
    """The agent that a certificate of this authority was issued to."""

    agent: str
    serial: int
    key: Ed25519PublicKey


def verify_csr(pem: str, agent: str) -> Ed25519PublicKey:
    """Return the public key in a certificate signing request (PKCS#10, RFC 2986, in PEM); the rest is not used.

    Raises CertificateError unless the request is signed with that key (Ed25519) and its subject is this agent.
    """
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        key, signed = request.public_key(), request.is_signature_valid
        names = _common_names(request.subject)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise CertificateError(
            "`csr` is not a certificate signing request (PKCS#10) in PEM.", code="malformed_csr"
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("The key in `csr` is not an Ed25519 key.", code="csr_key_not_ed25519")
    if not signed:
        raise CertificateError("`csr` is not signed with the key that it contains.", code="csr_bad_signature")
    if names != [agent]:
        raise CertificateError(
            f"The subject of `csr` must be the common name {agent!r} and nothing else.", code="csr_wrong_subject"
        )
    return key


def is_issued_by(certificate: x509.Certificate, issuer: Issuer) -> bool:
    """Return whether the issuer has signed this certificate."""
    try:
        certificate.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def verify_certificate(certificate: str, issuer: Issuer, now: datetime, grace: timedelta) -> Identity:
    """Return the identity in a certificate (PEM); raises IdentityError unless it is of this issuer and valid now.

    One that expired within `grace` is accepted, too. Does not check that it was not revoked, nor that the sender has
    its key.
    """
    try:
        read = x509.load_pem_x509_certificate(certificate.encode())
        key = read.public_key()
        read.verify_directly_issued_by(issuer.certificate)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.InvalidVersion) as error:
        raise IdentityError(
            "`certificate` is not a certificate of this authority in PEM.", code="foreign_certificate"
        ) from error
    if not read.not_valid_before_utc <= now < read.not_valid_after_utc + grace:
        raise IdentityError(
            "The certificate has expired or is not valid yet: enroll the agent again with a new token.",
            code="certificate_not_valid_now",
        )
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("The certificate's key is not an Ed25519 key.", code="certificate_key_not_ed25519")
    return Identity(_common_names(read.subject)[0], read.serial_number, key)


def check_possession(identity: Identity, csr: str, signature: str) -> None:
    """Raise IdentityError unless `signature` (base64) is one of the bytes of `csr`, made with the identity's key."""
    try:
        identity.key.verify(base64.b64decode(signature, validate=True), csr.encode())
    except (ValueError, InvalidSignature) as error:
        raise IdentityError(
            "`signature` is not a signature of `csr` by the certificate's key, in base64.", code="bad_signature"
        ) from error


def _common_names(name: x509.Name) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]
