"""Comparisons of agents' audit journals with the ledger, on a ledger or over the API."""

from collections.abc import Callable
from typing import Protocol

from broker.fleet.models import CommandView
from broker.fleet.report_models import AuditVerdict

__all__ = [
    "JournalAudits",
]


class JournalAudits(Protocol):
    """Fetches the journal of an agent, by commands, and compares it. Every method may raise LedgerError.

    It takes at most `wait_s` seconds. `seen` gets the commands that it waits for, on a ledger. Raises UnknownAgent,
    WaitTimeout if the journal did not arrive in time, CommandFailed, and AuditError for one that cannot be read.
    """

    def verify_journal(
        self, agent: str, wait_s: float, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Return the differences, and remember up to where there were none."""

    def accept_journal(
        self, agent: str, wait_s: float, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Return the differences, and report those up to here never again."""
