"""/metrics: what Prometheus reads of the API."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.documented import problems
from broker.fleet.models import Role
from broker.metrics.exposition import CONTENT_TYPE

__all__ = [
    "metrics_router",
]


_TEXT = {"description": "The metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}


def metrics_router(exposition: Callable[[], bytes], access: Access) -> APIRouter:
    """Return the route of the metrics."""
    router = APIRouter(tags=["metrics"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER, everywhere=True))]

    @router.get("/metrics", responses={200: _TEXT, **problems()}, response_class=Response)
    def read(_: viewer) -> Response:
        """Show the metrics of the ledger and of this API as text for Prometheus; for a principal without groups.

        What is in the ledger is five seconds old at most, or older if reading it takes long.
        """
        return Response(exposition(), headers={"Content-Type": CONTENT_TYPE})

    return router
