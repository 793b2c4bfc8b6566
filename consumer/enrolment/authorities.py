"""The authorities that an enrolled agent trusts, as its server changes them while it replaces its own."""

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment_token import fingerprint_of
from consumer.enrolment.store import EnrolmentDirectory
from consumer.errors import EnrolmentError

__all__ = [
    "trust_authorities",
]


def trust_authorities(enrolments: EnrolmentDirectory, certificates: Sequence[str]) -> tuple[str, ...]:
    """Trust these authorities (PEM) for the current enrolment, durably; return their fingerprints.

    Raises EnrolmentError, and then nothing has changed: the agent is not enrolled, one of them is not the certificate
    of an authority, or none of them has issued the agent's own certificate, whose renewal they could not verify.
    """
    current = enrolments.current()
    if current is None:
        raise EnrolmentError("This agent is not enrolled: it trusts no authorities.", code="not_enrolled")
    authorities = [_read_authority(certificate) for certificate in certificates]
    try:
        own = x509.load_pem_x509_certificate((current.directory / "certificate.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise EnrolmentError(
            f"The certificate in {current.directory} cannot be read: {error}.", code="enrolment_unusable"
        ) from error
    if not any(_is_issued_by(own, authority) for authority in authorities):
        raise EnrolmentError(
            "None of these authorities has issued the agent's certificate: it must be renewed first.",
            code="issuer_not_trusted",
        )
    enrolments.replace_authorities(
        current.directory.name, "".join(it.public_bytes(Encoding.PEM).decode() for it in authorities)
    )
    return tuple(fingerprint_of(it.public_bytes(Encoding.DER)) for it in authorities)


def _read_authority(pem: str) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion, x509.ExtensionNotFound) as error:
        raise EnrolmentError(
            f"A certificate of an authority cannot be read: {error}.", code="invalid_authority"
        ) from error
    if not is_authority:
        raise EnrolmentError("A certificate is not that of an authority.", code="invalid_authority")
    return certificate


def _is_issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True
