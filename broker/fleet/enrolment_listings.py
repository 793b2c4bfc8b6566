"""Lists of enrolments and enrolment tokens on a ledger, as a principal may see them."""

from collections.abc import Callable
from datetime import datetime

from broker.enrolment.listings import EnrolmentListing, TokenListing, listed_enrolments, listed_tokens
from broker.fleet.enrolment_models import EnrolmentTokenView, EnrolmentView
from broker.fleet.enrolments_on_ledger import view_of_enrolment, view_of_enrolment_token
from broker.fleet.listed import Listed
from broker.ledger.database import Database

__all__ = [
    "LedgerEnrolmentListings",
]


class LedgerEnrolmentListings:
    """The enrolments and tokens of all agents, or of those in one of `groups`. Every method may raise LedgerError."""

    def __init__(self, database: Database, now: Callable[[], datetime], groups: frozenset[str] | None) -> None:
        self._database = database
        self._now = now
        self._groups = groups

    def enrolments(self, which: EnrolmentListing, *, skip: int, limit: int) -> Listed[EnrolmentView]:
        """Return at most `limit` enrolments of a list, after the first `skip`."""
        now = self._now()
        rows, total = listed_enrolments(self._database, which, self._groups, now, skip=skip, limit=limit)
        return Listed(tuple(view_of_enrolment(row, now) for row in rows), total)

    def tokens(self, which: TokenListing, *, skip: int, limit: int) -> Listed[EnrolmentTokenView]:
        """Return at most `limit` tokens of a list, after the first `skip`."""
        rows, total = listed_tokens(self._database, which, self._groups, self._now(), skip=skip, limit=limit)
        return Listed(tuple(map(view_of_enrolment_token, rows)), total)
