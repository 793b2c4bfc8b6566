"""What an operator sees of the fleet, and what can be asked of it: the shapes that the API and its client share.

Times are aware datetimes in UTC (RFC 3339 in JSON), durations are seconds. Imports neither SQLAlchemy nor pydantic.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import msgspec

from broker.contract.messages import JsonObject
from broker.contract.states import AgentState, CommandState, ErrorCode, Outcome
from broker.fleet.described import says
from broker.ledger.event_types import EventType

__all__ = [
    "MAX_PAGE",
    "AgentFilter",
    "AgentView",
    "CancelledCommands",
    "CommandFilter",
    "CommandView",
    "EventFilter",
    "EventView",
    "ForgetRequest",
    "ForgottenAgent",
    "GroupView",
    "IdsFound",
    "MembersRequest",
    "OperationProgress",
    "OperationView",
    "PageOf",
    "Principal",
    "Role",
    "SendRequest",
    "Sent",
    "ServerView",
]

_Item = TypeVar("_Item")
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
MAX_PAGE = 500  # items
_COMMAND_ID = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"


class Role(StrEnum):
    """What a principal may do. Each role may do what those before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether a principal of this role may do what needs the other one."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class Principal:
    """Who asks: a person or a program, with a role, for all agents or (`groups`) those in one of these groups."""

    name: str
    role: Role
    groups: frozenset[str] | None = None


@dataclass(frozen=True)
class SendRequest:
    """A command to be sent. Exactly one of `agents`, `group` and `all` says to which agents."""

    type: Annotated[str, says("The command type.", "restart-agent", min_length=1, max_length=128)]
    parameters: Annotated[JsonObject, says("The parameters of the type; `acm types` lists them.", {})] = field(
        default_factory=dict
    )
    agents: Annotated[
        tuple[str, ...], says("Names of agents, or patterns such as `web-*`.", ["web-01"], max_length=10_000)
    ] = ()
    group: Annotated[str | None, says("Send to all agents of this group.", "edge")] = None
    all: Annotated[bool, says("Send to all agents.")] = False
    expires_in_s: Annotated[
        _Seconds | None, says("Do not start it after so many seconds; null: whenever it arrives.", 600.0)
    ] = None
    timeout_s: Annotated[_Seconds | None, says("End it after so many seconds; null: the agent's default.", 30.0)] = None
    dry_run: Annotated[bool, says("Check everything and say which agents it is for, but send nothing.")] = False
    allow_unknown: Annotated[bool, says("Accept names of agents that the ledger does not know yet.")] = False
    force: Annotated[bool, says("Send it even if an agent does not support the type, as its status shows.")] = False


@dataclass(frozen=True)
class CommandView:
    """A command, its state and its result. Texts that are values of secret parameters are masked."""

    id: Annotated[str, says("The id of the command.", _COMMAND_ID)]
    agent: Annotated[str, says("The agent that it is for.", "web-01")]
    type: Annotated[str, says("The command type.", "restart-agent")]
    state: Annotated[CommandState, says("How far it is; only `completed` is final.", "queued")]
    outcome: Annotated[Outcome | None, says("How it ended; null while it is open.")]
    cancel_requested: Annotated[bool, says("Whether its cancellation was requested.")]
    created_at: Annotated[datetime, says("When it was added to the ledger.")]
    expires_at: Annotated[datetime | None, says("From when on it must not be started any more.")]
    sent_at: Annotated[datetime | None, says("When a server first claimed it to publish it.")]
    stored_at: Annotated[datetime | None, says("When it was recorded that its agent has stored it.")]
    running_at: Annotated[datetime | None, says("When it was recorded that its agent has begun it.")]
    completed_at: Annotated[datetime | None, says("When its result was stored.")]
    operation_id: Annotated[str | None, says("The operation that it is part of.")]
    command: Annotated[JsonObject, says("The command as it is sent, with its origin, parameters and number.")]
    result: Annotated[JsonObject | None, says("The result as its agent reported it; null while it is open.")]
    verdict_of_server: Annotated[
        JsonObject | None, says("The server's own result, if that of the agent replaced it later.")
    ]
    trace_id: Annotated[
        str | None, says("The trace that it is part of, if that is recorded.", "4bf92f3577b34da6a3ce929d0e0e4736")
    ] = None


@dataclass(frozen=True)
class CommandFilter:
    """Which commands to list: those that all given members apply to."""

    agent: str | None = None
    type: str | None = None
    state: CommandState | None = None
    outcome: Outcome | None = None
    operation: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class AgentView:
    """An agent, with the last status that it has published."""

    name: Annotated[str, says("The name of the agent.", "web-01")]
    state: Annotated[AgentState, says("What its last status shows; `unknown`: it has sent none.", "online")]
    seen_at: Annotated[datetime | None, says("When that status arrived.")]
    open_commands: Annotated[int, says("How many of its commands are not completed.", 0)]
    name_conflict: Annotated[bool, says("Whether two clients have used its name within the last minutes.")]
    groups: Annotated[tuple[str, ...], says("The groups that it is in, of those that may be seen.", ["edge"])]
    enrolment: Annotated[
        str | None, says("`valid`, `expired` or `revoked`; null if it was never enrolled here.", "valid")
    ]
    certificate_until: Annotated[datetime | None, says("The end of its newest certificate that is not revoked.")]
    status: Annotated[JsonObject | None, says("Its last status as it was published.")]


@dataclass(frozen=True)
class AgentFilter:
    """Which agents to list: those that all given members apply to. `name` is a name or a pattern such as `web-*`."""

    name: str | None = None
    state: AgentState | None = None
    group: str | None = None


