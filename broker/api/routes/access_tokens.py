"""/v1/access-tokens: the access tokens of the API's principals."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from broker.access.access_tokens import AccessTokenStore, view_of_token, with_text
from broker.access.grants import Credential
from broker.access.models import AccessTokenRequest, AccessTokenView, CreatedAccessToken
from broker.api.access import Access
from broker.api.bodies import Body, decoded_body
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.api.names import TokenId
from broker.api.problems import Forbidden
from broker.fleet.models import PageOf, Principal, Role
from broker.ledger.also import Also

__all__ = [
    "access_tokens_router",
]


_CREATE = {"principal": "alice", "role": "operator", "groups": ["edge"], "ttl_s": 2592000}


def access_tokens_router(requests: Requests, tokens: AccessTokenStore, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of access tokens. A principal with groups sees and makes only tokens for some of these."""
    router = APIRouter(prefix="/v1/access-tokens", tags=["access-tokens"])
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]

    @router.get("", responses=shapes.returned(PageOf[AccessTokenView], "A page of tokens.") | problems())
    def list_tokens(who: admin, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """List access tokens without their secrets, newest first.

        A page may have fewer than `limit`, also none, while `next` is there.
        """
        found, end = tokens.page(cursor, limit, who.principal.groups)
        return json_response(PageOf(tuple(map(view_of_token, found)), end))

    @router.post(
        "",
        status_code=201,
        responses=shapes.returned(CreatedAccessToken, "The token, with its text.", 201) | problems(413, 422),
        openapi_extra=shapes.taken(AccessTokenRequest, _CREATE),
    )
    def create(
        request: Request,
        who: admin,
        body: Body,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Create an access token, and return its text, which is shown only here.

        It never has a role or groups that its creator does not have.
        """
        wanted = decoded_body(body, AccessTokenRequest)
        principal = _allowed(who.principal, wanted)
        groups = "all agents" if wanted.groups is None else ", ".join(sorted(wanted.groups))
        target = f"{wanted.principal} as {wanted.role} for {groups}"
        change = Wanted(request, who, idempotency_key, "create access token", target, body)
        return requests.once(change, lambda also: _create(who, principal, wanted.ttl_s, also), 201)

    def _create(who: Credential, principal: Principal, ttl_s: float, also: Also[Any]) -> CreatedAccessToken:
        lifetime, within = timedelta(seconds=ttl_s), who.principal.groups
        made = tokens.add(
            principal,
            lifetime,
            who.principal.name,
            within=within,
            also=lambda connection, it: also(connection, with_text(it)),
        )
        return with_text(made)

    @router.post("/{token_id}/revoke", responses=shapes.returned(AccessTokenView, "The token.") | problems(404, 422))
    def revoke(request: Request, who: admin, token_id: TokenId, idempotency_key: IdempotencyKey = None) -> Response:
        """Revoke an access token: its bearer is refused from now on. What it has sent stays."""
        change = Wanted(request, who, idempotency_key, "revoke access token", token_id)
        return requests.once(change, lambda also: _revoke(who, token_id, also))

    def _revoke(who: Credential, token_id: str, also: Also[Any]) -> AccessTokenView:
        return view_of_token(
            tokens.revoke(token_id, who.principal.groups, lambda connection, it: also(connection, view_of_token(it)))
        )

    return router


def _allowed(creator: Principal, wanted: AccessTokenRequest) -> Principal:
    """Return the principal of the new token; raises Forbidden if it would have more rights than its creator."""
    groups = None if wanted.groups is None else frozenset(wanted.groups)
    if not creator.role.includes(wanted.role):
        raise Forbidden(f"{creator.name} is {creator.role}, and cannot make a token for the role {wanted.role}.")
    if creator.groups is not None and (groups is None or not groups <= creator.groups):
        raise Forbidden(
            f"{creator.name} is for the groups {', '.join(sorted(creator.groups))} alone: give `groups` with some of "
            "these."
        )
    return Principal(wanted.principal, wanted.role, groups)
