"""Validates the response of an enrolment server: it must be for our name and key, unexpired, and from its authority."""

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    "CertificateRequest",
    "fingerprint_of_pem",
    "first_certificate",
    "validate_response",
]


_ISSUERS_CLOCK_SKEW = timedelta(minutes=5)
_NOT_A_CERTIFICATE = "The enrolment server's response is not a PEM certificate."


@dataclass(frozen=True)
class CertificateRequest:
    """A request for a certificate to one enrolment server. `token` is the hash of the token's secret."""

    server: str
    agent: str
    key: Ed25519PrivateKey
    token: str


def validate_response(response: EnrollResponse, request: CertificateRequest, now: datetime) -> CertifiedGrant:
    """Return the grant in this response; raises EnrolmentError if it does not answer the request or is not valid."""
    certificate, ca = _read(response.certificate), _read(response.ca)
    agent = request.agent
    if response.agent != agent or _subject(certificate) != ([agent], request.key.public_key()):
        raise EnrolmentError(
            f"The enrolment server's certificate is not for {agent} and its key.", code="wrong_subject"
        )
    if certificate.not_valid_after_utc <= now:
        raise EnrolmentError(
            "The enrolment server's certificate for the agent has expired. Check both clocks.",
            code="certificate_expired",
        )
    _check_issuer(certificate, ca)
    _check_broker(response)
    grant = Grant(
        agent,
        response.enrolment_id,
        request.server,
        response.broker,
        response.topic_prefix,
        response.signing_keys,
        _issued_at(certificate),
        certificate.not_valid_after_utc,
        request.token,
        response.signing_keys_version,
    )
    GrantTrust(grant)  # raises if a signing key cannot be used
    return CertifiedGrant(grant, fingerprint_of_pem(response.certificate)[:32], response.certificate, response.ca)


def fingerprint_of_pem(certificate: str) -> str:
    """Return the fingerprint of a certificate in PEM; raises EnrolmentError."""
    return fingerprint_of(_read(certificate).public_bytes(Encoding.DER))


def first_certificate(text: str) -> str:
    """Return the first certificate of a text in PEM, without all that follows it; raises EnrolmentError."""
    return _read(text).public_bytes(Encoding.PEM).decode()


def _subject(certificate: x509.Certificate) -> tuple[list[str | bytes], object]:
    """Return the common names and the key, which the library parses only now; raises EnrolmentError."""
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return [name.value for name in names], certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentError(_NOT_A_CERTIFICATE, code="not_a_certificate") from error


def _issued_at(certificate: x509.Certificate) -> datetime:
    """Return when it was issued, by the server's clock, which sets `not_before` a little earlier; ours may be wrong."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + _ISSUERS_CLOCK_SKEW if end - begin > _ISSUERS_CLOCK_SKEW else begin


def _check_issuer(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise EnrolmentError(
            "The enrolment server's certificate for the agent was issued by another authority.", code="wrong_authority"
        ) from error


def _check_broker(response: EnrollResponse) -> None:
    try:
        parse_url(response.broker)
        Topics(response.topic_prefix)
    except (MqttError, InvalidName) as error:
        raise EnrolmentError(
            f"The enrolment server names a broker that cannot be used: {error}", code="invalid_broker"
        ) from error


def _read(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise EnrolmentError(_NOT_A_CERTIFICATE, code="not_a_certificate") from error
