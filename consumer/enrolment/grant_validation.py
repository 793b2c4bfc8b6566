"""What an enrolment server grants, checked before it is believed: it must be ours, valid and well issued."""

from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.contract.enrolment import EnrollResponse
from broker.contract.enrolment_token import fingerprint_of
from broker.contract.topics import InvalidName, Topics
from broker.mqtt.address import MqttError, parse_url
from consumer.enrolment.store import CertifiedGrant, Grant
from consumer.enrolment.trusted_keys import GrantTrust
from consumer.errors import EnrolmentError

__all__ = [
    "fingerprint_of_pem",
    "granted_by",
]


_NO_CERTIFICATE = "The enrolment server answered with what is no certificate in PEM."


def granted_by(
    answer: EnrollResponse, server: str, agent: str, key: Ed25519PrivateKey, now: datetime, token: str
) -> CertifiedGrant:
    """Return the grant of this answer; raise EnrolmentError when it is not one for this agent and its key.

    `token` is the hash of the token's secret.
    """
    certificate, ca = _read(answer.certificate), _read(answer.ca)
    if answer.agent != agent or _holder(certificate) != ([agent], key.public_key()):
        raise EnrolmentError(f"The enrolment server answered with a certificate that is not for {agent} and its key.")
    if certificate.not_valid_after_utc <= now:
        raise EnrolmentError("The enrolment server answered with a certificate that has ended; look at both clocks.")
    _check_issuer(certificate, ca)
    _check_broker(answer)
    grant = Grant(
        agent,
        answer.enrolment_id,
        server,
        answer.broker,
        answer.topic_prefix,
        answer.signing_keys,
        now,
        certificate.not_valid_after_utc,
        token,
        answer.signing_keys_version,
    )
    GrantTrust(grant)
    return CertifiedGrant(grant, fingerprint_of_pem(answer.certificate)[:32], answer.certificate, answer.ca)


def fingerprint_of_pem(certificate: str) -> str:
    """Return the fingerprint of a certificate in PEM; raises EnrolmentError."""
    return fingerprint_of(_read(certificate).public_bytes(Encoding.DER))


def _holder(certificate: x509.Certificate) -> tuple[list[str | bytes], object]:
    """Return the common names and the key; both are parsed only when they are asked for."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [name.value for name in names], certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentError(_NO_CERTIFICATE) from error


def _check_issuer(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise EnrolmentError("The enrolment server answered with a certificate of another authority.") from error


def _check_broker(answer: EnrollResponse) -> None:
    try:
        parse_url(answer.broker)
        Topics(answer.topic_prefix)
    except (MqttError, InvalidName) as error:
        raise EnrolmentError(f"The enrolment server names a broker that cannot be used: {error}") from error


def _read(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise EnrolmentError(_NO_CERTIFICATE) from error
