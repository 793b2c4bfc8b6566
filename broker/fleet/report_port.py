"""What an operator can read about the fleet as a whole, on a ledger or over the API."""

from typing import Protocol

from broker.fleet.models import PageOf
from broker.fleet.report_models import UnmatchedResultView

__all__ = [
    "Reports",
]


class Reports(Protocol):
    """Reports on the agents that one principal may see. Every method may raise LedgerError."""

    def unmatched(
        self, *, agent: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[UnmatchedResultView]:
        """Return a page of results that answer no open command, newest first.

        Raises UnknownAgent, and InvalidArgument for a cursor.
        """
