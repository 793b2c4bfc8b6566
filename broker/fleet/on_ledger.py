"""The fleet on a ledger."""

from collections.abc import Callable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from broker.contract.messages import Origin
from broker.fleet.events import EventScope, EventSpan, each_event, span_of
from broker.fleet.explanation import CommandTimeline, explain_command
from broker.fleet.facts_in_ledger import read_facts
from broker.fleet.forgetting import refuse_online
from broker.fleet.groups_on_ledger import LedgerGroups
from broker.fleet.models import (
    MAX_PAGE,
    AgentFilter,
    AgentView,
    CancelledCommands,
    CommandFilter,
    CommandView,
    EventFilter,
    EventView,
    ForgottenAgent,
    IdsFound,
    OperationProgress,
    OperationView,
    PageOf,
    ServerView,
)
from broker.fleet.traced_sending import Creating, within
from broker.fleet.views import (
    view_of_command,
    view_of_operation,
    view_of_progress,
    view_of_server,
)
from broker.ledger.also import Also, nothing_else
from broker.ledger.commands import CommandQuery, LedgerRow, require_open
from broker.ledger.cursors import cursor_of, place_at
from broker.ledger.groups import check_group_name
from broker.ledger.ledger import Ledger
from broker.ledger.server_lock import running_servers
from broker.ledger.waiting import wait_for_command, wait_for_operation, waiting

__all__ = [
    "LedgerFleet",
]


_UNTRACED = within(None)


