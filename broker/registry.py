"""The authority and the enrolments that a configuration names, and the revocation list that the broker reads."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from broker.ca import CRL_LIFETIME, CertificateAuthority, crl_path
from broker.certificates import RevokedCertificate
from broker.config import ServerConfig
from broker.enrolments import Enrolments
from broker.signing_keys import KeyBook, SigningKeys

__all__ = [
    "RevocationFile",
    "open_authority",
    "open_enrolments",
    "open_key_book",
    "open_revocation_file",
    "open_signing_keys",
    "signing_keys_path",
]

_REWRITE_AFTER = timedelta(days=1)


class RevocationFile:
    """The revocation list of one authority in one file. Its methods raise AuthorityError and LedgerError."""

    def __init__(
        self, path: Path, authority: CertificateAuthority, enrolments: Enrolments, *, now: Callable[[], datetime]
    ) -> None:
        self.path = path
        self._authority = authority
        self._enrolments = enrolments
        self._now = now
        self._listed: list[RevokedCertificate] = []
        self._rewrite_at = now()

    def write(self, *also: RevokedCertificate) -> datetime:
        """Write the list anew, with `also` on it this once; return until when it holds."""
        until = self._authority.write_revocation_list(lambda: [*self._revoked(), *also], self.path)
        self._rewrite_at = self._now() + _REWRITE_AFTER
        return until

    def refresh(self) -> bool:
        """Write the list if it is a day old, or if something was revoked since; return whether it was written."""
        due = self._now() >= self._rewrite_at or self._enrolments.revoked_certificates(self._oldest()) != self._listed
        if due:
            self.write()
        return due

    def _revoked(self) -> list[RevokedCertificate]:
        self._listed = self._enrolments.revoked_certificates(self._oldest())
        return self._listed

    def _oldest(self) -> datetime:
        # RFC 5280 section 3.3: a certificate that has ended stays on one more list.
        return self._now() - CRL_LIFETIME


def open_authority(config: ServerConfig) -> CertificateAuthority:
    """Open the authority in the directory `ca`; raises AuthorityError."""
    return CertificateAuthority(Path(config.ca), now=_now)


def signing_keys_path(config: ServerConfig) -> Path:
    """Return where the signing keys are: `signing_keys`, or `signing` in the authority's directory."""
    return Path(config.signing_keys) if config.signing_keys else Path(config.ca) / "signing"


def open_key_book(config: ServerConfig) -> KeyBook:
    """Open the list of the signing keys, without the private ones; raises SigningKeyError."""
    return KeyBook(signing_keys_path(config))


def open_signing_keys(config: ServerConfig) -> SigningKeys:
    """Open the signing keys; raises SigningKeyError."""
    return SigningKeys(signing_keys_path(config))


def open_enrolments(config: ServerConfig) -> Enrolments:
    """Open the enrolments in the ledger's database; raises LedgerError."""
    return Enrolments(config.ledger, now=_now)


def open_revocation_file(
    config: ServerConfig, authority: CertificateAuthority, enrolments: Enrolments
) -> RevocationFile:
    """Return the list at `crl`, or in the authority's directory where no place is configured."""
    path = Path(config.crl) if config.crl else crl_path(Path(config.ca))
    return RevocationFile(path, authority, enrolments, now=_now)


def _now() -> datetime:
    return datetime.now(UTC)
