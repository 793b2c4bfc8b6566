"""/v1/enrolment-tokens: one-time tokens with which agents enroll."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.bodies import Body, decoded_body
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.enrolling import Enrolling
from broker.api.lists import Cursor, Limit
from broker.api.names import TokenId
from broker.enrolment.tokens import TokenState
from broker.fleet.enrolment_models import CreatedEnrolmentToken, EnrolmentTokenRequest, EnrolmentTokenView
from broker.fleet.models import PageOf, Role

__all__ = [
    "enrolment_tokens_router",
]


_CREATE = {"agent": "web-01", "ttl_s": 3600}


def enrolment_tokens_router(requests: Requests, enrolling: Enrolling, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of enrolment tokens."""
    router = APIRouter(prefix="/v1/enrolment-tokens", tags=["enrolment-tokens"])
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]

    @router.get("", responses=shapes.returned(PageOf[EnrolmentTokenView], "A page of tokens.") | problems())
    def list_tokens(
        who: admin,
        agent: Annotated[str | None, Query(description="Only those for this agent.")] = None,
        state: Annotated[TokenState | None, Query(description="Only those in this state.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """List tokens without their secrets, newest first.

        A page may have fewer than `limit`, also none, while `next` is there.
        """
        return json_response(enrolling.of(who).tokens(agent=agent, state=state, cursor=cursor, limit=limit))

    @router.post(
        "",
        status_code=201,
        responses=shapes.returned(CreatedEnrolmentToken, "The token, with its text.", 201)
        | problems(404, 413, 422, 501),
        openapi_extra=shapes.taken(EnrolmentTokenRequest, _CREATE),
    )
    def create(
        request: Request,
        who: admin,
        body: Body,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Create a token, and return its text, which is shown only here. Its bearer can enroll as this agent, once."""
        wanted = decoded_body(body, EnrolmentTokenRequest)
        change = Wanted(request, who, idempotency_key, "create enrolment token", wanted.agent, body)
        return requests.once(change, lambda also: enrolling.create_token(who, wanted, also), 201)

    @router.post("/{token_id}/revoke", responses=shapes.returned(EnrolmentTokenView, "The token.") | problems(404, 422))
    def revoke(request: Request, who: admin, token_id: TokenId, idempotency_key: IdempotencyKey = None) -> Response:
        """Revoke a token that was not used. For a used one, revoke the enrolment that was made with it."""
        change = Wanted(request, who, idempotency_key, "revoke enrolment token", token_id)
        return requests.once(change, lambda also: enrolling.of(who, also).revoke_token(token_id))

    return router
