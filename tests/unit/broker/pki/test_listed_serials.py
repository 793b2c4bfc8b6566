"""The serial numbers on a revocation list, as a program sees them that does not have the authority."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.errors import ExposedFileError
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.authority_files import AuthorityError
from broker.pki.listed_serials import ListedSerials
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from tests.support.errors import raises_code


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "crl.pem"


def write_list(path: Path, *serials: int) -> None:
    directory = path.parent / "ca"
    now = datetime.now(UTC)
    if not directory.exists():
        create_authority(directory, "test", now)
    authority = CertificateAuthority(directory, now=lambda: now)
    revoked = [RevokedCertificate(serial, now, RevocationReason.UNSPECIFIED) for serial in serials]
    authority.write_revocation_list(lambda: revoked, path)


def test_replaced_list_is_read_again(path: Path) -> None:
    serials = ListedSerials(path)
    assert 7 not in serials
    write_list(path, 7)
    assert 7 in serials
    write_list(path, 8)
    assert (7 in serials, 8 in serials) == (False, True)


def test_list_that_cannot_be_relied_on_is_an_error(path: Path) -> None:
    serials = ListedSerials(path)
    path.write_text("-----BEGIN X509 CRL-----\nnone\n-----END X509 CRL-----\n")
    with raises_code(AuthorityError, "unusable_authority_file"):
        7 in serials  # noqa: B015
    write_list(path, 8)
    path.chmod(0o666)
    with pytest.raises(ExposedFileError):
        8 in serials  # noqa: B015
