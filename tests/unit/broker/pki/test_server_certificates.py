"""The certificates of the broker and the servers: renewed at two thirds, warned of, or left alone."""

from datetime import timedelta
from pathlib import Path

import pytest
import structlog.testing
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.contract.private_keys import private_key_from_pem
from broker.enrolment.certificate_upkeep import CertificateUpkeep
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.authority_files import AuthorityError
from broker.pki.certificates import CertificateError
from broker.pki.server_certificates import CertificateFile, ServerCertificates, expiring
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

YEAR_S = 365 * 86400
HOSTS = ["mqtt.example.org", "192.0.2.7", "::1"]


@pytest.fixture
def authority(tmp_path: Path, clock: TurnedClock) -> CertificateAuthority:
    create_authority(tmp_path / "ca", "test", clock.now())
    return CertificateAuthority(tmp_path / "ca", now=clock.now)


@pytest.fixture
def files(tmp_path: Path, authority: CertificateAuthority) -> list[CertificateFile]:
    authority.write_server_pem(HOSTS, tmp_path / "broker.pem")
    authority.write_server_certificate(HOSTS, tmp_path, "enroll")
    authority.write_client_certificate("acm-server", tmp_path, "server")
    pairs = [CertificateFile(tmp_path / f"{name}.crt", tmp_path / f"{name}.key") for name in ("enroll", "server")]
    return [CertificateFile(tmp_path / "broker.pem", tmp_path / "broker.pem"), *pairs]


def read(file: CertificateFile) -> x509.Certificate:
    """Return the certificate, whose key is in the other file."""
    certificate, key = file.read(), private_key_from_pem(file.key.read_bytes())
    assert certificate is not None
    raw = [it.public_bytes(Encoding.Raw, PublicFormat.Raw) for it in (certificate.public_key(), key.public_key())]  # type: ignore[union-attr,call-arg,arg-type]
    assert raw[0] == raw[1]
    return certificate


def names_of(certificate: x509.Certificate) -> list[object]:
    wanted = (x509.SubjectAlternativeName, x509.ExtendedKeyUsage)
    return [certificate.subject, *(certificate.extensions.get_extension_for_class(it).value for it in wanted)]


def test_certificates_are_renewed_at_two_thirds_for_the_same_names_with_new_keys(
    files: list[CertificateFile], authority: CertificateAuthority, clock: TurnedClock
) -> None:
    certificates = ServerCertificates(files, authority, now=clock.now)
    before = [read(file) for file in files]
    clock.turn(YEAR_S * 0.66)
    assert certificates.renew_due() == []
    clock.turn(YEAR_S * 0.01)
    assert certificates.renew_due() == [file.path for file in files]
    after = [read(file) for file in files]
    assert [names_of(it) for it in after] == [names_of(it) for it in before]
    assert {it.not_valid_after_utc for it in after} == {clock.now() + timedelta(seconds=YEAR_S)}
    assert all(one.public_key() != other.public_key() for one, other in zip(before, after, strict=True))
    assert [file.path.stat().st_mode & 0o777 for file in files] == [0o600, 0o644, 0o644]
    assert certificates.renew_due() == []


def test_certificate_of_another_authority_is_left_alone_and_warned_of_once_a_day(
    files: list[CertificateFile], tmp_path: Path, clock: TurnedClock
) -> None:
    create_authority(tmp_path / "other", "other", clock.now())
    other = CertificateAuthority(tmp_path / "other", now=clock.now)
    upkeep = CertificateUpkeep(
        ServerCertificates(files, other, now=clock.now), now=clock.now, monotonic=clock.monotonic
    )
    before = [file.path.read_bytes() for file in files]
    with structlog.testing.capture_logs() as logs:
        for _ in range(365):
            upkeep.step()
            upkeep.step()
            clock.turn(86400)
    assert [file.path.read_bytes() for file in files] == before
    assert {entry["event"] for entry in logs} == {"certificate_expires"}
    assert len(logs) == 30 * len(files)


def test_what_cannot_be_written_is_an_error_and_does_not_keep_others_from_renewal(
    files: list[CertificateFile], authority: CertificateAuthority, clock: TurnedClock, tmp_path: Path
) -> None:
    lost = CertificateFile(files[0].path, tmp_path / "missing" / "key")
    clock.turn(YEAR_S * 0.67)
    with raises_code(AuthorityError, "unusable_authority_file"):
        ServerCertificates([lost, files[1]], authority, now=clock.now).renew_due()
    assert read(files[1]).not_valid_after_utc == clock.now() + timedelta(seconds=YEAR_S)


def test_certificate_that_was_signed_by_other_means_is_an_error(
    authority: CertificateAuthority, clock: TurnedClock, tmp_path: Path
) -> None:
    authority_itself = CertificateFile(tmp_path / "ca" / "ca.crt", tmp_path / "ca" / "ca.key")  # signed by itself
    before = authority_itself.path.read_bytes()
    clock.turn(10 * YEAR_S * 0.67)
    with raises_code(CertificateError, "certificate_not_renewable"):
        ServerCertificates([authority_itself], authority, now=clock.now).renew_due()
    assert authority_itself.path.read_bytes() == before


def test_expiry_is_told_of_30_days_before(files: list[CertificateFile], clock: TurnedClock, tmp_path: Path) -> None:
    missing = CertificateFile(tmp_path / "missing.crt", tmp_path / "missing.key")
    clock.turn(YEAR_S - 30 * 86400 - 1)
    assert expiring([*files, missing], clock.now()) == []
    clock.turn(1)
    assert [path for path, _ in expiring([*files, missing], clock.now())] == [file.path for file in files]