@dataclass(frozen=True)
class EventView:
    """What has happened to a command or an agent."""

    id: Annotated[int, says("Its place in the order of all events: later ones have larger ids.", 1767225600001)]
    at: Annotated[datetime, says("When the ledger recorded it.")]
    type: Annotated[EventType, says("What has happened.", "command_completed")]
    agent: Annotated[str, says("The agent that it is about.", "web-01")]
    command_id: Annotated[str | None, says("The command, if it is about one.", _COMMAND_ID)]
    command_type: Annotated[str | None, says("The type of that command; null once it was pruned.", "restart-agent")]
    operation_id: Annotated[str | None, says("The operation that this command is part of; null once it was pruned.")]
    outcome: Annotated[Outcome | None, says("How the command ended, if it did.", "success")]
    code: Annotated[ErrorCode | None, says("Why it ended in an error.")]
    changed: Annotated[tuple[str, ...], says("The members of the agent's status that have changed.", ["version"])]
    group: Annotated[str | None, says("The group that the agent has joined or left.", "edge")] = None


@dataclass(frozen=True)
class EventFilter:
    """Which events to report: those that all given members apply to. `command` and `operation` are ids."""

    type: EventType | None = None
    agent: str | None = None
    command: str | None = None
    operation: str | None = None


@dataclass(frozen=True)
class ForgetRequest:
    """That an agent is gone."""

    force: Annotated[bool, says("Forget it although it is online.")] = False


@dataclass(frozen=True)
class ForgottenAgent:
    """An agent that is not listed or addressed any more."""

    agent: Annotated[str, says("The agent.", "web-02")]
    interrupted: Annotated[int, says("How many open commands were completed as interrupted.", 1)]


@dataclass(frozen=True)
class GroupView:
    """A group of agents. It exists while it has members."""

    name: Annotated[str, says("The name of the group.", "edge")]
    agents: Annotated[tuple[str, ...], says("Its members, in order of name.", ["web-01"])]


@dataclass(frozen=True)
class MembersRequest:
    """Agents to add to a group, or to remove from it."""

    agents: Annotated[tuple[str, ...], says("Names of agents.", ["web-01"], min_length=1, max_length=10_000)]
    allow_unknown: Annotated[bool, says("Add also agents that the ledger does not know yet.")] = False


@dataclass(frozen=True)
class OperationView:
    """A command that was sent to many agents at once."""

    id: Annotated[str, says("The id of the operation.", _COMMAND_ID)]
    type: Annotated[str, says("The command type.", "restart-agent")]
    target: Annotated[str, says("The agents, as the user described them.", "web-*")]
    size: Annotated[int, says("For how many agents it is.", 2)]
    created_at: Annotated[datetime, says("When it was added to the ledger.")]


@dataclass(frozen=True)
class OperationProgress:
    """An operation, and how far its commands are. A principal with groups sees only the commands of their agents."""

    operation: OperationView
    counts: Annotated[
        dict[str, int],
        says(
            "How many commands are in each state; completed ones are counted as `success` or `error`, and those that "
            "its sender could not write as `unwritten`. Zeros are left out.",
            {"queued": 1, "success": 1},
        ),
    ]
    done: Annotated[bool, says("Whether every written command has a result.")]

    @property
    def succeeded(self) -> int:
        """How many commands have ended with success."""
        return self.counts.get(Outcome.SUCCESS, 0)

    @property
    def completed(self) -> int:
        """How many commands have a result."""
        return self.succeeded + self.counts.get(Outcome.ERROR, 0)

    def summary(self) -> str:
        """Return the counts as text, such as "2 queued, 1 success"."""
        return ", ".join(f"{count} {name}" for name, count in self.counts.items())


@dataclass(frozen=True)
class Sent:
    """What was sent: one command, or an operation to follow. After a dry run, neither."""

    command: Annotated[CommandView | None, says("The command, if the target is the name of one agent.")] = None
    operation: Annotated[OperationView | None, says("The operation, for any other target.")] = None
    agents: Annotated[tuple[str, ...], says("After a dry run, the agents that it would be sent to.")] = ()
    warnings: Annotated[tuple[str, ...], says("What is unusual, one sentence each.")] = ()


@dataclass(frozen=True)
class CancelledCommands:
    """What was done with the open commands of an operation."""

    count: Annotated[int, says("How many commands were open.", 2)]


@dataclass(frozen=True)
class IdsFound:
    """The ids that begin with a text, at most three of each kind: enough to know whether there is only one."""

    commands: Annotated[tuple[str, ...], says("Ids of commands.", [_COMMAND_ID])]
    operations: Annotated[tuple[str, ...], says("Ids of operations.", [])]


@dataclass(frozen=True)
class ServerView:
    """A server that runs on the ledger, and whether it is connected to the broker."""

    client_id: Annotated[str, says("Its name at the broker.", "acm-server")]
    host: Annotated[str, says("The machine that it runs on.", "ops-01")]
    pid: Annotated[int, says("Its process id there.", 1234)]
    started_at: Annotated[datetime, says("When it was started.")]
    connection_at: Annotated[
        datetime | None,
        says("Since when it is connected or, with a problem, since when it is not; null: it has not found out."),
    ]
    connection_problem: Annotated[str | None, says("Why it is not connected; null while it is.")]


@dataclass(frozen=True)
class PageOf(Generic[_Item]):
    """Some items of a list. It may have fewer than the limit, also none, while there are more.

    A page looks at a bounded part of the ledger, so that no filter reads all of it.
    """

    items: tuple[_Item, ...]
    next: Annotated[str | None, says("The cursor of the next page; null at the end of the list.")] = None
