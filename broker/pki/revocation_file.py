"""The certificate revocation list (CRL) in a file that the broker reads."""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from broker.pki.authority import CRL_LIFETIME, AuthorityError, CertificateAuthority
from broker.pki.certificates import MAX_LIFETIME
from broker.pki.revocation_list import RevocationList, RevokedCertificate
from broker.system.files import state_of

__all__ = [
    "RevocationFile",
]


_REWRITE_AFTER = timedelta(days=1)
_EPOCH = datetime.fromtimestamp(0, UTC)


class RevokedCertificates(Protocol):
    """The source of the entries that must be on the list."""

    def revoked_certificates(self, not_after: datetime) -> list[RevokedCertificate]:
        """Return the revoked certificates that did not expire before `not_after`; raises LedgerError."""
        ...


class RevocationFile:
    """The revocation list of one authority in one file. Its methods raise AuthorityError and LedgerError.

    What the file names and the database does not is kept: what another process has put there, and what was revoked
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
        self._seen: tuple[tuple[int, int, int] | None, RevocationList | None] = (None, None)  # any thread may read

    def write(self, *also: RevokedCertificate) -> datetime:
        """Write the list anew, with `also` on it; return until when it holds."""
        return self._authority.write_revocation_list(lambda: self._entries(also), self.path)

    def refresh(self) -> bool:
        """Write the list unless the file has all that it must, and is of the last day; return whether it was."""
        due = not self._is_good()
        if due:
            self.write()
        return due

    def names(self, serial: int) -> bool:
        """Return whether the file names this certificate."""
        found = self._read()
        return found is not None and serial in {entry.serial for entry in found.entries}

    def _is_good(self) -> bool:
        found = self._read()
        if found is None:
            return False
        age = self._now() - (found.until - CRL_LIFETIME)  # less than nothing where the clock went back
        needed = {entry.serial for entry in self._needed()}
        return timedelta() <= age < _REWRITE_AFTER and needed <= {entry.serial for entry in found.entries}

    def _read(self) -> RevocationList | None:
        """Return what the file says; it is read again when it was replaced, by whomever."""
        try:
            state = state_of(self.path)
        except OSError as error:
            raise AuthorityError(f"{self.path} cannot be used: {error.strerror}.") from error
        seen = self._seen
        if state != seen[0] or state is None:
            self._seen = seen = state, self._authority.read_revocation_list(self.path)
        return seen[1]

    def _entries(self, also: Iterable[RevokedCertificate]) -> list[RevokedCertificate]:
        entries = {entry.serial: entry for entry in (*self._foreign(), *also, *self._needed())}
        return list(entries.values())

    def _needed(self) -> list[RevokedCertificate]:
        # RFC 5280 section 3.3: a certificate that has ended stays on one more list.
        return self._revoked.revoked_certificates(self._now() - CRL_LIFETIME)

    def _foreign(self) -> Iterator[RevokedCertificate]:
        found = self._authority.read_revocation_list(self.path)
        known = {entry.serial for entry in self._revoked.revoked_certificates(_EPOCH)}
        oldest = self._now() - MAX_LIFETIME - CRL_LIFETIME
        for entry in found.entries if found is not None else ():
            if entry.serial not in known and entry.revoked_at >= oldest:
                yield entry
