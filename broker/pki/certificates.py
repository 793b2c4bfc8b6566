"""The certificates that the authority issues: RFC 5280 profiles with Ed25519 keys (RFC 8410). No I/O, no clock."""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.contract.enrolment_token import fingerprint_of
from broker.contract.topics import check_agent_name, check_name
from broker.errors import BrokerError

__all__ = [
    "CANARY",
    "DOCTOR",
    "MAX_LIFETIME",
    "OPERATOR",
    "CertificateError",
    "Issuer",
    "agent_certificate",
    "authority_certificate",
    "canary_certificate",
    "doctor_certificate",
    "host_certificate",
    "key_fingerprint",
    "like_certificate",
    "operator_certificate",
    "server_account_certificate",
]


MAX_LIFETIME = timedelta(
    days=366
)  # of an agent's or operator's certificate; revocation lists keep foreign entries as long
CANARY = "_canary"  # the client id of the canary's certificate; not a valid name of an agent or a server
DOCTOR = "_doctor"  # as that, of `acm doctor`
OPERATOR = "_operator"  # as that, of each operator: at a broker, none of them has the name of an agent or a server
_AUTHORITY_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_MAX_NAME_LENGTH = 64  # ub-common-name of RFC 5280
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_AGENT_URI = "urn:acm:agent:"
_SERVER_URI = "urn:acm:server:"
_CANARY_URI = "urn:acm:canary"
_DOCTOR_URI = "urn:acm:doctor"
_OPERATOR_URI = "urn:acm:operator:"


class CertificateError(BrokerError):
    """A certificate signing request cannot be used, or a certificate must not be issued."""

    code = "certificate_error"


@dataclass(frozen=True)
class Issuer:
    """An authority that can sign: its certificate and the private key."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The extension that names the issuer's key in all that it signs (RFC 5280 section 4.2.1.1)."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


def authority_certificate(name: str, key: Ed25519PrivateKey, now: datetime) -> x509.Certificate:
    """Return a self-signed root certificate, valid for ten years, that may sign end entity certificates and CRLs only.

    Raises CertificateError.
    """
    if not 1 <= len(name) <= _MAX_NAME_LENGTH:
        raise CertificateError(
            f"The authority's name must have 1 to {_MAX_NAME_LENGTH} characters.", code="bad_authority_name"
        )
    public_key = key.public_key()
    builder = _builder(_name(name), _name(name), public_key, now, now + _AUTHORITY_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
    return builder.sign(key, None)


def agent_certificate(
    issuer: Issuer, agent: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return an agent's certificate. Its subject alternative name (SAN) is a URI, so that it is not valid for a host.

    Raises CertificateError and InvalidName.
    """
    _check_lifetime(lifetime, "An agent's")
    names = [x509.UniformResourceIdentifier(_AGENT_URI + check_agent_name(agent))]
    return _issue(issuer, agent, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def canary_certificate(
    issuer: Issuer, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return the canary: a certificate that is revoked at once; a broker that rejects it has loaded the new CRL.

    Raises CertificateError.
    """
    names = [x509.UniformResourceIdentifier(_CANARY_URI)]
    return _issue(issuer, CANARY, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def doctor_certificate(
    issuer: Issuer, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta, serial: int | None = None
) -> x509.Certificate:
    """Return a certificate for trying what a broker refuses an agent, in a name that no agent has.

    With the `serial` of a revoked certificate, a broker that uses the revocation list refuses it, without an entry for
    the test. Raises CertificateError.
    """
    names = [x509.UniformResourceIdentifier(_DOCTOR_URI)]
    return _issue(issuer, DOCTOR, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime, serial)


def server_account_certificate(
    issuer: Issuer, client_id: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return the certificate that a server connects to the broker with, issued to its client id.

    Raises CertificateError and InvalidName.
    """
    names = [x509.UniformResourceIdentifier(_SERVER_URI + check_name(client_id, "a server's client id"))]
    return _issue(issuer, client_id, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def operator_certificate(
    issuer: Issuer, operator: str, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate for the API's clients. Its common name is `OPERATOR`; the alternative name has their own.

    Raises CertificateError and InvalidName.
    """
    _check_lifetime(lifetime, "An operator's")
    names = [x509.UniformResourceIdentifier(_OPERATOR_URI + check_name(operator, "an operator's name"))]
    return _issue(issuer, OPERATOR, names, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, now, lifetime)


def host_certificate(
    issuer: Issuer, hosts: Iterable[str], public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a TLS server's certificate for its host names and IP addresses; raises CertificateError."""
    names = [_host(host) for host in hosts]
    common_name = str(names[0].value)[:_MAX_NAME_LENGTH]
    return _issue(issuer, common_name, names, ExtendedKeyUsageOID.SERVER_AUTH, public_key, now, lifetime)


def like_certificate(
    issuer: Issuer, certificate: x509.Certificate, public_key: Ed25519PublicKey, now: datetime, lifetime: timedelta
) -> x509.Certificate:
    """Return a certificate for the same names and purpose as this one, which was issued here before, for another key.

    Raises CertificateError.
    """
    try:
        extensions = certificate.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (purpose,) = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        (common_name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CertificateError(
            "The certificate was not made by acm, so it is not renewed: it needs alternative names, one purpose and "
            "one common name.",
            code="certificate_not_renewable",
        ) from error
    return _issue(issuer, str(common_name.value), names, purpose, public_key, now, lifetime)


def key_fingerprint(key: Ed25519PublicKey) -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo in DER, in lower-case hexadecimal."""
    return fingerprint_of(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _check_lifetime(lifetime: timedelta, whose: str) -> None:
    if lifetime > MAX_LIFETIME:
        raise CertificateError(
            f"{whose} certificate may be valid for at most {MAX_LIFETIME.days} days.", code="lifetime_too_long"
        )


def _issue(
    issuer: Issuer,
    common_name: str,
    names: Iterable[x509.GeneralName],
    purpose: x509.ObjectIdentifier,
    public_key: Ed25519PublicKey,
    now: datetime,
    lifetime: timedelta,
    serial: int | None = None,
) -> x509.Certificate:
    end = issuer.certificate.not_valid_after_utc
    if now >= end:
        raise CertificateError(
            f"The authority's own certificate expired on {end:%Y-%m-%d}: create a new authority.",
            code="authority_expired",
        )
    builder = _builder(
        _name(common_name), issuer.certificate.subject, public_key, now, min(now + lifetime, end), serial
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(issuer.key_identifier, critical=False)
    return builder.sign(issuer.key, None)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: Ed25519PublicKey,
    now: datetime,
    end: datetime,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(issuer, subject, public_key, serial or x509.random_serial_number())
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


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host.lower()):
        raise CertificateError(f"{host[:80]!r} is neither a host name nor an IP address.", code="not_a_host")
    return x509.DNSName(host.lower())