class LedgerFleet(LedgerGroups):
    """The fleet of a ledger, as a principal sees it: all of it, or the agents in its `groups`.

    `origin` is written into what it sends. `also` writes, in the same transaction, what belongs to the answer of a
    method that changes anything; it is given that answer. `tell` is called when the ledger is away during a wait.
    `creating` makes the spans of what is created, whose context is stored with it.
    """

    def __init__(
        self,
        ledger: Ledger,
        origin: Origin,
        groups: frozenset[str] | None = None,
        also: Also[Any] = nothing_else,
        tell: Callable[[str], None] = lambda _: None,
        creating: Creating = _UNTRACED,
    ) -> None:
        super().__init__(ledger, origin, groups, also, creating)
        self._tell = tell

    def command(self, command_id: str) -> CommandView:
        """Return one command; raises UnknownCommand."""
        return view_of_command(self._visible.command(command_id))

    def timeline(self, command_id: str) -> CommandTimeline:
        """Return every hop of a command, as `Fleet.timeline` says."""
        return explain_command(read_facts(self._ledger, self._visible.command(command_id), self._ledger.now()))

    def commands(self, which: CommandFilter, *, cursor: str | None = None, limit: int = 100) -> PageOf[CommandView]:
        """Return a page of commands, as `Fleet.commands` says."""
        self._visible.require(which)
        query = CommandQuery(
            which.agent,
            which.type,
            which.state,
            which.outcome,
            which.operation,
            which.since,
            which.until,
            self._groups,
        )
        page = self._ledger.page_of_commands(query, cursor, min(limit, MAX_PAGE))
        return PageOf(tuple(view_of_command(row) for row in page.rows), page.cursor)

    def newest_commands(self, which: CommandFilter, limit: int | None = None) -> list[CommandView]:
        """Return the newest of these commands, as `Fleet.newest_commands` says."""
        self._visible.require(which)
        rows = self._ledger.commands(
            which.agent,
            which.state,
            which.operation,
            limit,
            command_type=which.type,
            outcome=which.outcome,
            since=which.since,
            until=which.until,
            groups=self._groups,
        )
        return list(map(view_of_command, rows))

    def cancel(self, command_id: str) -> CommandView:
        """Request the cancellation of a command. Raises UnknownCommand, and AlreadyCompleted."""
        require_open(self._visible.command(command_id))
        return view_of_command(self._ledger.request_cancel(command_id, self._also_row))

    def abandon(self, command_id: str) -> CommandView:
        """Complete a command as interrupted without asking its agent. Raises UnknownCommand, and AlreadyCompleted."""
        require_open(self._visible.command(command_id))
        return view_of_command(self._ledger.abandon(command_id, self._also_row))

    def wait_for_command(
        self, command_id: str, timeout_s: float, seen: Callable[[CommandView], None] = lambda _: None
    ) -> CommandView:
        """Return a command once it is completed, as `Fleet.wait_for_command` says."""
        self._visible.command(command_id)
        with waiting(self._ledger.database, timeout_s, self._tell) as wait:
            return view_of_command(
                wait_for_command(self._ledger, command_id, wait, lambda row: seen(view_of_command(row)))
            )

    def agent(self, name: str) -> AgentView:
        """Return one agent; raises UnknownAgent."""
        return self._visible.agents_shown([self._visible.agent(name)])[0]

    def agents(self, which: AgentFilter, *, cursor: str | None = None, limit: int = 100) -> PageOf[AgentView]:
        """Return a page of agents, as `Fleet.agents` says."""
        group = None if which.group is None else check_group_name(which.group)
        if group is not None and not self._visible.has_group(group):
            return PageOf(())
        after = "" if cursor is None else place_at(cursor, tuple[str])[0]
        limit = min(limit, MAX_PAGE)
        rows = self._ledger.page_of_agents(after, limit, group, self._groups)
        end = cursor_of((rows[-1].name,)) if len(rows) == limit else None
        named = [row for row in rows if which.name is None or fnmatchcase(row.name, which.name)]
        views = self._visible.agents_shown(named)
        return PageOf(tuple(it for it in views if which.state in (None, it.state)), end)

    def events(
        self,
        which: EventFilter,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
    ) -> Iterator[EventView]:
        """Yield events, as `Fleet.events` says."""
        return each_event(self._ledger, self.span_of_events(which, after, since, follow=follow))

    def span_of_events(
        self, which: EventFilter, after: int | None, since: datetime | None, *, follow: bool
    ) -> EventSpan:
        """Return which events `events` yields; raises as it does."""
        if which.agent is not None:
            self._visible.agent(which.agent)
        if which.command is not None:
            self._visible.command(which.command)
        if which.operation is not None:
            self._visible.operation(which.operation)
        return span_of(self._ledger, EventScope(which, self._groups), after, since, follow=follow)

    def forget(self, name: str, *, force: bool = False) -> ForgottenAgent:
        """Take an agent out of the lists and its groups, as `Fleet.forget` says."""
        row = self._visible.agent(name)
        if not force:
            refuse_online(self._ledger, row)

        def forgotten(count: int) -> ForgottenAgent:
            return ForgottenAgent(name, count)

        return forgotten(self._ledger.forget(name, lambda connection, it: self._also(connection, forgotten(it))))

    def operation(self, operation_id: str) -> OperationProgress:
        """Return an operation and how far its commands are; raises UnknownOperation."""
        operation = self._visible.operation(operation_id)
        return view_of_progress(operation, self._ledger.operations.progress(operation_id, self._groups))

    def operations(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[OperationView]:
        """Return a page of operations, as `Fleet.operations` says."""
        page = self._ledger.operations.page(cursor, min(limit, MAX_PAGE), self._groups)
        return PageOf(tuple(map(view_of_operation, self._visible.operations_shown(page.operations))), page.cursor)

    def wait_for_operation(
        self, operation_id: str, timeout_s: float, seen: Callable[[OperationProgress], None] = lambda _: None
    ) -> OperationProgress:
        """Return an operation once it is done, as `Fleet.wait_for_operation` says."""
        operation = self._visible.operation(operation_id)
        with waiting(self._ledger.database, timeout_s, self._tell) as wait:
            progress = wait_for_operation(
                self._ledger, operation, wait, lambda it: seen(view_of_progress(operation, it))
            )
        return view_of_progress(operation, progress)

    def cancel_operation(self, operation_id: str) -> CancelledCommands:
        """Request the cancellation of its open commands; raises UnknownOperation."""
        self._visible.operation(operation_id)
        count = self._ledger.cancel_operation(operation_id, self._groups, self._also_count)
        return CancelledCommands(count)

    def abandon_operation(self, operation_id: str) -> CancelledCommands:
        """Complete its open commands as interrupted, without asking their agents. Raises UnknownOperation."""
        self._visible.operation(operation_id)
        count = self._ledger.abandon_operation(operation_id, self._groups, self._also_count)
        return CancelledCommands(count)

    def find_ids(self, beginning: str) -> IdsFound:
        """Return the ids that begin with a text, as `Fleet.find_ids` says."""
        return IdsFound(
            tuple(self._ledger.ids_beginning_with(beginning, self._groups)),
            tuple(self._ledger.operations.ids_beginning_with(beginning, self._groups)),
        )

    def servers(self) -> tuple[ServerView, ...]:
        """Return the servers that run on the ledger."""
        return tuple(map(view_of_server, running_servers(self._ledger.database)))

    def _also_row(self, connection: Any, row: LedgerRow) -> None:
        self._also(connection, view_of_command(row))

    def _also_count(self, connection: Any, count: int) -> None:
        self._also(connection, CancelledCommands(count))
