"""What an operator can do with enrolments, on a ledger or over the API."""

from typing import Protocol

from broker.fleet.enrolment_models import (
    CreatedEnrolmentToken,
    EnrolmentTokenView,
    EnrolmentView,
    RevocationReasonName,
    RevokedEnrolments,
)
from broker.fleet.models import PageOf

__all__ = [
    "Enrolments",
]


class Enrolments(Protocol):
    """Enrolment tokens and enrolments, as one principal may see and change them.

    Lists are read in pages, as those of `Fleet`. Every method may raise LedgerError.
    """

    def enrolment_tokens(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[EnrolmentTokenView]:
        """Return a page of tokens, newest first. Raises InvalidArgument for a cursor."""

    def create_enrolment_token(self, agent: str, *, ttl_s: float) -> CreatedEnrolmentToken:
        """Let one agent enroll, once, within so many seconds.

        Raises InvalidName and InvalidArgument, and AuthorityError if the certificate authority cannot be used.
        """

    def revoke_enrolment_token(self, token_id: str) -> EnrolmentTokenView:
        """Revoke a token that was not used. Raises UnknownToken for any other."""

    def enrolments(
        self, *, agent: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[EnrolmentView]:
        """Return a page of enrolments, newest first. Raises InvalidArgument for a cursor."""

    def revoke_enrolment(self, enrolment_id: str, *, reason: RevocationReasonName) -> EnrolmentView:
        """Revoke an enrolment, and write the revocation list; one that is revoked stays as it is.

        Raises UnknownEnrolment, AuthorityError before anything is revoked, and CrlNotWritten after that.
        """

    def revoke_agent(self, name: str, *, reason: RevocationReasonName) -> RevokedEnrolments:
        """Revoke all enrolments and unused tokens of an agent, and write the revocation list.

        Raises as `revoke_enrolment` does, UnknownEnrolment if the agent has had none.
        """
