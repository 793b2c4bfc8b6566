"""The requests of the API about reports on the fleet."""

from urllib.parse import quote

from broker.client.calls import Call, given_parameters
from broker.fleet.models import PageOf
from broker.fleet.report_models import AuditState, AuditVerdict, Diagnosis, FleetSummary, UnmatchedResultView

__all__ = [
    "for_audit_state",
    "for_diagnosis",
    "for_summary",
    "for_unmatched",
    "to_audit",
]


def for_summary() -> Call[FleetSummary]:
    """Return the call for the summary of the fleet."""
    return Call("GET", "/v1/summary", FleetSummary)


def for_unmatched(agent: str | None, cursor: str | None, limit: int) -> Call[PageOf[UnmatchedResultView]]:
    """Return the call for a page of results that answer no open command."""
    query = given_parameters({"agent": agent, "cursor": cursor, "limit": limit})
    return Call("GET", "/v1/unmatched-results", PageOf[UnmatchedResultView], query)


def for_audit_state(agent: str) -> Call[AuditState]:
    """Return the call for how far the journal of an agent was verified."""
    return Call("GET", f"/v1/agents/{quote(agent, safe='')}/audit", AuditState)


def to_audit(agent: str, action: str, wait_s: float) -> Call[AuditVerdict]:
    """Return the call that compares the journal of an agent, to verify or to accept it."""
    path = f"/v1/agents/{quote(agent, safe='')}/audit/{action}"
    return Call("POST", path, AuditVerdict, given_parameters({"wait_s": wait_s}))


def for_diagnosis() -> Call[Diagnosis]:
    """Return the call for the findings of the doctor."""
    return Call("GET", "/v1/doctor", Diagnosis)
