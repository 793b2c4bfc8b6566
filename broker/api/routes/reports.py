"""/v1/summary, /v1/unmatched-results and /v1/doctor: reports on the fleet."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.changes import Requests
from broker.api.checkup import Checkup
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.fleet.models import PageOf, Role
from broker.fleet.report_models import Diagnosis, FleetSummary, UnmatchedResultView

__all__ = [
    "reports_router",
]


def reports_router(requests: Requests, checkup: Checkup, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of reports."""
    router = APIRouter(prefix="/v1", tags=["reports"])
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN, everywhere=True))]
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]

    @router.get("/summary", responses=shapes.returned(FleetSummary, "The summary.") | problems())
    def summary(who: viewer) -> Response:
        """Count agents and open commands by state, and show the oldest command that was never sent."""
        return json_response(requests.reports(who).summary())

    @router.get(
        "/unmatched-results",
        responses=shapes.returned(PageOf[UnmatchedResultView], "A page of results.") | problems(404),
    )
    def list_unmatched(
        who: viewer,
        agent: Annotated[str | None, Query(description="Only those of this agent.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """List results that answer no open command, newest first; the newest 100 of each agent are kept.

        A page may have fewer than `limit`, also none, while `next` is there.
        """
        return json_response(requests.reports(who).unmatched(agent=agent, cursor=cursor, limit=limit))

    @router.get("/doctor", responses=shapes.returned(Diagnosis, "What was found.") | problems(501))
    def doctor(who: admin) -> Response:
        """Run the checks of `acm doctor` with the configuration of the API, on its machine, and show the findings.

        It takes at most 20 seconds, and changes nothing. Findings are up to half a minute old, or ten minutes if a
        check hangs. For a principal without groups.
        """
        return json_response(checkup.diagnosis())

    return router
