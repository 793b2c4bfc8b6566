"""/v1/ids and /v1/servers: ids by their beginnings, and the servers that run on the ledger."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.changes import Requests
from broker.api.documented import Shapes, json_response, problems
from broker.fleet.models import IdsFound, PageOf, Role, ServerView

__all__ = [
    "search_router",
]


def search_router(requests: Requests, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes that find ids, and the servers."""
    router = APIRouter(prefix="/v1", tags=["search"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]

    @router.get("/ids", responses=shapes.returned(IdsFound, "The ids.") | problems())
    def find_ids(
        who: viewer,
        beginning: Annotated[
            str,
            Query(description="What an id begins with; capitals and dashes are not compared.", max_length=128),
        ],
    ) -> Response:
        """Find the commands and operations whose ids begin with a text, at most three of each."""
        return json_response(requests.fleet(who).find_ids(beginning))

    @router.get("/servers", responses=shapes.returned(PageOf[ServerView], "The servers.") | problems())
    def list_servers(who: viewer) -> Response:
        """List the servers that run on the ledger. Without one, nothing is sent and statuses are out of date."""
        return json_response(PageOf(requests.fleet(who).servers()))

    return router
