"""/healthz and /readyz: what a service manager, a load balancer or a watcher asks. No credential is needed."""

from collections.abc import Callable
from http import HTTPStatus

import msgspec
from fastapi import APIRouter
from starlette.responses import Response

from broker.api.documented import Shapes, json_response
from broker.system.readiness import HEALTHY, HealthReport, ReadinessReport

__all__ = [
    "health_router",
]


def health_router(readiness: Callable[[], ReadinessReport], shapes: Shapes) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["health"])
    healthy = shapes.returned(HealthReport, "The API answers.")
    ready = shapes.returned(ReadinessReport, "All checks are ok.") | shapes.returned(
        ReadinessReport, "A check is not ok.", 503
    )

    @router.get("/healthz", responses=healthy, openapi_extra={"security": []})
    async def healthz() -> Response:
        """Answer at once, from the loop that serves all requests."""
        return json_response(HEALTHY)

    @router.get("/readyz", responses=ready, openapi_extra={"security": []})
    def readyz() -> Response:
        """Show whether the ledger answers, and a server on it runs, is connected, and receives what has arrived."""
        found = readiness()
        status = HTTPStatus.OK if found.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(msgspec.json.encode(found), int(status), media_type="application/json")

    return router
