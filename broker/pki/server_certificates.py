"""The certificates of the broker, the server and the enrolment server: when they expire, and their renewal."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from broker.errors import BrokerError
from broker.pki.authority import CertificateAuthority

__all__ = [
    "CertificateFile",
    "ServerCertificates",
    "expiring",
]


_WARN_BEFORE = timedelta(days=30)


@dataclass(frozen=True)
class CertificateFile:
    """A certificate and its key in PEM; both paths are the same if they are in one file.

    `like` is the file of a certificate of the same age for the same hosts, for a file that only the broker can read.
    """

    path: Path
    key: Path
    like: Path | None = None

    def read(self) -> x509.Certificate | None:
        """Return the certificate; None if there is none that can be read."""
        try:
            return x509.load_pem_x509_certificate(self.path.read_bytes())
        except PermissionError:
            return CertificateFile(self.like, self.key).read() if self.like is not None else None
        except (OSError, ValueError, UnsupportedAlgorithm):
            return None


def expiring(files: Iterable[CertificateFile], now: datetime) -> list[tuple[Path, datetime]]:
    """Return the certificates that expire within 30 days, or have expired, and when."""
    found = ((file.path, file.read()) for file in files)
    ends = [(path, certificate.not_valid_after_utc) for path, certificate in found if certificate is not None]
    return [(path, end) for path, end in ends if end - now <= _WARN_BEFORE]


class ServerCertificates:
    """The certificates of these files, which the authority renews after two thirds of their lifetime.

    Certificates of another authority are left alone.
    """

    def __init__(
        self, files: Sequence[CertificateFile], authority: CertificateAuthority, *, now: Callable[[], datetime]
    ) -> None:
        self.files = files
        self._authority = authority
        self._now = now

    def renew_due(self) -> list[Path]:
        """Renew the certificates that are due; return their files. Raises the first error after the last file."""
        return self._renew(lambda certificate: self._now() >= _renew_at(certificate))

    def renew_by_successor(self) -> list[Path]:
        """Let the authority's successor renew all of its certificates; return their files. Raises as above."""
        return self._renew(lambda certificate: True, by_successor=True)

    def _renew(self, is_due: Callable[[x509.Certificate], bool], *, by_successor: bool = False) -> list[Path]:
        renewed: list[Path] = []
        errors: list[BrokerError] = []
        read = [(file, file.read()) for file in self.files]  # before any is replaced: they are like one another
        for file, certificate in read:
            if certificate is None or not self._authority.has_issued(certificate) or not is_due(certificate):
                continue
            try:
                self._authority.renew_server_certificate(certificate, file.path, file.key, by_successor=by_successor)
                renewed.append(file.path)
            except BrokerError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return renewed


def _renew_at(certificate: x509.Certificate) -> datetime:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) * 2 / 3
