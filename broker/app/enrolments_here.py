"""Enrolments on the server's machine: on its ledger, with the certificate authority of its configuration."""

from broker.app.config import ServerConfig, enrolment_url
from broker.app.credentials import open_authority, open_revocation_file
from broker.enrolment.store import EnrolmentStore
from broker.errors import BrokerError
from broker.fleet.enrolment_models import (
    CreatedEnrolmentToken,
    EnrolmentTokenRequest,
    EnrolmentTokenView,
    EnrolmentView,
    RevocationReasonName,
    RevocationRequest,
    RevokedEnrolments,
)
from broker.fleet.enrolments_on_ledger import LedgerEnrolments
from broker.fleet.models import PageOf
from broker.ledger.clock import LedgerClock
from broker.ledger.database import Database
from broker.pki.revocation_file import CrlNotWritten, RevocationFile

__all__ = [
    "EnrolmentsHere",
]


class EnrolmentsHere:
    """The `Enrolments` of a configuration. The authority is opened when it is needed; raises AuthorityError."""

    def __init__(self, database: Database, config: ServerConfig, *, now: LedgerClock) -> None:
        self._ledger = LedgerEnrolments(database, now=now)
        self._store = EnrolmentStore(database, now=now)
        self._config = config

    def enrolment_tokens(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[EnrolmentTokenView]:
        """Return a page of tokens, newest first."""
        return self._ledger.tokens(cursor=cursor, limit=limit)

    def create_enrolment_token(self, agent: str, *, ttl_s: float) -> CreatedEnrolmentToken:
        """Let one agent enroll, once, within so many seconds."""
        return self._ledger.create_token(
            EnrolmentTokenRequest(agent, ttl_s),
            fingerprint=open_authority(self._config).fingerprint,
            name_of_server=self._config.client_id,
            server=enrolment_url(self._config),
        )

    def revoke_enrolment_token(self, token_id: str) -> EnrolmentTokenView:
        """Revoke a token that was not used."""
        return self._ledger.revoke_token(token_id)

    def enrolments(
        self, *, agent: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[EnrolmentView]:
        """Return a page of enrolments, newest first."""
        return self._ledger.enrolments(agent=agent, cursor=cursor, limit=limit)

    def revoke_enrolment(self, enrolment_id: str, *, reason: RevocationReasonName) -> EnrolmentView:
        """Revoke an enrolment, and write the revocation list."""
        listed = self._revocation_file()
        revoked = self._ledger.revoke_enrolment(enrolment_id, RevocationRequest(reason))
        _write(listed)
        return revoked

    def revoke_agent(self, name: str, *, reason: RevocationReasonName) -> RevokedEnrolments:
        """Revoke all enrolments and unused tokens of an agent, and write the revocation list."""
        listed = self._revocation_file()
        revoked = self._ledger.revoke_agent(name, RevocationRequest(reason))
        _write(listed)
        return revoked

    def _revocation_file(self) -> RevocationFile:
        """Open it before anything is revoked, so that an authority that cannot be used is reported first."""
        return open_revocation_file(self._config, open_authority(self._config), self._store)


def _write(listed: RevocationFile) -> None:
    try:
        listed.write()
    except BrokerError as error:
        raise CrlNotWritten(f"Revoked, but the revocation list was not written: {error} Run `acm ca crl`.") from error
