"""/v1/commands: send, list, show, cancel and abandon commands."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.bodies import Body, decoded_body
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.api.pulse import Pulse
from broker.api.times import utc_or_none
from broker.api.waiting import WaitSeconds, when_done
from broker.contract.states import CommandState, Outcome
from broker.fleet.explanation import CommandTimeline
from broker.fleet.models import CommandFilter, CommandView, PageOf, Role, SendRequest, Sent

__all__ = [
    "commands_router",
]


CommandId = Annotated[
    str, Path(description="The id of the command.", max_length=128, examples=["0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"])
]
_SEND = {"type": "restart-agent", "agents": ["web-01"], "expires_in_s": 600}


def commands_router(requests: Requests, access: Access, shapes: Shapes, pulse: Pulse) -> APIRouter:
    """Return the routes of commands."""
    router = APIRouter(prefix="/v1/commands", tags=["commands"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    operator = Annotated[Credential, Depends(access.requires(Role.OPERATOR))]

    @router.post(
        "",
        status_code=201,
        responses=shapes.returned(Sent, "It was added to the ledger.", 201)
        | shapes.returned(Sent, "It was a dry run: nothing was sent.", 200)
        | problems(404, 413, 422),
        openapi_extra=shapes.taken(SendRequest, _SEND),
    )
    def send(
        request: Request,
        who: operator,
        body: Body,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Send a command to one agent, several, a group or all.

        For the name of one agent the answer is the command, otherwise an operation to follow. The running server sends
        what is in the ledger; the answer does not wait for it.
        """
        wanted = decoded_body(body, SendRequest)
        target = ",".join(wanted.agents) or (f"group {wanted.group}" if wanted.group else "all agents")
        key = None if wanted.dry_run else idempotency_key
        change = Wanted(request, who, key, f"send {wanted.type}", target, body)
        return requests.change(change, lambda fleet: fleet.send(wanted), 200 if wanted.dry_run else 201)

    @router.get("", responses=shapes.returned(PageOf[CommandView], "A page of commands.") | problems(404))
    def list_commands(
        who: viewer,
        agent: Annotated[str | None, Query(description="Only those to this agent.")] = None,
        type: Annotated[str | None, Query(description="Only those of this type.")] = None,
        state: Annotated[CommandState | None, Query(description="Only those in this state.")] = None,
        outcome: Annotated[Outcome | None, Query(description="Only those that ended so.")] = None,
        operation: Annotated[str | None, Query(description="Only those of this operation, by agent.")] = None,
        since: Annotated[datetime | None, Query(description="Only those created then or later.")] = None,
        until: Annotated[datetime | None, Query(description="Only those created before.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """List commands, newest first. A page may have fewer than `limit`, also none, while `next` is there."""
        which = CommandFilter(agent, type, state, outcome, operation, utc_or_none(since), utc_or_none(until))
        return json_response(requests.fleet(who).commands(which, cursor=cursor, limit=limit))

    @router.get("/{command_id}", responses=shapes.returned(CommandView, "The command.") | problems(404))
    async def show(who: viewer, command_id: CommandId, wait_s: WaitSeconds = 0) -> Response:
        """Show a command with its state and its result."""
        fleet = requests.fleet(who)
        command = await when_done(pulse, lambda: fleet.command(command_id), _is_completed, wait_s)
        return json_response(command)

    @router.get("/{command_id}/timeline", responses=shapes.returned(CommandTimeline, "The timeline.") | problems(404))
    def timeline(who: viewer, command_id: CommandId) -> Response:
        """Show every hop of a command with its time and where that went; of an open one, why it waits, and what to do.

        Two clocks appear, and neither corrects the other: the ledger's and that of the agent's machine.
        """
        return json_response(requests.fleet(who).timeline(command_id))

    @router.post(
        "/{command_id}/cancel", responses=shapes.returned(CommandView, "The command.") | problems(404, 409, 422)
    )
    def cancel(
        request: Request, who: operator, command_id: CommandId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Request the cancellation of a command. Its result reports the outcome."""
        change = Wanted(request, who, idempotency_key, "cancel", command_id)
        return requests.change(change, lambda fleet: fleet.cancel(command_id))

    @router.post(
        "/{command_id}/abandon", responses=shapes.returned(CommandView, "The command.") | problems(404, 409, 422)
    )
    def abandon(
        request: Request, who: operator, command_id: CommandId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Mark a command as interrupted without asking its agent. It may have run, or may still run."""
        change = Wanted(request, who, idempotency_key, "abandon", command_id)
        return requests.change(change, lambda fleet: fleet.abandon(command_id))

    @router.post(
        "/{command_id}/retry",
        status_code=201,
        responses=shapes.returned(Sent, "The new command was added to the ledger.", 201) | problems(404, 409, 422),
    )
    def retry(
        request: Request, who: operator, command_id: CommandId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Send a command again that has ended: a new one with the same parameters, timeout and time to expire."""
        change = Wanted(request, who, idempotency_key, "retry", command_id)
        return requests.change(change, lambda fleet: fleet.retry(command_id), 201)

    return router


def _is_completed(command: CommandView) -> bool:
    return command.state is CommandState.COMPLETED
