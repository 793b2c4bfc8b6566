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
    "MAX_LIFETIME",
    "CertificateError",
    "Issuer",
    "authority_certificate",
    "canary_certificate",
    "client_certificate",
    "key_fingerprint",
    "server_account_certificate",
    "server_certificate",
]


MAX_LIFETIME = timedelta(days=366)  # of an agent's certificate; entries of a list are kept by it
CANARY = "_canary"  # what an evictor is called at the broker: no agent and no server can have this name
_AUTHORITY_LIFETIME = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=5)
_MAX_NAME_LENGTH = 64  # ub-common-name of RFC 5280
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_AGENT_URI = "urn:acm:agent:"
_SERVER_URI = "urn:acm:server:"
_CANARY_URI = "urn:acm:canary"


class CertificateError(BrokerError):
    """A certificate or a request for one cannot be used, or must not be issued."""


@dataclass(frozen=True)
class Issuer:
    """An authority that can sign: its certificate and the key of it."""

    certificate: x509.Certificate
    key: Ed25519PrivateKey

    @property
    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """The extension that names the issuer's key in all that it signs (RFC 5280 section 4.2.1.1)."""
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())


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
    builder = builder.add_extension(issuer.key_identifier, critical=False)
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


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _HOST_NAME.fullmatch(host.lower()):
        raise CertificateError(f"{host[:80]!r} is neither a host name nor an IP address.")
    return x509.DNSName(host.lower())
