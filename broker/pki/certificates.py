"""What the authority signs, and what it believes of a request: RFC 5280 profiles with Ed25519 keys (RFC 8410).

Nothing here reads a file or a clock.
"""

import base64
import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.contract.enrolment_token import fingerprint_of
from broker.contract.topics import check_agent_name, check_name
from broker.errors import BrokerError

__all__ = [
    "CANARY",
    "MAX_LIFETIME",
    "CertificateError",
    "Identity",
    "IdentityError",
    "Issuer",
    "RevocationList",
    "RevocationReason",
    "RevokedCertificate",
    "authority_certificate",
    "canary_certificate",
    "check_possession",
    "client_certificate",
    "key_fingerprint",
    "read_identity",
    "read_request",
    "read_revocation_list",
    "revocation_list",
    "server_account_certificate",
    "server_certificate",
]


MAX_LIFETIME = timedelta(days=366)  # of an agent's certificate; entries of a list are kept by it
CANARY = "_canary"  # what an evictor is called at the broker: no agent and no server can have this name
_AUTHORITY_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_LIST_SKEW = timedelta(days=1)  # a list of the future lets a broker refuse everybody
_MAX_NAME_LENGTH = 64  # ub-common-name of RFC 5280
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_AGENT_URI = "urn:acm:agent:"
_SERVER_URI = "urn:acm:server:"
_CANARY_URI = "urn:acm:canary"


class CertificateError(BrokerError):
    """A certificate or a request for one cannot be used, or must not be issued."""


class IdentityError(BrokerError):
    """A certificate does not show who sent it: it is not ours, not valid now, or its key is not the sender's."""


class RevocationReason(StrEnum):
    """Why an enrolment was revoked; a part of the CRLReason of RFC 5280 section 5.3.1."""

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
    """What a revocation list says: whom it names, and until when it holds."""

    entries: tuple[RevokedCertificate, ...]
    until: datetime


@dataclass(frozen=True)
class Issuer:
    """An authority that can sign: its certificate and the key of it."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey


@dataclass(frozen=True)
class Identity:
    """Whom a certificate of ours speaks for."""

    agent: str
    serial: int
    key: Ed25519PublicKey


def authority_certificate(name: str, key: Ed25519PrivateKey, now: datetime) -> x509.Certificate:
    """Return a self-signed root for ten years that may issue certificates for end entities only."""
    if not 1 <= len(name) <= _MAX_NAME_LENGTH:
        raise CertificateError(f"An authority's name has 1 to {_MAX_NAME_LENGTH} characters.")
    public_key = key.public_key()
    builder = _builder(_name(name), _name(name), public_key, now, now + _AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
    return builder.sign(key, None)


def client_certificate(
    issuer: Issuer, agent: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return an agent's certificate. Its alternative name is a URI, so that it is never taken for that of a host."""
    if lifetime > MAX_LIFETIME:
        raise CertificateError(f"An agent's certificate is good for {MAX_LIFETIME.days} days at most.")
    names = [x509.UniformResourceIdentifier(_AGENT_URI + check_agent_name(agent))]
    return _issue(issuer, agent, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def canary_certificate(
    issuer: Issuer, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate to be revoked, by which one sees that a broker has read the list; its name is CANARY."""
    names = [x509.UniformResourceIdentifier(_CANARY_URI)]
    return _issue(issuer, CANARY, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def server_account_certificate(
    issuer: Issuer, client_id: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return the certificate by which a server is known at the broker, under its client id."""
    names = [x509.UniformResourceIdentifier(_SERVER_URI + check_name(client_id, "a server's client id"))]
    return _issue(issuer, client_id, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def server_certificate(
    issuer: Issuer, hosts: Iterable[str], public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate for the host names and IP addresses at which a server is reached."""
    names = [_host(host) for host in hosts]
    common_name = str(names[0].value)[:_MAX_NAME_LENGTH]
    return _issue(issuer, common_name, names, ExtendedKeyUsageOID.SERVER_AUTH, public_key, now, lifetime)


def revocation_list(
    issuer: Issuer, revoked: Iterable[RevokedCertificate], number: int, now: datetime, lifetime: timedelta
) -> bytes:
    """Return the revocation list in PEM; `number` must be greater than that of every earlier list."""
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, now - _LIST_SKEW, now + lifetime)
    builder = builder.add_extension(_issuer_identifier(issuer), critical=False)
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    for entry in revoked:
        builder = builder.add_revoked_certificate(_revoked(entry))
    return builder.sign(issuer.key, None).public_bytes(Encoding.PEM)


def read_revocation_list(pem: bytes, issuer: Issuer) -> RevocationList | None:
    """Return what a list (PEM) says, or None if it is none of this issuer."""
    try:
        found = x509.load_pem_x509_crl(pem)
        if not found.is_signature_valid(issuer.key.public_key()) or found.next_update_utc is None:
            return None
        return RevocationList(tuple(_entry(entry) for entry in found), found.next_update_utc)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None


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


def key_fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo in DER, in lower-case hexadecimal."""
    return fingerprint_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _issue(
    issuer: Issuer,
    common_name: str,
    names: Iterable[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    public_key: Ed25519PublicKey,
    now: datetime,
    lifetime: timedelta,
) -> x509.Certificate:
    end = issuer.certificate.not_valid_after_utc
    if now >= end:
        raise CertificateError(f"The authority's own certificate ended on {end:%Y-%m-%d}: make a new authority.")
    builder = _builder(_name(common_name), issuer.certificate.subject, public_key, now, min(now + lifetime, end))
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(_issuer_identifier(issuer), critical=False)
    return builder.sign(issuer.key, None)


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: Ed25519PublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
    builder = builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(issuer: Issuer) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def _revoked(entry: RevokedCertificate) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder(entry.serial, entry.revoked_at)
    if entry.reason in _REASON_FLAGS:  # RFC 5280 wants no extension for "unspecified"
        builder = builder.add_extension(x509.CRLReason(_REASON_FLAGS[entry.reason]), critical=False)
    return builder.build()


def _entry(entry: x509.RevokedCertificate) -> RevokedCertificate:
    flags = {extension.value.reason for extension in entry.extensions if isinstance(extension.value, x509.CRLReason)}
    reasons = [reason for reason, flag in _REASON_FLAGS.items() if flag in flags]
    return RevokedCertificate(
        entry.serial_number, entry.revocation_date_utc, reasons[0] if reasons else RevocationReason.UNSPECIFIED
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _common_names(name: x509.Name) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(NameOID.COMMON_NAME)]


def _host(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host.lower()):
        raise CertificateError(f"{host[:80]!r} is neither a host name nor an IP address.")
    return x509.DNSName(host.lower())
