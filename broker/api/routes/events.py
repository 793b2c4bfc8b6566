"""/v1/events: what happens to commands and agents, as it happens."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.changes import Requests
from broker.api.documented import Shapes, problems
from broker.api.event_stream import EventStreams
from broker.api.times import utc_or_none
from broker.fleet.models import EventFilter, EventView, Role
from broker.ledger.event_types import EventType

__all__ = [
    "events_router",
]


_STREAM = (
    "The events, each with its `id`, the name of its type in `event`, and this JSON in `data`. An `id` without `data` "
    "moves the position of a client whose filter leaves nothing."
)
_MOST = 2**53  # of what JavaScript, too, reads from JSON as it is
LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        description="The id of the last event that the client has, as browsers send it: takes the place of `after` and "
        "`since`.",
        ge=0,
        le=_MOST,
    ),
]


def events_router(requests: Requests, access: Access, shapes: Shapes, streams: EventStreams) -> APIRouter:
    """Return the route of events."""
    router = APIRouter(prefix="/v1", tags=["events"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]

    @router.get("/events", responses=shapes.streamed(EventView, _STREAM) | problems(404, 410))
    async def follow_events(
        who: viewer,
        type: Annotated[EventType | None, Query(description="Only those of this type.")] = None,
        agent: Annotated[str | None, Query(description="Only those of this agent and its commands.")] = None,
        command: Annotated[str | None, Query(description="Only those of this command.")] = None,
        operation: Annotated[str | None, Query(description="Only those of the commands of this operation.")] = None,
        after: Annotated[
            int | None,
            Query(description="Begin after the event with this id; 0: with all that are kept.", ge=0, le=_MOST),
        ] = None,
        since: Annotated[datetime | None, Query(description="Begin with the first one since then.")] = None,
        follow: Annotated[bool, Query(description="Whether to continue with what happens later.")] = True,
        last_event_id: LastEventId = None,
    ) -> Response:
        """Report events in their order, each once, as server-sent events; without a start, from now on.

        Repeat the request with the id of the last event when the connection has ended: nothing is lost or repeated.
        """
        fleet = requests.fleet(who)
        start = (after, utc_or_none(since)) if last_event_id is None else (last_event_id, None)
        which = EventFilter(type, agent, command, operation)
        span = await run_in_threadpool(fleet.span_of_events, which, *start, follow=follow)
        return streams.answer(who, span)

    return router
