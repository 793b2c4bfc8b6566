"""Verification of requests and certificates by the authority."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.pki.certificates import (
    CertificateError,
    agent_certificate,
)
from broker.pki.verification import IdentityError, check_possession, verify_certificate, verify_csr
from tests.support.certificates import DAY, NOW, new_issuer, pem
from tests.support.enrolling import EnrollingAgent, request
from tests.support.errors import raises_code

ISSUER = new_issuer()
AGENT = EnrollingAgent("web-01")


def test_csr_proves_possession_of_its_key() -> None:
    assert verify_csr(request(AGENT.key, "web-01"), "web-01") == AGENT.key.public_key()


def with_a_wrong_signature() -> str:
    lines = request(AGENT.key, "web-01").splitlines()
    lines[-2] = ("B" if lines[-2][0] == "A" else "A") + lines[-2][1:]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: "", "malformed_csr"),
        (lambda: "\ud800", "malformed_csr"),
        (lambda: pem(ISSUER.certificate), "malformed_csr"),
        (lambda: request(AGENT.key, "web-02"), "csr_wrong_subject"),
        (lambda: request(AGENT.key), "csr_wrong_subject"),
        (lambda: request(AGENT.key, "web-01", "web-02"), "csr_wrong_subject"),
        (lambda: request(ec.generate_private_key(ec.SECP256R1()), "web-01"), "csr_key_not_ed25519"),
        (with_a_wrong_signature, "csr_bad_signature"),
    ],
)
def test_bad_csr_is_rejected(make: Callable[[], str], code: str) -> None:
    with raises_code(CertificateError, code):
        verify_csr(make(), "web-01")


def test_certificate_and_signature_authenticate_the_agent() -> None:
    certificate = agent_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY)
    identity = verify_certificate(pem(certificate), ISSUER, NOW, timedelta())
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
        with raises_code(IdentityError, "bad_signature"):
            check_possession(identity, asked.csr, signature)
    with raises_code(IdentityError, "bad_signature"):
        check_possession(replace(identity, key=ISSUER.key.public_key()), asked.csr, asked.signature)


@pytest.mark.parametrize("moment", [NOW - timedelta(minutes=6), NOW + DAY])
def test_certificate_outside_its_validity_is_rejected(moment: datetime) -> None:
    certificate = agent_certificate(ISSUER, "web-01", AGENT.key.public_key(), NOW, DAY)
    with raises_code(IdentityError, "certificate_not_valid_now"):
        verify_certificate(pem(certificate), ISSUER, moment, timedelta())


def test_certificate_of_another_authority_of_the_same_name_is_rejected() -> None:
    foreign = agent_certificate(new_issuer(), "web-01", AGENT.key.public_key(), NOW, DAY)
    for text in (pem(foreign), "", "\ud800", request(AGENT.key, "web-01")):
        with raises_code(IdentityError, "foreign_certificate"):
            verify_certificate(text, ISSUER, NOW, timedelta())


def test_certificate_for_a_key_of_another_kind_is_rejected() -> None:
    key: Any = ec.generate_private_key(ec.SECP256R1()).public_key()
    certificate = agent_certificate(ISSUER, "web-01", key, NOW, DAY)
    with raises_code(IdentityError, "certificate_key_not_ed25519"):
        verify_certificate(pem(certificate), ISSUER, NOW, timedelta())
