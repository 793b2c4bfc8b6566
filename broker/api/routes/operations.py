"""/v1/operations: commands that were sent to many agents at once."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.api.pulse import Pulse
from broker.api.waiting import WaitSeconds, when_done
from broker.fleet.models import CancelledCommands, OperationProgress, OperationView, PageOf, Role, Sent

__all__ = [
    "operations_router",
]


OperationId = Annotated[
    str, Path(description="The id of the operation.", max_length=128, examples=["0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"])
]


def operations_router(requests: Requests, access: Access, shapes: Shapes, pulse: Pulse) -> APIRouter:
    """Return the routes of operations."""
    router = APIRouter(prefix="/v1/operations", tags=["operations"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    operator = Annotated[Credential, Depends(access.requires(Role.OPERATOR))]

    @router.get("", responses=shapes.returned(PageOf[OperationView], "A page of operations.") | problems())
    def list_operations(who: viewer, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """List operations, newest first."""
        return json_response(requests.fleet(who).operations(cursor=cursor, limit=limit))

    @router.get("/{operation_id}", responses=shapes.returned(OperationProgress, "The operation.") | problems(404))
    async def show(who: viewer, operation_id: OperationId, wait_s: WaitSeconds = 0) -> Response:
        """Show how many of its commands are in each state; `/v1/commands?operation=ID` has the commands."""
        fleet = requests.fleet(who)
        progress = await when_done(pulse, lambda: fleet.operation(operation_id), lambda it: it.done, wait_s)
        return json_response(progress)

    @router.post(
        "/{operation_id}/cancel", responses=shapes.returned(CancelledCommands, "Those commands.") | problems(404, 422)
    )
    def cancel(
        request: Request, who: operator, operation_id: OperationId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Request the cancellation of all its open commands. Their results report the outcome."""
        change = Wanted(request, who, idempotency_key, "cancel", operation_id)
        return requests.change(change, lambda fleet: fleet.cancel_operation(operation_id))

    @router.post(
        "/{operation_id}/abandon", responses=shapes.returned(CancelledCommands, "Those commands.") | problems(404, 422)
    )
    def abandon(
        request: Request, who: operator, operation_id: OperationId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Mark all its open commands as interrupted without asking their agents. They may have run, or still run."""
        change = Wanted(request, who, idempotency_key, "abandon", operation_id)
        return requests.change(change, lambda fleet: fleet.abandon_operation(operation_id))

    @router.post(
        "/{operation_id}/retry",
        status_code=201,
        responses=shapes.returned(Sent, "The new operation was added to the ledger.", 201) | problems(404, 409, 422),
    )
    def retry(
        request: Request, who: operator, operation_id: OperationId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Send those of its commands again that have ended in an error, as a new operation."""
        change = Wanted(request, who, idempotency_key, "retry", operation_id)
        return requests.change(change, lambda fleet: fleet.retry_operation(operation_id), 201)

    return router
