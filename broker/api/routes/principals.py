"""/v1/me and /v1/audit-log: who asks, and what principals have changed."""

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from broker.access.audit_log import AuditLog
from broker.access.grants import Credential
from broker.access.models import LoggedAction
from broker.api.access import Access
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.fleet.models import PageOf, Principal, Role

__all__ = [
    "principals_router",
]


def principals_router(audit_log: AuditLog, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of principals."""
    router = APIRouter(prefix="/v1", tags=["principals"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN, everywhere=True))]

    @router.get("/me", responses=shapes.returned(Principal, "The principal.") | problems())
    def me(who: viewer) -> Response:
        """Show the principal that the credential is of. `groups` is null for one that may see all agents."""
        return json_response(who.principal)

    @router.get("/audit-log", responses=shapes.returned(PageOf[LoggedAction], "A page of the audit log.") | problems())
    def list_actions(who: admin, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """List what principals have changed by the API, newest first. For a principal without groups."""
        return json_response(audit_log.page(cursor, limit))

    return router
