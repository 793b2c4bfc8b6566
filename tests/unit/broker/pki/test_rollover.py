"""The successor of an authority: its files, also after a crash between two of them, and what both have signed."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.broker_directory import write_trusted
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.revocation_list import RevocationReason, RevokedCertificate
from broker.pki.verification import IdentityError
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

DAY = timedelta(days=1)


@pytest.fixture
def authority(tmp_path: Path, clock: TurnedClock) -> CertificateAuthority:
    create_authority(tmp_path / "ca", "acm authority", clock.now())
    return CertificateAuthority(tmp_path / "ca", now=clock.now)


def issue(authority: CertificateAuthority, *, by_successor: bool) -> str:
    key = Ed25519PrivateKey.generate().public_key()
    return authority.issue("web-01", key, DAY, by_successor=by_successor).public_bytes(Encoding.PEM).decode()


def names(pem: str) -> list[str]:
    return [it.subject.rfc4514_string() for it in x509.load_pem_x509_certificates(pem.encode())]


def test_running_process_notices_the_beginning_and_the_end(
    authority: CertificateAuthority, tmp_path: Path, clock: TurnedClock
) -> None:
    other = CertificateAuthority(tmp_path / "ca", now=clock.now)
    former = other.certificate
    assert other.successor is None
    authority.begin_rollover()
    assert names(other.trusted) == ["CN=acm authority", "CN=acm authority G2"]
    assert not other.begin_rollover()
    successor = other.successor
    old, new = issue(other, by_successor=False), issue(other, by_successor=True)
    assert [other.is_of_successor(it) for it in (old, new)] == [False, True]
    assert [other.identify(it).agent for it in (old, new)] == ["web-01", "web-01"]
    assert [names(other.trusted_by_holder(it))[0] for it in (old, new)] == names(other.trusted)
    authority.finish_rollover()
    assert (other.certificate, other.successor) == (successor, None)
    assert other.identify(new).agent == "web-01"
    with raises_code(IdentityError, "foreign_certificate"):
        other.identify(old)
    assert former not in other.trusted
    other.begin_rollover()
    assert names(other.trusted) == ["CN=acm authority G2", "CN=acm authority G3"]


def test_crash_between_two_files_is_completed(
    authority: CertificateAuthority, tmp_path: Path, clock: TurnedClock
) -> None:
    ca = tmp_path / "ca"
    (ca / "next.key").write_bytes(b"")  # a crash of begin before the certificate
    (ca / "next.key").chmod(0o600)
    assert authority.begin_rollover()
    successor = authority.successor
    (ca / "next.crt").replace(ca / "ca.crt")  # a crash of finish before the key
    again = CertificateAuthority(ca, now=clock.now)
    assert (again.certificate, again.successor, again.is_half_promoted) == (successor, None, True)
    issue(again, by_successor=False)
    again.begin_rollover()
    assert again.certificate == successor
    assert again.successor not in (None, successor)


def test_list_of_each_authority_has_every_entry(
    authority: CertificateAuthority, tmp_path: Path, clock: TurnedClock
) -> None:
    path = tmp_path / "crl.pem"
    entries = [RevokedCertificate(7, clock.now(), RevocationReason.UNSPECIFIED)]
    authority.write_revocation_list(lambda: entries, path)
    authority.begin_rollover()
    found = authority.read_revocation_list(path)
    assert found is not None
    assert ([it.serial for it in found.entries], found.complete) == ([7], False)
    authority.write_revocation_list(lambda: entries, path)
    lists = path.read_bytes().split(b"-----END X509 CRL-----\n")[:-1]
    read = [x509.load_pem_x509_crl(it + b"-----END X509 CRL-----\n") for it in lists]
    assert [it.issuer.rfc4514_string() for it in read] == names(authority.trusted)
    assert [[entry.serial_number for entry in it] for it in read] == [[7], [7]]
    authority.finish_rollover()
    found = authority.read_revocation_list(path)
    assert found is not None
    assert found.complete


def test_other_authorities_in_the_brokers_file_are_kept(
    authority: CertificateAuthority, tmp_path: Path, clock: TurnedClock
) -> None:
    create_authority(tmp_path / "other", "other", clock.now())
    other = CertificateAuthority(tmp_path / "other", now=clock.now).certificate
    path, former = tmp_path / "ca.crt", authority.certificate
    path.write_text(other + former)
    authority.begin_rollover()
    assert write_trusted(path, authority.trusted)
    assert names(path.read_text()) == ["CN=acm authority", "CN=acm authority G2", "CN=other"]
    assert write_trusted(path, authority.successor or "", former)
    assert names(path.read_text()) == ["CN=acm authority G2", "CN=other"]
    path.write_text(other)
    assert not write_trusted(path, authority.trusted)
    assert path.read_text() == other
