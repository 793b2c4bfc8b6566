"""What an operator can do with the fleet, on a ledger or over the API."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

from broker.fleet.explanation import CommandTimeline
from broker.fleet.models import (
    AgentFilter,
    AgentView,
    CancelledCommands,
    CommandFilter,
    CommandView,
    EventFilter,
    EventView,
    ForgottenAgent,
    GroupView,
    IdsFound,
    OperationProgress,
    OperationView,
    PageOf,
    SendRequest,
    Sent,
    ServerView,
)

__all__ = [
    "Fleet",
]


class Fleet(Protocol):
    """The fleet, as one principal may see and command it.

    What the principal may not see does not exist for it. Lists are read in pages: pass `next` of one as the `cursor` of
    the following, with the same filter. Every method may raise LedgerError.
    """

    def send(self, request: SendRequest) -> Sent:
        """Add commands to the ledger; the running server sends them.

        Raises InvalidArgument, InvalidName, InvalidParameters, DecodeError and UnknownAgent, before anything is sent;
        also UnsupportedType, for what an agent does not support, unless the request is to `force` it.
        """

    def command(self, command_id: str) -> CommandView:
        """Return one command; raises UnknownCommand."""

    def timeline(self, command_id: str) -> CommandTimeline:
        """Return every hop of a command, and of an open one where it waits and why; raises UnknownCommand."""

    def commands(self, which: CommandFilter, *, cursor: str | None = None, limit: int = 100) -> PageOf[CommandView]:
        """Return a page of commands, newest first; those of one operation by agent.

        Raises UnknownAgent and UnknownOperation for a filter, InvalidArgument for a cursor.
        """

    def newest_commands(self, which: CommandFilter, limit: int | None = None) -> Sequence[CommandView]:
        """Return the newest of these commands, at most `limit`, newest first; those of one operation in any order.

        All of them without a limit. Raises as `commands` does; on a ledger it costs less than all pages.
        """

    def cancel(self, command_id: str) -> CommandView:
        """Request the cancellation of a command; its result reports the outcome.

        Raises UnknownCommand, and AlreadyCompleted.
        """

    def abandon(self, command_id: str) -> CommandView:
        """Complete a command as interrupted without asking its agent. Raises UnknownCommand, and AlreadyCompleted."""

    def retry(self, command_id: str) -> Sent:
        """Send a command again that has ended: a new one with the same parameters, timeout and time to expire.

        Raises UnknownCommand, and NotRetried for one that is open, or whose secrets are gone.
        """

    def wait_for_command(
        self, command_id: str, timeout_s: float, seen: Callable[[CommandView], None] = lambda _: None
    ) -> CommandView:
        """Return a command once it is completed, or as it is after `timeout_s` seconds; `seen` gets it meanwhile.

        Raises UnknownCommand, and WaitTimeout if nothing answers at the end of the wait.
        """

    def agent(self, name: str) -> AgentView:
        """Return one agent; raises UnknownAgent."""

    def agents(self, which: AgentFilter, *, cursor: str | None = None, limit: int = 100) -> PageOf[AgentView]:
        """Return a page of agents, in order of name. Raises InvalidName for a group."""

    def events(
        self,
        which: EventFilter,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[EventView]:
        """Yield the events that follow the event `after`, or all since a time, in their order, each once.

        Without either, all that are kept; to `follow`, those from now on. They end with the newest one, or with
        `follow` not at all.

        Raises UnknownAgent, UnknownCommand and UnknownOperation for a filter, InvalidArgument for both starts, and
        EventsPruned if what follows the event is not kept any more.
        """

    def forget(self, name: str, *, force: bool = False) -> ForgottenAgent:
        """Take an agent that is gone out of the lists and its groups; its open commands end as interrupted.

        Raises UnknownAgent, and AgentIsOnline unless it was revoked or `force` is true.
        """

    def groups(self) -> tuple[GroupView, ...]:
        """Return all groups, in order of name."""

    def group(self, name: str) -> GroupView:
        """Return one group. Raises InvalidName, and UnknownAgent for one without members or configuration."""

    def add_to_group(self, group: str, agents: Sequence[str], *, allow_unknown: bool = False) -> GroupView:
        """Add agents to a group, which exists from its first member on; return it.

        `allow_unknown` adds also agents that are not known yet, for a principal that may see all. Raises InvalidName,
        and UnknownAgent also for a group that this principal may not see.
        """

    def remove_from_group(self, group: str, agents: Sequence[str]) -> GroupView:
        """Remove agents from a group; those that are not in it are ignored. Return it.

        Raises InvalidName, and UnknownAgent for a group that this principal may not see.
        """

    def configure_group(self, group: str, sha256: str) -> OperationView:
        """Make the stored file with this SHA-256 the configuration of a group, and send it to the members.

        Raises InvalidName, UnknownAgent for a group without members, and UnknownBlob.
        """

    def operation(self, operation_id: str) -> OperationProgress:
        """Return an operation and how far its commands are; raises UnknownOperation."""

    def operations(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperationView]:
        """Return a page of operations, newest first. Raises InvalidArgument for a cursor."""

    def wait_for_operation(
        self, operation_id: str, timeout_s: float, seen: Callable[[OperationProgress], None] = lambda _: None
    ) -> OperationProgress:
        """Return an operation once its commands have ended, or as it is after `timeout_s` seconds.

        `seen` gets it meanwhile. Raises UnknownOperation, and WaitTimeout if nothing answers at the end.
        """

    def retry_operation(self, operation_id: str) -> Sent:
        """Send those of its commands again that have ended in an error, as a new operation.

        Raises UnknownOperation, and NotRetried if there is none, or its secrets are gone.
        """

    def cancel_operation(self, operation_id: str) -> CancelledCommands:
        """Request the cancellation of its open commands; raises UnknownOperation."""

    def abandon_operation(self, operation_id: str) -> CancelledCommands:
        """Complete its open commands as interrupted, without asking their agents. Raises UnknownOperation."""

    def find_ids(self, beginning: str) -> IdsFound:
        """Return the ids of commands and operations that begin with a text; capitals and dashes are not compared."""

    def servers(self) -> tuple[ServerView, ...]:
        """Return the servers that run on the ledger; without one, nothing is sent and statuses are out of date."""
