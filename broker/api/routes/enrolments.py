"""/v1/enrolments: the enrolments of agents, and their revocation."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.bodies import Body, decoded_body
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.enrolling import Enrolling
from broker.api.lists import Cursor, Limit
from broker.api.names import AgentName
from broker.enrolment.enrolment_states import EnrolmentState
from broker.fleet.enrolment_models import EnrolmentView, RevocationRequest, RevokedEnrolments
from broker.fleet.enrolments_on_ledger import LedgerEnrolments
from broker.fleet.models import PageOf, Role
from broker.ledger.also import Also

__all__ = [
    "enrolments_router",
]


_REVOKE = {"reason": "key-compromise"}
EnrolmentId = Annotated[
    str, Path(description="The id of the enrolment.", max_length=64, examples=["0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"])
]


def enrolments_router(requests: Requests, enrolling: Enrolling, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of enrolments."""
    router = APIRouter(prefix="/v1", tags=["enrolments"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]

    @router.get("/enrolments", responses=shapes.returned(PageOf[EnrolmentView], "A page of enrolments.") | problems())
    def list_enrolments(
        who: viewer,
        agent: Annotated[str | None, Query(description="Only those of this agent.")] = None,
        state: Annotated[EnrolmentState | None, Query(description="Only those in this state.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """List enrolments, newest first. A page may have fewer than `limit`, also none, while `next` is there."""
        page = enrolling.of(who).enrolments(agent=agent, state=state, cursor=cursor, limit=limit)
        return json_response(page)

    @router.get(
        "/enrolments/{enrolment_id}", responses=shapes.returned(EnrolmentView, "The enrolment.") | problems(404)
    )
    def show(who: viewer, enrolment_id: EnrolmentId) -> Response:
        """Show an enrolment with its newest certificate."""
        return json_response(enrolling.of(who).enrolment(enrolment_id))

    @router.post(
        "/enrolments/{enrolment_id}/revoke",
        responses=shapes.returned(EnrolmentView, "The enrolment.") | problems(404, 413, 422, 501),
        openapi_extra=shapes.taken(RevocationRequest, _REVOKE),
    )
    def revoke(
        request: Request, who: admin, enrolment_id: EnrolmentId, body: Body, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Revoke an enrolment, and write the revocation list; the broker then refuses its certificates.

        One that is revoked stays as it is.
        """
        reason = decoded_body(body, RevocationRequest)
        change = Wanted(request, who, idempotency_key, "revoke enrolment", enrolment_id, body)
        return _revoke(change, lambda enrolments: enrolments.revoke_enrolment(enrolment_id, reason))

    @router.post(
        "/agents/{name}/revoke",
        responses=shapes.returned(RevokedEnrolments, "What it has revoked.") | problems(404, 413, 422, 501),
        openapi_extra=shapes.taken(RevocationRequest, _REVOKE),
    )
    def revoke_agent(
        request: Request, who: admin, name: AgentName, body: Body, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Revoke all enrolments and unused tokens of an agent, and write the revocation list."""
        reason = decoded_body(body, RevocationRequest)
        change = Wanted(request, who, idempotency_key, "revoke agent", name, body)
        return _revoke(change, lambda enrolments: enrolments.revoke_agent(name, reason))

    def _revoke(change: Wanted, call: Callable[[LedgerEnrolments], Any]) -> Response:
        listed = enrolling.revocation_file()  # an authority that cannot be used is reported before anything is revoked

        def revoked(also: Also[Any]) -> Any:
            return call(enrolling.of(change.credential, also))

        answer = requests.once(change, revoked)
        enrolling.publish(listed)  # also for a repeat: the first request may have been killed before this
        return answer

    return router
