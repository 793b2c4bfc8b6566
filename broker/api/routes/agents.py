"""/v1/agents and /v1/groups: the agents with their last statuses, and the groups they are in."""

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
from broker.api.names import AgentName
from broker.contract.states import AgentState
from broker.fleet.group_models import GroupConfigurationRequest
from broker.fleet.models import (
    AgentFilter,
    AgentView,
    ForgetRequest,
    ForgottenAgent,
    GroupView,
    MembersRequest,
    OperationView,
    PageOf,
    Role,
)

__all__ = [
    "agents_router",
]


_CONFIGURATION = {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
_MEMBERS = {"agents": ["web-01"]}
GroupName = Annotated[str, Path(description="Name of the group.", max_length=64, examples=["edge"])]


def agents_router(requests: Requests, access: Access, shapes: Shapes) -> APIRouter:
    """Return the routes of agents and groups."""
    router = APIRouter(prefix="/v1", tags=["agents"])
    viewer = Annotated[Credential, Depends(access.requires(Role.VIEWER))]
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]

    @router.get("/agents", responses=shapes.returned(PageOf[AgentView], "A page of agents.") | problems())
    def list_agents(
        who: viewer,
        name: Annotated[str | None, Query(description="Only those with this name, or pattern such as `web-*`.")] = None,
        state: Annotated[AgentState | None, Query(description="Only those in this state.")] = None,
        group: Annotated[str | None, Query(description="Only members of this group.")] = None,
        cursor: Cursor = None,
        limit: Limit = 100,
    ) -> Response:
        """List agents in order of name. A page may have fewer than `limit`, also none, while `next` is there."""
        which = AgentFilter(name, state, group)
        return json_response(requests.fleet(who).agents(which, cursor=cursor, limit=limit))

    @router.get("/agents/{name}", responses=shapes.returned(AgentView, "The agent.") | problems(404))
    def show(
        who: viewer,
        name: AgentName,
    ) -> Response:
        """Show an agent with its last status."""
        return json_response(requests.fleet(who).agent(name))

    @router.post(
        "/agents/{name}/forget",
        responses=shapes.returned(ForgottenAgent, "What was done.") | problems(404, 409, 413, 422),
        openapi_extra=shapes.taken(ForgetRequest, {"force": False}),
    )
    def forget(
        request: Request,
        who: admin,
        name: AgentName,
        body: Body,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Take an agent that is gone out of the lists and its groups. Its open commands end as interrupted.

        It is listed again when it is enrolled, sent a command with `allow_unknown`, or online.
        """
        force = decoded_body(body, ForgetRequest).force
        change = Wanted(request, who, idempotency_key, "forget agent", name, body)
        return requests.change(change, lambda fleet: fleet.forget(name, force=force))

    @router.get("/groups", responses=shapes.returned(PageOf[GroupView], "All groups.") | problems())
    def list_groups(who: viewer) -> Response:
        """List groups with their members."""
        return json_response(PageOf(requests.fleet(who).groups()))

    @router.get("/groups/{group}", responses=shapes.returned(GroupView, "The group.") | problems(404))
    def show_group(who: viewer, group: GroupName) -> Response:
        """Show a group with its members."""
        return json_response(requests.fleet(who).group(group))

    @router.post(
        "/groups/{group}/add",
        responses=shapes.returned(GroupView, "The group.") | problems(404, 413, 422),
        openapi_extra=shapes.taken(MembersRequest, _MEMBERS),
    )
    def add_to_group(
        request: Request, who: admin, group: GroupName, body: Body, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Add agents to a group, which exists from its first member on; its principals may then command them."""
        wanted = decoded_body(body, MembersRequest)
        change = Wanted(request, who, idempotency_key, f"add to group {group}", ",".join(wanted.agents), body)
        return requests.change(
            change, lambda fleet: fleet.add_to_group(group, wanted.agents, allow_unknown=wanted.allow_unknown)
        )

    @router.post(
        "/groups/{group}/remove",
        responses=shapes.returned(GroupView, "The group.") | problems(404, 413, 422),
        openapi_extra=shapes.taken(MembersRequest, _MEMBERS),
    )
    def remove_from_group(
        request: Request, who: admin, group: GroupName, body: Body, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Remove agents from a group; those that are not in it are ignored."""
        agents = decoded_body(body, MembersRequest).agents
        change = Wanted(request, who, idempotency_key, f"remove from group {group}", ",".join(agents), body)
        return requests.change(change, lambda fleet: fleet.remove_from_group(group, agents))

    @router.post(
        "/groups/{group}/configure",
        status_code=201,
        responses=shapes.returned(OperationView, "The operation that sends it.", 201) | problems(404, 413, 422),
        openapi_extra=shapes.taken(GroupConfigurationRequest, _CONFIGURATION),
    )
    def configure_group(
        request: Request, who: admin, group: GroupName, body: Body, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Make a stored file the configuration of a group, and send it to the members.

        Agents that ask for their configuration later (`fetch-config`) get it, too. Whether it can be read is up to the
        agents.
        """
        sha256 = decoded_body(body, GroupConfigurationRequest).sha256
        change = Wanted(request, who, idempotency_key, f"configure group {group}", sha256, body)
        return requests.change(change, lambda fleet: fleet.configure_group(group, sha256), 201)

    return router
