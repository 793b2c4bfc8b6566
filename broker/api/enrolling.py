"""The enrolments of a ledger and its installation, for the routes of both."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from broker.access.grants import Credential
from broker.api.installation import ApiInstallation
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.fleet.enrolment_models import CreatedEnrolmentToken, EnrolmentTokenRequest
from broker.fleet.enrolments_on_ledger import LedgerEnrolments
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.pki.revocation_file import CrlNotWritten, RevocationFile

__all__ = [
    "Enrolling",
]


class Enrolling:
    """What principals may see of enrolments, and the revocation list, which the authority of the installation signs."""

    def __init__(self, database: Database, installation: ApiInstallation, *, now: Callable[[], datetime]) -> None:
        self._database = database
        self._installation = installation
        self._now = now

    def of(self, who: Credential, also: Also[Any] = nothing_else) -> LedgerEnrolments:
        """Return the enrolments as a principal sees them; without `also`, for requests that only read."""
        return LedgerEnrolments(self._database, now=self._now, groups=who.principal.groups, also=also)

    def create_token(self, who: Credential, request: EnrolmentTokenRequest, also: Also[Any]) -> CreatedEnrolmentToken:
        """Create an enrolment token as `LedgerEnrolments.create_token` does. Raises NotAvailableHere, too."""
        return self.of(who, also).create_token(
            request,
            fingerprint=self._installation.authority_fingerprint(),
            name_of_server=self._installation.name_of_server,
            server=self._installation.enrolment_url,
        )

    def revocation_file(self) -> RevocationFile:
        """Return the revocation list that the broker reads. Raises NotAvailableHere."""
        return self._installation.revocation_file(EnrolmentStore(self._database, now=self._now))

    def publish(self, listed: RevocationFile) -> None:
        """Write what is revoked into the list, unless it has all of it. Raises CrlNotWritten."""
        try:
            listed.refresh()
        except BrokerError as error:
            raise CrlNotWritten(
                f"Revoked, but the revocation list was not written: {error} Repeat the request, or run `acm ca crl`."
            ) from error
