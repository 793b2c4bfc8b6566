"""The content of a certificate revocation list: an X.509 CRL as RFC 5280 section 5 profiles it. No I/O, no clock."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from broker.pki.certificates import Issuer

__all__ = [
    "RevocationList",
    "RevocationReason",
    "RevokedCertificate",
    "end_of_lists",
    "ends_of_lists",
    "read_revocation_list",
    "read_revocation_lists",
    "revocation_list",
    "serials_on_lists",
]


_END = b"-----END X509 CRL-----"
_CLOCK_SKEW = timedelta(days=1)  # a broker whose clock is behind rejects every client while thisUpdate is in the future


class RevocationReason(StrEnum):
    """Why an enrolment was revoked: some of the values of CRLReason (RFC 5280 section 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "key-compromise"
    SUPERSEDED = "superseded"
    CESSATION = "cessation-of-operation"


_REASON_FLAGS = {
    RevocationReason.KEY_COMPROMISE: x509.ReasonFlags.key_compromise,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.CESSATION: x509.ReasonFlags.cessation_of_operation,
}


@dataclass(frozen=True)
class RevokedCertificate:
    """One entry of the revocation list."""

    serial: int
    revoked_at: datetime
    reason: RevocationReason


@dataclass(frozen=True)
class RevocationList:
    """The content of a revocation list; `until` is its nextUpdate.

    It is not `complete` if it was read from a file that lacks the list of one of several issuers.
    """

    entries: tuple[RevokedCertificate, ...]
    until: datetime
    complete: bool = True


def revocation_list(
    issuer: Issuer, revoked: Iterable[RevokedCertificate], number: int, now: datetime, lifetime: timedelta
) -> bytes:
    """Return a signed revocation list in PEM. `number`, its CRLNumber, must exceed those of all earlier lists."""
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, now - _CLOCK_SKEW, now + lifetime)
    builder = builder.add_extension(issuer.key_identifier, critical=False)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for entry in revoked:
        builder = builder.add_revoked_certificate(_revoked(entry))
    return builder.sign(issuer.key, None).public_bytes(Encoding.PEM)


def read_revocation_list(pem: bytes, issuer: Issuer) -> RevocationList | None:
    """Return the content of a revocation list (PEM), or None if it is not a list of this issuer."""
    try:
        found = x509.load_pem_x509_crl(pem)
        if not found.is_signature_valid(issuer.key.public_key()) or found.next_update_utc is None:
            return None
        return RevocationList(tuple(_entry(entry) for entry in found), found.next_update_utc)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


def read_revocation_lists(pem: bytes, issuers: Sequence[Issuer]) -> RevocationList | None:
    """Return the content of several lists in one file as one, or None if there is none of these issuers."""
    lists = [text + _END for text in pem.split(_END)[:-1]]
    found = [[it for text in lists if (it := read_revocation_list(text, issuer)) is not None] for issuer in issuers]
    read = [last for of_issuer in found for last in of_issuer[-1:]]
    if not read:
        return None
    entries = {entry.serial: entry for one in read for entry in one.entries}
    return RevocationList(tuple(entries.values()), min(one.until for one in read), len(read) == len(issuers))


def ends_of_lists(pem: bytes) -> list[datetime]:
    """Return nextUpdate of each list in a file, without a check of signatures; raises ValueError for a damaged one."""
    ends = [x509.load_pem_x509_crl(text + _END).next_update_utc for text in pem.split(_END)[:-1]]
    return [end for end in ends if end is not None]


def serials_on_lists(pem: bytes) -> frozenset[int]:
    """Return the serial numbers on the lists in a file, without a check of signatures; raises ValueError if damaged."""
    return frozenset(entry.serial_number for one in _lists_in(pem) for entry in one)


def end_of_lists(pem: bytes) -> datetime | None:
    """Return when the first of the lists in a file ends, without a check of signatures; ValueError if damaged."""
    return min((one.next_update_utc for one in _lists_in(pem) if one.next_update_utc), default=None)


def _lists_in(pem: bytes) -> list[x509.CertificateRevocationList]:
    return [x509.load_pem_x509_crl(text + _END) for text in pem.split(_END)[:-1]]


def _revoked(entry: RevokedCertificate) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(entry.serial, entry.revoked_at)
    if entry.reason in _REASON_FLAGS:  # RFC 5280: no extension for "unspecified"
        builder = builder.add_extension(x509.CRLReason(_REASON_FLAGS[entry.reason]), critical=False)
    return builder.build()


def _entry(entry: x509.RevokedCertificate) -> RevokedCertificate:
    flags = {extension.value.reason for extension in entry.extensions if isinstance(extension.value, x509.CRLReason)}
    reasons = [reason for reason, flag in _REASON_FLAGS.items() if flag in flags]
    return RevokedCertificate(
        entry.serial_number, entry.revocation_date_utc, reasons[0] if reasons else RevocationReason.UNSPECIFIED
    )
