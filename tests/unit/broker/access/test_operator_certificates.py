"""Certificates of operators in the ledger's database."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.access.grants import InvalidCredential
from broker.access.operator_certificates import OperatorCertificateStore, UnknownOperatorCertificate, checked_operator
from broker.app.factories import open_database
from broker.contract.topics import InvalidName
from broker.fleet.models import Principal, Role
from broker.ledger.database import Database
from broker.pki.authority import CertificateAuthority, create_authority
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

ALICE = Principal("alice", Role.OPERATOR, frozenset({"edge"}))
DAY = timedelta(days=1)


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_database(ledger_url) as opened:
        yield opened


@pytest.fixture
def certificates(database: Database, clock: TurnedClock) -> OperatorCertificateStore:
    return OperatorCertificateStore(database, now=clock.now)


@pytest.fixture
def certificate(tmp_path: Path, clock: TurnedClock) -> x509.Certificate:
    create_authority(tmp_path / "ca", "test", clock.now())
    authority = CertificateAuthority(tmp_path / "ca", now=clock.now)
    return authority.write_operator_certificate("alice", tmp_path, DAY)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def test_holder_of_a_certificate_is_its_principal_in_a_name_that_no_token_has(
    certificates: OperatorCertificateStore, certificate: x509.Certificate, clock: TurnedClock
) -> None:
    made = certificates.add(ALICE, certificate, "root@host")
    credential = certificates.credential_of(der(certificate))
    assert credential.principal == Principal("cert:alice", Role.OPERATOR, frozenset({"edge"}))
    assert (credential.id, made.serial, made.expires_at) == (
        made.id,
        certificate.serial_number,
        certificate.not_valid_after_utc,
    )
    (listed,), _ = certificates.page(None, 10)
    assert (made.used_at, listed.used_at) == (None, clock.now())


def test_certificate_that_is_unknown_revoked_or_expired_is_refused(
    certificates: OperatorCertificateStore, certificate: x509.Certificate, clock: TurnedClock
) -> None:
    with raises_code(InvalidCredential, "unknown_credential"):
        certificates.credential_of(der(certificate))
    made = certificates.add(ALICE, certificate, "root@host")
    clock.turn(DAY.total_seconds())
    with raises_code(InvalidCredential, "credential_expired"):
        certificates.credential_of(der(certificate))
    certificates.revoke(made.id)
    with raises_code(InvalidCredential, "credential_revoked"):
        certificates.credential_of(der(certificate))
    with raises_code(UnknownOperatorCertificate, "unknown_operator_certificate"):
        certificates.revoke(made.id)


def test_certificate_on_the_revocation_list_is_refused_by_a_ledger_that_has_forgotten_it(
    database: Database, certificate: x509.Certificate, clock: TurnedClock
) -> None:
    certificates = OperatorCertificateStore(database, now=clock.now, listed={certificate.serial_number})
    certificates.add(ALICE, certificate, "root@host")
    with raises_code(InvalidCredential, "credential_revoked"):
        certificates.credential_of(der(certificate))


def test_revoked_certificate_is_for_the_list_until_it_expires(
    certificates: OperatorCertificateStore, certificate: x509.Certificate, clock: TurnedClock
) -> None:
    made = certificates.add(ALICE, certificate, "root@host")
    assert certificates.revoked_certificates(clock.now()) == []
    certificates.revoke(made.id)
    (revoked,) = certificates.revoked_certificates(clock.now())
    assert (revoked.serial, revoked.revoked_at) == (certificate.serial_number, clock.now())
    assert certificates.revoked_certificates(clock.now() + 2 * DAY) == []


def test_name_must_fit_into_the_columns_of_its_principal() -> None:
    assert checked_operator("a" * 59) == "a" * 59
    for name in ("a" * 60, "_operator", "a:b", ""):
        with pytest.raises(InvalidName):
            checked_operator(name)
