"""/v1/agents/{name}/audit: how far an agent's journal was compared with the ledger, and such comparisons."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.audits import Audits
from broker.api.changes import Requests
from broker.api.documented import Shapes, json_response, problems
from broker.api.names import AgentName
from broker.fleet.models import Role
from broker.fleet.report_models import AuditState, AuditVerdict

__all__ = [
    "audits_router",
]


_LONGEST_S = 600.0
_WaitSeconds = Annotated[
    float, Query(gt=0, le=_LONGEST_S, description="How long the agent's answers are waited for, in seconds.")
]


def audits_router(requests: Requests, audits: Audits, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of audits."""
    router = APIRouter(prefix="/v1/agents/{name}/audit", tags=["audits"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]
    compared = shapes.returned(AuditVerdict, "The comparison.") | problems(404, 424)

    @router.get("", responses=shapes.returned(AuditState, "How far it was verified.") | problems(404))
    def audit_state(who: viewer, name: AgentName) -> Response:
        """Show how far the agent's audit journal was compared with the ledger."""
        return json_response(requests.reports(who).audit_state(name))

    @router.post("/verify", responses=compared)
    def verify(who: admin, name: AgentName, wait_s: _WaitSeconds = 60) -> Response:
        """Fetch the agent's audit journal, compare it with the ledger, and answer with the differences.

        The agent must be online: it is asked by commands. A repeat compares again.
        """
        done = audits.run(who, "verify audit", name, lambda it: it.verify_journal(name, wait_s))
        return json_response(done)

    @router.post("/accept", responses=compared)
    def accept(who: admin, name: AgentName, wait_s: _WaitSeconds = 60) -> Response:
        """Compare as `verify` does, and report the differences up to here never again."""
        done = audits.run(who, "accept audit", name, lambda it: it.accept_journal(name, wait_s))
        return json_response(done)

    return router
