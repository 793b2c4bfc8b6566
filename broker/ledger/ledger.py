"""The ledger: every command ever sent, its state and its result."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa

from broker.contract.messages import Command
from broker.contract.states import ErrorCode, Outcome
from broker.contract.topics import check_agent_name
from broker.contract.trace_context import TraceContext
from broker.errors import LedgerError
from broker.ledger.agents import (
    AgentRow,
    agent_named,
    agents_after,
    all_agents,
    find_agent,
    is_of_groups,
    last_status,
    lock_agents_of,
    names_of_agents,
)
from broker.ledger.also import Also, nothing_else
from broker.ledger.audits import AuditStore
from broker.ledger.blobs import BlobStore
from broker.ledger.command_pages import CommandPage, page_of_commands
from broker.ledger.commands import Ahead, CommandQuery, LedgerRow, ahead_of, find_command, newest_commands
from broker.ledger.completion import complete_all
from broker.ledger.damage import DamagedRow, all_damaged_rows
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest, draft_command, enqueue, enqueue_for_all
from broker.ledger.event_log import EventLog
from broker.ledger.event_types import EventType
from broker.ledger.expiry import any_expired, settle_expired
from broker.ledger.failures import retry_conflicts
from broker.ledger.forgetting import forget_agent
from broker.ledger.groups import GroupStore
from broker.ledger.ids import ids_beginning_with, new_id
from broker.ledger.noted_events import note_all
from broker.ledger.operations import Operation, OperationStore, insert_operation
from broker.ledger.outbox import Claimed, any_overdue, claim_due, due_agents, requeue_all, requeue_overdue
from broker.ledger.refused_messages import UnstoredMessage, all_refused_messages, keep_refused
from broker.ledger.sequence import begin_epochs
from broker.ledger.silence import any_new_silence, note_silence
from broker.ledger.summary import LedgerSummary, ledger_summary
from broker.ledger.tables import COMMANDS, EVENTS, IS_OPEN, Cancel, CommandState
from broker.ledger.turns import RecordedTurn, Said, record_turn
from broker.ledger.unmatched_results import UnmatchedResult, page_of_unmatched
from broker.ledger.unreadable_rows import despite_unreadable_rows

__all__ = [
    "Ledger",
]


_AGENTS_PER_TRANSACTION = 1000
_RESTORED = (
    "The ledger was restored from a backup in which this command was open; it may have run or not. Check, then send a "
    "new one."
)
_CANCELLED = "The command was cancelled before it was sent."
_ABANDONED = "Abandoned by the user before a result arrived; the command may have run, or may still run."


class Ledger:
    """The commands, results and agents in one database. Its opener closes it. Several processes may use the same one.

    `blobs` has the files that commands refer to; `groups`, `operations`, `audits` and `events` share the database. Each
    method is one commit, unless documented otherwise, and raises LedgerError if the database fails.
    """  # design.md: "The ledger's transactions begin and end in `Ledger`."

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self.database = database
        self._transaction = database.transaction
        self.blobs = BlobStore(database, now)
        self.groups = GroupStore(database, now)
        self.operations = OperationStore(database.reading)
        self.audits = AuditStore(database, now)
        self.events = EventLog(database, now)

    def now(self) -> datetime:
        """Return the time by the ledger's clock, in UTC."""
        return self._now()

    # -- requests of users

    @retry_conflicts
    def add_command(self, agent: str, request: CommandRequest, also: Also[Command] = nothing_else) -> Command:
        """Append a command with the agent's next sequence number; the server's next step sends it.

        As in all methods that have it, `also` writes what belongs to it in the same transaction.

        Raises InvalidName for a bad agent name, DecodeError for parameters that the agent would refuse.
        """
        check_agent_name(agent)
        draft, body = draft_command(request, self._now())
        with self._transaction() as connection:
            command = enqueue(connection, agent, draft, body, self._now(), request.trace)
            also(connection, command)
            return command

    def add_operation(
        self, agents: Iterable[str], target: str, request: CommandRequest, also: Also[Operation] = nothing_else
    ) -> Operation:
        """Append one command for each agent, under one operation id; `target` describes the agents for people.

        All or nothing up to 1,000 agents. More are written in transactions of 1,000, so that a server can work in
        between; a LedgerError then states how many were written. `also` is part of the first. Raises as `add_command`
        does, before anything is written.
        """
        names = list(dict.fromkeys(check_agent_name(agent) for agent in agents))
        draft, _ = draft_command(request, self._now())
        operation = Operation(new_id(), request.command_type, target, len(names), draft.created_at)
        for first in range(0, len(names), _AGENTS_PER_TRANSACTION):
            with _counting_written(operation, first):
                self._add_batch(operation, draft, request.trace, names, first, also)
        return operation

    @retry_conflicts
    def _add_batch(
        self,
        operation: Operation,
        draft: Command,
        trace: TraceContext | None,
        agents: Sequence[str],
        first: int,
        also: Also[Operation],
    ) -> None:
        with self._transaction() as connection:
            if first == 0:
                insert_operation(connection, operation)
            batch = agents[first : first + _AGENTS_PER_TRANSACTION]
            enqueue_for_all(connection, batch, draft, operation.id, self._now(), trace)
            if first == 0:
                also(connection, operation)

    @retry_conflicts
    def request_cancel(self, command_id: str, also: Also[LedgerRow] = nothing_else) -> LedgerRow:
        """Request that the agent cancels the command; no effect once it is completed. Raises UnknownCommand.

        One that was never sent is completed at once.
        """
        with self._transaction() as connection:
            self._cancel_unsent(connection, COMMANDS.c.id == command_id)
            self._request_cancels(connection, COMMANDS.c.id == command_id)
            row = find_command(connection, command_id)
            also(connection, row)
            return row

    @retry_conflicts
    def cancel_operation(
        self, operation_id: str, groups: frozenset[str] | None = None, also: Also[int] = nothing_else
    ) -> int:
        """Request cancellation of every open command of an operation; return how many. Raises UnknownOperation.

        Those that were never sent are completed at once. With `groups`, only those of agents in one of them.
        """
        self.operations.get(operation_id)
        which = _of_operation(operation_id, groups)
        with self._transaction() as connection:
            unsent = self._cancel_unsent(connection, *which)
            count = unsent + self._request_cancels(connection, *which)
            also(connection, count)
            return count

    def _cancel_unsent(self, connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int:
        """Lock the agents of these open commands, and complete those that were never sent; return how many."""
        lock_agents_of(connection, IS_OPEN, *which)
        never_sent = (*which, COMMANDS.c.state == CommandState.QUEUED)
        return complete_all(connection, never_sent, ErrorCode.CANCELLED, _CANCELLED, self._now())

    def _request_cancels(self, connection: sa.Connection, *which: sa.ColumnElement[bool]) -> int:
        """Let the server request the cancellation of these commands that are open; return how many."""
        update = COMMANDS.update().where(*which, IS_OPEN).values(cancel=Cancel.TO_SEND)
        requested = connection.execute(update.returning(COMMANDS.c.agent, COMMANDS.c.id)).all()
        note_all(connection, EventType.COMMAND_CANCEL_REQUESTED, requested, now=self._now())
        return len(requested)

    @despite_unreadable_rows
    @retry_conflicts
    def abandon(self, command_id: str, also: Also[LedgerRow] = nothing_else) -> LedgerRow:
        """Complete an open command as interrupted without asking its agent. Raises UnknownCommand."""
        with self._transaction() as connection:
            complete_all(connection, [COMMANDS.c.id == command_id], ErrorCode.INTERRUPTED, _ABANDONED, self._now())
            row = find_command(connection, command_id)
            also(connection, row)
            return row

    @retry_conflicts
    def fail(self, command_id: str, code: ErrorCode, reason: str) -> None:
        """Complete a command that cannot be sent with this error; no effect if it has a result."""
        with self._transaction() as connection:
            complete_all(connection, [COMMANDS.c.id == command_id], code, reason, self._now())

    @retry_conflicts
    def abandon_operation(
        self, operation_id: str, groups: frozenset[str] | None = None, also: Also[int] = nothing_else
    ) -> int:
        """Complete every open command of an operation as interrupted; return how many. Raises UnknownOperation.

        With `groups`, only those of agents in one of them.
        """
        self.operations.get(operation_id)
        which = _of_operation(operation_id, groups)
        with self._transaction() as connection:
            count = complete_all(connection, which, ErrorCode.INTERRUPTED, _ABANDONED, self._now())
            also(connection, count)
            return count

    @despite_unreadable_rows
    @retry_conflicts
    def forget(self, agent: str, also: Also[int] = nothing_else) -> int:
        """Stop listing and addressing an agent, and take it out of its groups, until it is online again.

        Its open commands are completed as interrupted. Return how many.
        """
        with self._transaction() as connection:
            count = forget_agent(connection, agent, self._now())
            also(connection, count)
            return count

    @despite_unreadable_rows
    @retry_conflicts
    def settle_restored(self) -> int:
        """Complete every open command as interrupted: the ledger was restored from a backup. Return how many.

        Whether they have run since the backup is unknown. The next commands of each agent have a new epoch, so that
        none has a number that was used since. A new log of events begins, whose numbers were not used either.
        """
        with self._transaction() as connection:
            connection.execute(EVENTS.delete())
            begin_epochs(connection, self._now())
            return complete_all(connection, [], ErrorCode.INTERRUPTED, _RESTORED, self._now())

    def get(self, command_id: str) -> LedgerRow:
        """Return one command; raises UnknownCommand."""
        with self.database.reading() as connection:
            return find_command(connection, command_id)

    def ahead_of(self, row: LedgerRow) -> Ahead:
        """Return what is ahead of an open command on its agent."""
        with self.database.reading() as connection:
            return ahead_of(connection, row)

    def commands(
        self,
        agent: str | None = None,
        state: CommandState | None = None,
        operation_id: str | None = None,
        limit: int | None = 1000,
        *,
        command_type: str | None = None,
        outcome: Outcome | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        groups: frozenset[str] | None = None,
    ) -> list[LedgerRow]:
        """Return the newest commands, newest first; all of them if `limit` is None.

        Each other argument that is not None is a filter; `since` and `until` are about a command's creation, `groups`
        about its agent.
        """
        which = CommandQuery(agent, command_type, state, outcome, operation_id, since, until, groups)
        with self.database.reading() as connection:
            return newest_commands(connection, which, limit)

    def ids_beginning_with(self, beginning: str, groups: frozenset[str] | None = None) -> list[str]:
        """Return the ids of commands that begin with a text, at most three; with `groups`, of agents in one of them."""
        of_groups = [] if groups is None else [is_of_groups(COMMANDS.c.agent, groups)]
        with self.database.reading() as connection:
            return ids_beginning_with(connection, COMMANDS.c.id, beginning, *of_groups)

    def page_of_commands(self, query: CommandQuery, cursor: str | None, limit: int) -> CommandPage:
        """Return at most `limit` commands, newest first; those of one operation by agent.

        It looks at a bounded number of commands, so it may return fewer, also none, while there is a cursor. Raises
        InvalidArgument for a cursor of another list.
        """
        with self.database.reading() as connection:
            return page_of_commands(connection, query, cursor, limit)

    def page_of_agents(
        self, after: str, limit: int, group: str | None = None, groups: frozenset[str] | None = None
    ) -> list[AgentRow]:
        """Return at most `limit` of the agents that `agents` returns, whose names follow `after`.

        Only those in `group`, and in one of `groups`, if these are not None.
        """
        with self.database.reading() as connection:
            return agents_after(connection, after, limit, group, groups, self._now())

    def known_agent(self, name: str, groups: frozenset[str] | None = None) -> AgentRow | None:
        """Return one agent, if it is in one of the groups or these are None; None if there is none."""
        with self.database.reading() as connection:
            return agent_named(connection, name, groups, self._now())

    def page_of_unmatched(
        self, cursor: str | None, limit: int, agent: str | None = None
    ) -> tuple[list[UnmatchedResult], str | None]:
        """Return at most `limit` results that answer no open command, newest first, and the cursor for more.

        Raises InvalidArgument for a cursor of another list.
        """
        with self.database.reading() as connection:
            return page_of_unmatched(connection, cursor, limit, agent)

    def summary(self, groups: frozenset[str] | None = None) -> LedgerSummary:
        """Return how many agents and open commands are in each state; with `groups`, of agents in one of them."""
        with self.database.reading() as connection:
            return ledger_summary(connection, groups, self._now())

    def agents(self) -> list[AgentRow]:
        """Return every agent that was enrolled, sent a status or was sent a command, sorted by name."""
        with self.database.reading() as connection:
            return all_agents(connection, self._now())

    def agent(self, name: str) -> AgentRow:
        """Return one agent; its state is `unknown` if there is none of this name."""
        with self.database.reading() as connection:
            return find_agent(connection, name, self._now())

    def agent_names(self) -> list[str]:
        """Return the names of all agents that `agents` returns, sorted."""
        with self.database.reading() as connection:
            return names_of_agents(connection)

    def damaged_rows(self) -> list[DamagedRow]:
        """Return the rows that were set aside as damaged, and those found by reading all commands and agents."""
        with self.database.reading() as connection:
            return all_damaged_rows(connection, self._now())

    def refused_messages(self) -> Sequence[UnstoredMessage]:
        """Return the messages of agents that the database has refused, newest first."""
        with self.database.reading() as connection:
            return all_refused_messages(connection)

    def last_error_of(self, agent: str) -> str | None:
        """Return the last error in the agent's last status, or None."""
        with self.database.reading() as connection:
            status = last_status(connection, agent)
        return status.last_error if status else None

    # -- the outbox

    def due_agents(self, after: str, limit: int) -> list[str]:
        """Return at most `limit` agents that must be sent commands or cancels now: those after this name come first."""
        with self.database.reading() as connection:
            return due_agents(connection, after, limit)

    @despite_unreadable_rows
    @retry_conflicts
    def claim_due(self, limit: int, among: Sequence[str] | None = None) -> Claimed:
        """Claim up to `limit` cancels and up to `limit` commands that must be sent now: mark them as sent, return them.

        Only those of the agents `among`, unless that is None; each gets a share, the first ones first, in sequence for
        each agent. The mark is committed first: a command that may have been published must never look unsent. A
        command that is too long for a signed frame (added before commands were signed) is completed with an error: all
        after it would wait forever.
        """
        with self._transaction() as connection:
            return claim_due(connection, limit, among, self._now())

    @despite_unreadable_rows
    @retry_conflicts
    def requeue_overdue(self) -> None:
        """Make due again whatever an online agent has not accepted, or not cancelled, in time."""
        now = self._now()
        with self.database.reading() as connection:
            if not any_overdue(connection, now):
                return  # an idle server must not take SQLite's write lock at each step
        with self._transaction() as connection:
            requeue_overdue(connection, now)

    @retry_conflicts
    def requeue_all(self) -> None:
        """Make due now what was not accepted, except by agents that are offline; for a new connection to the broker."""
        with self._transaction() as connection:
            requeue_all(connection)

    def settle_expired(self, *, may_be_sent: bool) -> list[tuple[str, str]]:
        """Complete the expired commands that can no longer begin; return the agent and the id of each.

        Those that were never sent, and if `may_be_sent`, those that an agent that is away has not accepted.
        """
        settled: list[tuple[str, str]] = []
        while True:
            with self.database.reading() as connection:
                if not any_expired(connection, self._now(), may_be_sent=may_be_sent):
                    return settled
            settled += self._settle_some_expired(may_be_sent=may_be_sent)

    @despite_unreadable_rows
    @retry_conflicts
    def _settle_some_expired(self, *, may_be_sent: bool) -> list[tuple[str, str]]:
        with self._transaction() as connection:
            records = settle_expired(connection, self._now(), may_be_sent=may_be_sent)
            return [(record.agent, record.id) for record in records]

    # -- what becomes due by time alone

    def note_silence(self) -> list[str]:
        """Note an event of each agent that has fallen silent since it was online; return their names."""
        with self.database.reading() as connection:
            if not any_new_silence(connection, self._now()):
                return []
        return self._note_silence()

    @retry_conflicts
    def _note_silence(self) -> list[str]:
        with self._transaction() as connection:
            return note_silence(connection, self._now())

    # -- messages of agents

    @despite_unreadable_rows
    @retry_conflicts
    def record_turn(
        self, said: Mapping[str, Sequence[Said]], *, repeated: Collection[str] = (), believed: bool = False
    ) -> RecordedTurn:
        """Record what agents have said, by their names, in order for each agent; acks may be sent once it returns.

        A command stays open, and its result is not acked, when only its message or its number was refused. A status
        that is older than the one before changes nothing, and one that may be older only if it is `believed`. What an
        agent had not accepted becomes due if it is back. Groups in a status replace the ledger's if they differ from
        those in the status before. `repeated` are the agents whose statuses the broker may have delivered before: they
        are retained, or duplicates.
        """
        with self._transaction() as connection:
            return record_turn(connection, said, self._now(), repeated=repeated, believed=believed)

    @retry_conflicts
    def keep_refused(self, message: UnstoredMessage) -> None:
        """Keep a message of an agent that the database refuses, for operators; few are kept."""
        with self._transaction() as connection:
            keep_refused(connection, message, self._now())


def _of_operation(operation_id: str, groups: frozenset[str] | None) -> list[sa.ColumnElement[bool]]:
    of_groups = [] if groups is None else [is_of_groups(COMMANDS.c.agent, groups)]
    return [COMMANDS.c.operation_id == operation_id, *of_groups]


@contextmanager
def _counting_written(operation: Operation, written: int) -> Iterator[None]:
    try:
        yield
    except LedgerError as error:
        if not written:
            raise
        raise LedgerError(
            f"{error} {written} of {operation.size} commands were written before, as operation {operation.id}.",
            code="partly_written",
        ) from error
