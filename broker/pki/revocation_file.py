"""The certificate revocation list (CRL) in a file that the broker reads."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from broker.errors import BrokerError
from broker.pki.authority import CRL_LIFETIME, CertificateAuthority
from broker.pki.authority_files import AuthorityError
from broker.pki.certificates import MAX_LIFETIME
from broker.pki.revocation_list import RevocationList, RevokedCertificate
from broker.system.files import state_of

__all__ = [
    "CrlNotWritten",
    "RevocationFile",
]


_REWRITE_AFTER = timedelta(days=1)
_EPOCH = datetime.fromtimestamp(0, UTC)


class CrlNotWritten(BrokerError):
    """The revocation is recorded, but the list that the broker reads does not have it yet."""

    code = "crl_not_written"


class RevokedCertificates(Protocol):
    """The source of the entries that must be on the list."""

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return the revoked certificates that did not expire before `not_after`; raises LedgerError."""
        ...


class RevocationFile:
    """The revocation list of one authority in one file. Its methods raise AuthorityError and LedgerError.

    Entries of the file that the database does not have are kept: those of another process, and those of revocations
    after the backup that a ledger was restored from.
    """

    def __init__(
        self,
        path: Path,
        authority: CertificateAuthority,
        revoked: RevokedCertificates,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self.path = path
        self._authority = authority
        self._revoked = revoked
        self._now = now
        self._seen: tuple[tuple[int, int, int] | None, RevocationList | None] = (None, None)  # read by any thread

    def write(self, *also: RevokedCertificate) -> datetime:
        """Rewrite the list with the entries `also` added; return its nextUpdate."""
        return self._authority.write_revocation_list(lambda: self._entries(also), self.path)

    def refresh(self) -> bool:
        """Rewrite the list if entries are missing or it is older than a day; return whether it was rewritten."""
        stale = not self._is_current()
        if stale:
            self.write()
        return stale

    def names(self, serial: int) -> bool:
        """Return whether the file has this certificate."""
        found = self._read()
        return found is not None and serial in {entry.serial for entry in found.entries}

    def _is_current(self) -> bool:
        found = self._read()
        if found is None or not found.complete:
            return False
        age = self._now() - (found.until - CRL_LIFETIME)  # negative if the clock was set back
        required = {entry.serial for entry in self._required()}
        return timedelta() <= age < _REWRITE_AFTER and required <= {entry.serial for entry in found.entries}

    def _read(self) -> RevocationList | None:
        """Return the content of the file, which is read again whenever any process has replaced it."""
        try:
            state = state_of(self.path)
        except OSError as error:
            raise AuthorityError(
                f"{self.path} cannot be used: {error.strerror}.", code="unusable_authority_file"
            ) from error
        seen = self._seen
        if state != seen[0] or state is None:
            self._seen = seen = state, self._authority.read_revocation_list(self.path)
        return seen[1]

    def _entries(self, also: Iterable[RevokedCertificate]) -> list[RevokedCertificate]:
        entries = {entry.serial: entry for entry in (*self._foreign(), *also, *self._required())}
        return list(entries.values())

    def _required(self) -> list[RevokedCertificate]:
        # RFC 5280 section 3.3: an expired certificate stays on one more list.
        return self._revoked.revoked_certificates(self._now() - CRL_LIFETIME)

    def _foreign(self) -> Iterator[RevokedCertificate]:
        found = self._authority.read_revocation_list(self.path)
        known = {entry.serial for entry in self._revoked.revoked_certificates(_EPOCH)}
        oldest = self._now() - MAX_LIFETIME - CRL_LIFETIME
        for entry in found.entries if found is not None else ():
            if entry.serial not in known and entry.revoked_at >= oldest:
                yield entry
