"""The authority's directory: its files, their permissions, and the revocation list."""

import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment_token import fingerprint_of
from broker.pki.authority import CertificateAuthority, create_authority, crl_path
from broker.pki.authority_files import AuthorityError
from broker.pki.certificates import CertificateError
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


@pytest.fixture
def directory(tmp_path: Path, clock: TurnedClock) -> Path:
    create_authority(tmp_path / "ca", "test", clock.now())
    return tmp_path / "ca"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_secret_files_are_readable_by_their_owner_only(directory: Path) -> None:
    modes = {path.name: mode(path) for path in directory.iterdir()}
    secret, public = 0o600, 0o644
    assert mode(directory) == 0o700
    assert modes == {
        "ca.key": secret,
        "ca.crt": public,
        "crl.pem": public,
    }


def test_directory_mode_is_restricted(tmp_path: Path, clock: TurnedClock) -> None:
    tmp_path.chmod(0o755)
    create_authority(tmp_path, "test", clock.now())
    assert mode(tmp_path) == 0o700


def test_authority_is_never_overwritten(directory: Path, clock: TurnedClock) -> None:
    before = (directory / "ca.key").read_bytes()
    with raises_code(AuthorityError, "directory_not_empty"):
        create_authority(directory, "test", clock.now())
    assert (directory / "ca.key").read_bytes() == before


@pytest.mark.parametrize("name", ["", "n" * 65])
def test_bad_name_leaves_no_directory(tmp_path: Path, clock: TurnedClock, name: str) -> None:
    with raises_code(CertificateError, "bad_authority_name"):
        create_authority(tmp_path / "ca", name, clock.now())
    assert not (tmp_path / "ca").exists()


def test_authority_is_read_back(directory: Path, clock: TurnedClock) -> None:
    authority = CertificateAuthority(directory, now=clock.now)
    certificate = x509.load_pem_x509_certificate(authority.certificate.encode())
    assert authority.fingerprint == fingerprint_of(certificate.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("ca.key", b"", "damaged_authority"),
        ("ca.crt", b"nonsense", "damaged_authority"),
        ("ca.crt", None, "no_authority"),
        ("ca.key", None, "unusable_authority_file"),
    ],
)
def test_damaged_authority_is_rejected(
    directory: Path, clock: TurnedClock, name: str, content: bytes | None, code: str
) -> None:
    path = directory / name
    path.unlink() if content is None else path.write_bytes(content)
    with raises_code(AuthorityError, code) as caught:
        CertificateAuthority(directory, now=clock.now)
    assert str(directory) in str(caught.value)


def test_key_of_another_authority_is_rejected(directory: Path, clock: TurnedClock) -> None:
    create_authority(directory / "other", "other", clock.now())
    os.replace(directory / "other" / "ca.key", directory / "ca.key")
    with raises_code(AuthorityError, "wrong_authority_key"):
        CertificateAuthority(directory, now=clock.now)


def test_server_key_is_secret_and_replaced_with_its_certificate(
    directory: Path, clock: TurnedClock, tmp_path: Path
) -> None:
    authority = CertificateAuthority(directory, now=clock.now)
    authority.write_server_certificate(["localhost"], tmp_path)
    first = (tmp_path / "server.key").read_bytes()
    certificate = authority.write_server_certificate(["localhost"], tmp_path)
    assert (tmp_path / "server.key").read_bytes() != first
    assert mode(tmp_path / "server.key") == 0o600
    assert x509.load_pem_x509_certificate((tmp_path / "server.crt").read_bytes()) == certificate


def test_each_crl_has_a_greater_number(directory: Path, clock: TurnedClock) -> None:
    authority = CertificateAuthority(directory, now=clock.now)
    first = x509.load_pem_x509_crl(crl_path(directory).read_bytes())
    clock.turn(1)
    revoked = RevokedCertificate(7, clock.now(), RevocationReason.SUPERSEDED)
    until = authority.write_revocation_list(lambda: [revoked], crl_path(directory))
    second = x509.load_pem_x509_crl(crl_path(directory).read_bytes())
    assert until == clock.now() + timedelta(days=7)
    assert [entry.serial_number for entry in second] == [7]
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)]
    assert numbers[0] < numbers[1]
    with raises_code(AuthorityError, "unusable_authority_file") as caught:
        authority.write_revocation_list(lambda: [], Path("/nowhere/crl.pem"))
    assert "/nowhere/crl.pem" in str(caught.value)
