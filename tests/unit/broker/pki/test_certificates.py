"""The profiles of the authority's certificates, and the requests that it refuses."""

import ipaddress
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.pki.certificates import (
    CertificateError,
    agent_certificate,
    host_certificate,
    operator_certificate,
)
from tests.support.certificates import DAY, NOW, extension, new_issuer
from tests.support.enrolling import EnrollingAgent
from tests.support.errors import raises_code

ISSUER = new_issuer()
AGENT = EnrollingAgent("web-01")


def test_authority_certificate_may_sign_end_entities_and_crls_only() -> None:
    certificate = ISSUER.certificate
    constraints = extension(certificate, x509.BasicConstraints)
    usage = extension(certificate, x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    assert certificate.not_valid_after_utc == NOW + timedelta(days=3650)


def test_agent_certificate_is_for_tls_clients_not_for_a_host() -> None:
    certificate = agent_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, 30 * DAY)
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


def test_operators_certificate_has_no_name_of_an_agent_or_a_server() -> None:
    certificate = operator_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, 30 * DAY)
    assert certificate.subject.rfc4514_string() == "CN=_operator"
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["urn:acm:operator:web-01"]
    with raises_code(CertificateError, "lifetime_too_long"):
        operator_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, 367 * DAY)


def test_serial_numbers_are_random() -> None:
    first, second = (agent_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY) for _ in range(2))
    assert first.serial_number != second.serial_number
    assert second.serial_number.bit_length() > 100


def test_server_certificate_has_hosts_and_addresses() -> None:
    hosts = ["MQTT.example.org", "192.0.2.7", "2001:db8::1"]
    certificate = host_certificate(ISSUER, hosts, AGENT.key.public_key(), NOW, DAY)
    assert list(extension(certificate, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = extension(certificate, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mqtt.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(host) for host in hosts[1:]]


@pytest.mark.parametrize("host", ["", "a b", "*.example.org", "-a.example.org", "mqtt://host", "a" * 64])
def test_no_certificate_is_issued_for_a_bad_host(host: str) -> None:
    with raises_code(CertificateError, "not_a_host"):
        host_certificate(ISSUER, [host], AGENT.key.public_key(), NOW, DAY)


def test_no_certificate_outlives_the_authority() -> None:
    end = ISSUER.certificate.not_valid_after_utc
    assert agent_certificate(ISSUER, "a", AGENT.key.public_key(), end - DAY, 30 * DAY).not_valid_after_utc == end
    with raises_code(CertificateError, "authority_expired"):
        agent_certificate(ISSUER, "a", AGENT.key.public_key(), end, DAY)


def test_agent_certificate_is_limited_to_a_year() -> None:
    with raises_code(CertificateError, "lifetime_too_long"):
        agent_certificate(ISSUER, "a", AGENT.key.public_key(), NOW, 367 * DAY)
