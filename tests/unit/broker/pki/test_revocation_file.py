"""The revocation list in a file that cannot be used."""

from datetime import datetime
from pathlib import Path

from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.authority_files import AuthorityError
from broker.pki.revocation_file import RevocationFile
from broker.pki.revocation_list import RevokedCertificate
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


class NoneRevoked:
    """A ledger without revoked certificates."""

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        return []


def test_list_at_an_unusable_path_is_reported_with_the_path(tmp_path: Path, clock: TurnedClock) -> None:
    create_authority(tmp_path / "ca", "test", clock.now())
    authority = CertificateAuthority(tmp_path / "ca", now=clock.now)
    path = tmp_path / "ca" / "ca.crt" / "crl.pem"
    with raises_code(AuthorityError, "unusable_authority_file") as caught:
        RevocationFile(path, authority, NoneRevoked(), now=clock.now).refresh()
    assert str(caught.value).startswith(f"{path} ")
