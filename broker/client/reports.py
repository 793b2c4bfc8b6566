"""The synchronous calls about reports on the fleet."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from broker.client import report_calls
from broker.client.calls import Call
from broker.fleet.models import CommandView, PageOf
from broker.fleet.report_models import AuditState, AuditVerdict, Diagnosis, FleetSummary, UnmatchedResultView

__all__ = [
    "ReportClient",
]


_Answer = TypeVar("_Answer")


class ReportClient(ABC):
    """The part of `Client` for reports."""

    def summary(self) -> FleetSummary:
        """Return how many agents and open commands are in each state."""
        return self._do(report_calls.for_summary())

    def unmatched(
        self, *, agent: str | None = None, cursor: str | None = None, limit: int = 100
    ) -> PageOf[UnmatchedResultView]:
        """Return a page of results that answer no open command, newest first."""
        return self._do(report_calls.for_unmatched(agent, cursor, limit))

    def audit_state(self, agent: str) -> AuditState:
        """Return how far the journal of an agent was verified."""
        return self._do(report_calls.for_audit_state(agent))

    def verify_journal(
        self, agent: str, wait_s: float = 60.0, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Compare the journal of an agent with the ledger, within so many seconds; `seen` is not called."""
        return self._do(report_calls.to_audit(agent, "verify", wait_s))

    def accept_journal(
        self, agent: str, wait_s: float = 60.0, seen: Callable[[CommandView], None] | None = None
    ) -> AuditVerdict:
        """Compare the journal likewise, and report the differences up to here never again."""
        return self._do(report_calls.to_audit(agent, "accept", wait_s))

    def diagnosis(self) -> Diagnosis:
        """Return what the doctor finds on the machine of the API, within 20 seconds."""
        return self._do(report_calls.for_diagnosis())

    @abstractmethod
    def _do(self, call: Call[_Answer]) -> _Answer:
        """Return the answer to a call."""
