"""The profiles of what the authority issues, and what it refuses to certify."""

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.pki.certificates import (
    CertificateError,
    Issuer,
    authority_certificate,
    client_certificate,
    server_certificate,
)
from broker.pki.revocation_list import RevocationReason, RevokedCertificate, revocation_list
from broker.pki.verification import IdentityError, check_possession, read_identity, read_request
from tests.support.enrolling import EnrollingAgent, request

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def new_issuer() -> Issuer:
    key = Ed25519PrivateKey.generate()
    return Issuer(authority_certificate("the authority", key, NOW), key)


ISSUER = new_issuer()
AGENT = EnrollingAgent("web-01")


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def extension(certificate: Any, kind: type) -> Any:
    return certificate.extensions.get_extension_for_class(kind)


def test_the_authority_signs_end_entities_and_revocation_lists_only() -> None:
    certificate = ISSUER.certificate
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)


def test_an_agents_certificate_is_for_tls_clients_and_for_no_host() -> None:
    certificate = client_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, 30 * DAY)
    constraints, usage = extension(certificate, x509.BasicConstraints), extension(certificate, x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca) == (True, False)
    assert (usage.critical, usage.value.digital_signature, usage.value.key_cert_sign) == (True, True, False)
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:acm:agent:web-01"]
    assert names.get_values_for_type(x509.DNSName) == []
    assert certificate.subject.rfc4514_string() == "CN=web-01"
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + 30 * DAY
    issued_by = extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier
    assert issued_by == extension(ISSUER.certificate, x509.SubjectKeyIdentifier).value.digest


def test_serial_numbers_are_random() -> None:
    first, second = (client_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY) for _ in range(2))
    assert first.serial_number != second.serial_number
    assert second.serial_number.bit_length() > 100


def test_a_servers_certificate_names_hosts_and_addresses() -> None:
    hosts = ["MQTT.example.org", "192.0.2.7", "2001:db8::1"]
    certificate = server_certificate(ISSUER, hosts, AGENT.key.public_key(), NOW, DAY)
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mqtt.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host) for host in hosts[1:]]


@pytest.mark.parametrize("host", ["", "a b", "*.example.org", "-a.example.org", "mqtt://host", "a" * 64])
def test_what_is_no_host_gets_no_certificate(host: str) -> None:
    with pytest.raises(CertificateError, match="neither a host name nor an IP address"):
        server_certificate(ISSUER, [host], AGENT.key.public_key(), NOW, DAY)


def test_nothing_outlives_the_authority() -> None:
    end = ISSUER.certificate.not_valid_after_utc
    assert client_certificate(ISSUER, "a", AGENT.key.public_key(), end - DAY, 30 * DAY).not_valid_after_utc == end
    with pytest.raises(CertificateError, match="make a new authority"):
        client_certificate(ISSUER, "a", AGENT.key.public_key(), end, DAY)


def test_an_agents_certificate_lives_for_a_year_at_most() -> None:
    with pytest.raises(CertificateError, match="366 days at most"):
        client_certificate(ISSUER, "a", AGENT.key.public_key(), NOW, 367 * DAY)


def test_the_revocation_list_says_which_when_and_why() -> None:
    revoked = [
        RevokedCertificate(5, NOW, RevocationReason.KEY_COMPROMISE),
        RevokedCertificate(6, NOW, RevocationReason.UNSPECIFIED),
    ]
    crl = x509.load_pem_x509_crl(revocation_list(ISSUER, revoked, 9, NOW, 7 * DAY))
    assert crl.is_signature_valid(ISSUER.key.public_key())
    assert (crl.last_update_utc, crl.next_update_utc) == (NOW - DAY, NOW + 7 * DAY)
    assert extension(crl, x509.CRLNumber).value.crl_number == 9
    first, second = crl
    assert (first.serial_number, first.revocation_date_utc) == (5, NOW)
    assert extension(first, x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert list(second.extensions) == []


def test_a_request_proves_a_key() -> None:
    assert read_request(request(AGENT.key, "web-01"), "web-01") == AGENT.key.public_key()


def with_a_wrong_signature() -> str:
    lines = request(AGENT.key, "web-01").splitlines()
    lines[-2] = ("B" if lines[-2][0] == "A" else "A") + lines[-2][1:]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: "", "not a certificate signing request"),
        (lambda: "\ud800", "not a certificate signing request"),
        (lambda: pem(ISSUER.certificate), "not a certificate signing request"),
        (lambda: request(AGENT.key, "web-02"), "common name must be 'web-01'"),
        (lambda: request(AGENT.key), "common name must be 'web-01'"),
        (lambda: request(AGENT.key, "web-01", "web-02"), "common name must be 'web-01'"),
        (lambda: request(ec.generate_private_key(ec.SECP256R1()), "web-01"), "must be an Ed25519 key"),
        (with_a_wrong_signature, "not signed by the key"),
    ],
)
def test_a_bad_request_is_refused(make: Callable[[], str], said: str) -> None:
    with pytest.raises(CertificateError, match=said):
        read_request(make(), "web-01")


def test_a_certificate_of_ours_says_who_sends_it() -> None:
    certificate = client_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY)
    identity = read_identity(pem(certificate), ISSUER, NOW)
    assert (identity.agent, identity.serial) == ("web-01", certificate.serial_number)
    asked = AGENT.renew(pem(certificate), AGENT.key)
    check_possession(identity, asked.csr, asked.signature)
    for signature in (
        "",
        "no base64",
        "\ud800",
        asked.signature[4:],
        EnrollingAgent("web-01").renew("", AGENT.key).signature,
    ):
        with pytest.raises(IdentityError, match="`signature` is not that of `csr`"):
            check_possession(identity, asked.csr, signature)
    with pytest.raises(IdentityError, match="`signature` is not that of `csr`"):
        check_possession(replace(identity, key=ISSUER.key.public_key()), asked.csr, asked.signature)


@pytest.mark.parametrize("moment", [NOW - timedelta(minutes=6), NOW + DAY])
def test_a_certificate_shows_nobody_outside_its_time(moment: datetime) -> None:
    certificate = client_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY)
    with pytest.raises(IdentityError, match="not valid now"):
        read_identity(pem(certificate), ISSUER, moment)


def test_the_certificate_of_another_authority_of_the_same_name_shows_nobody() -> None:
    foreign = client_certificate(new_issuer(), "web-01", AGENT.key.public_key(), NOW, DAY)
    for text in (pem(foreign), "", "\ud800", request(AGENT.key, "web-01")):
        with pytest.raises(IdentityError, match="not a certificate of this authority"):
            read_identity(text, ISSUER, NOW)
