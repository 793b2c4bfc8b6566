"""The ledger: every command ever sent, its state and its result."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
import structlog

from broker.contract.messages import Command, Feedback, Status
from broker.contract.states import ErrorCode
from broker.contract.topics import check_agent_name
from broker.errors import LedgerError
from broker.ledger.agents import (
    AgentRow,
    all_agents,
    get_or_create,
    get_or_create_all,
    last_status,
    lock_agents_of,
    names_of_agents,
    status_in,
)
from broker.ledger.audits import AuditStore
from broker.ledger.blobs import BlobStore
from broker.ledger.commands import LedgerRow, find_command, newest_commands
from broker.ledger.completion import complete_all
from broker.ledger.damage import DamagedRow, all_damaged_rows
from broker.ledger.database import Database
from broker.ledger.enqueue import CommandRequest, draft_command, enqueue, enqueue_for_all
from broker.ledger.expiry import any_expired, settle_expired
from broker.ledger.failures import retry_conflicts
from broker.ledger.feedback import Recorded, record_feedback
from broker.ledger.forgetting import forget_agent
from broker.ledger.groups import GroupStore
from broker.ledger.ids import new_id
from broker.ledger.operations import Operation, OperationStore, insert_operation
from broker.ledger.outbox import Claimed, any_overdue, claim_due, due_agents, requeue_all, requeue_overdue
from broker.ledger.refused_messages import UnstoredMessage, all_refused_messages, keep_refused
from broker.ledger.sequence import begin_epochs
from broker.ledger.status import record_status, request_report, without_kept_of_unknown
from broker.ledger.status_order import Standing, standing_of
from broker.ledger.tables import COMMANDS, IS_OPEN, Cancel, CommandState
from broker.ledger.unmatched_results import UnmatchedResult, newest_unmatched
from broker.ledger.unreadable_rows import despite_unreadable_rows

__all__ = [
    "Ledger",
    "RecordedStatuses",
]


_log = structlog.get_logger("acm.server")
_AGENTS_PER_TRANSACTION = 1000
_RESTORED = (
    "The ledger was restored from a backup in which this command was open; it may have run or not. Check, then send a "
    "new one."
)
_CANCELLED = "The command was cancelled before it was sent."
_ABANDONED = "Abandoned by the user before a result arrived; the command may have run, or may still run."


@dataclass(frozen=True)
class RecordedStatuses:
    """The statuses that were `new`, the agents whose name two clients use, and requests to report to send.

    A request is (agent, id): what the agent's status says is not believed until a status answers it.
    """

    new: list[Status]
    conflicts: list[str]
    requests: list[tuple[str, str]]


class Ledger:
    """The commands, results and agents in one database. Its opener closes it. Several processes may use the same one.

    `blobs` has the files that commands refer to; `groups`, `operations` and `audits` share the database. Each method is
    one commit, unless documented otherwise, and raises LedgerError if the database fails.
    """  # design.md: "The ledger's transactions begin and end in `Ledger`."

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._now = now
        self.database = database
        self._transaction = database.transaction
        self.blobs = BlobStore(database, now)
        self.groups = GroupStore(database)
        self.operations = OperationStore(database.reading)
        self.audits = AuditStore(database, now)

    # -- requests of users

    @retry_conflicts
    def add_command(self, agent: str, request: CommandRequest) -> Command:
        """Append a command with the agent's next sequence number; the server's next step sends it.

        Raises InvalidName for a bad agent name, DecodeError for parameters that the agent would refuse.
        """
        check_agent_name(agent)
        draft, body = draft_command(request, self._now())
        with self._transaction() as connection:
            return enqueue(connection, agent, draft, body, self._now())

    def add_operation(self, agents: Iterable[str], target: str, request: CommandRequest) -> Operation:
        """Append one command for each agent, under one operation id; `target` describes the agents for people.

        All or nothing up to 1,000 agents. More are written in transactions of 1,000, so that a server can work in
        between; a LedgerError then states how many were written. Raises as `add_command` does, before anything is
        written.
        """
        names = list(dict.fromkeys(check_agent_name(agent) for agent in agents))
        draft, _ = draft_command(request, self._now())
        operation = Operation(new_id(), request.command_type, target, len(names), draft.created_at)
        for first in range(0, len(names), _AGENTS_PER_TRANSACTION):
            with _counting_written(operation, first):
                self._add_batch(operation, draft, names[first : first + _AGENTS_PER_TRANSACTION], is_first=first == 0)
        return operation

    @retry_conflicts
    def _add_batch(self, operation: Operation, draft: Command, agents: Sequence[str], *, is_first: bool) -> None:
        with self._transaction() as connection:
            if is_first:
                insert_operation(connection, operation)
            enqueue_for_all(connection, agents, draft, operation.id, self._now())

    @retry_conflicts
    def request_cancel(self, command_id: str) -> LedgerRow:
        """Request that the agent cancels the command; no effect once it is completed. Raises UnknownCommand.

        One that was never sent is completed at once.
        """
        with self._transaction() as connection:
            self._cancel_unsent(connection, COMMANDS.c.id == command_id)
            update = COMMANDS.update().where(COMMANDS.c.id == command_id, IS_OPEN)
            connection.execute(update.values(cancel=Cancel.TO_SEND))
            return find_command(connection, command_id)

    @retry_conflicts
    def cancel_operation(self, operation_id: str) -> int:
        """Request cancellation of every open command of an operation; return how many. Raises UnknownOperation.

        Those that were never sent are completed at once.
        """
        self.operations.get(operation_id)
        of_operation = COMMANDS.c.operation_id == operation_id
        update = COMMANDS.update().where(of_operation, IS_OPEN)
        with self._transaction() as connection:
            unsent = self._cancel_unsent(connection, of_operation)
            return unsent + connection.execute(update.values(cancel=Cancel.TO_SEND)).rowcount

    def _cancel_unsent(self, connection: sa.Connection, which: sa.ColumnElement[bool]) -> int:
        """Lock the agents of these open commands, and complete those that were never sent; return how many."""
        lock_agents_of(connection, IS_OPEN, which)
        never_sent = (which, COMMANDS.c.state == CommandState.QUEUED)
        return complete_all(connection, never_sent, ErrorCode.CANCELLED, _CANCELLED, self._now())

    @despite_unreadable_rows
    @retry_conflicts
    def abandon(self, command_id: str) -> LedgerRow:
        """Complete an open command as interrupted without asking its agent. Raises UnknownCommand."""
        with self._transaction() as connection:
            complete_all(connection, [COMMANDS.c.id == command_id], ErrorCode.INTERRUPTED, _ABANDONED, self._now())
            return find_command(connection, command_id)

    @retry_conflicts
    def fail(self, command_id: str, code: ErrorCode, reason: str) -> None:
        """Complete a command that cannot be sent with this error; no effect if it has a result."""
        with self._transaction() as connection:
            complete_all(connection, [COMMANDS.c.id == command_id], code, reason, self._now())

    @retry_conflicts
    def abandon_operation(self, operation_id: str) -> int:
        """Complete every open command of an operation as interrupted; return how many. Raises UnknownOperation."""
        self.operations.get(operation_id)
        with self._transaction() as connection:
            conditions = [COMMANDS.c.operation_id == operation_id]
            return complete_all(connection, conditions, ErrorCode.INTERRUPTED, _ABANDONED, self._now())

    @despite_unreadable_rows
    @retry_conflicts
    def forget(self, agent: str) -> int:
        """Stop listing and addressing an agent, and take it out of its groups, until it is online again.

        Its open commands are completed as interrupted. Return how many.
        """
        with self._transaction() as connection:
            return forget_agent(connection, agent, self._now())

    @despite_unreadable_rows
    @retry_conflicts
    def settle_restored(self) -> int:
        """Complete every open command as interrupted: the ledger was restored from a backup. Return how many.

        Whether they have run since the backup is unknown. The next commands of each agent have a new epoch, so that
        none has a number that was used since.
        """
        with self._transaction() as connection:
            begin_epochs(connection, self._now())
            return complete_all(connection, [], ErrorCode.INTERRUPTED, _RESTORED, self._now())

    def get(self, command_id: str) -> LedgerRow:
        """Return one command; raises UnknownCommand."""
        with self.database.reading() as connection:
            return find_command(connection, command_id)

    def commands(
        self,
        agent: str | None = None,
        state: CommandState | None = None,
        operation_id: str | None = None,
        limit: int | None = 1000,
    ) -> list[LedgerRow]:
        """Return the newest commands, newest first; all of them if `limit` is None."""
        with self.database.reading() as connection:
            return newest_commands(connection, agent, state, operation_id, limit)

    def unmatched_results(self, agent: str | None = None, limit: int | None = 1000) -> list[UnmatchedResult]:
        """Return the newest results that answer no open command, newest first; all of them if `limit` is None."""
        with self.database.reading() as connection:
            return newest_unmatched(connection, agent, limit)

    def agents(self) -> list[AgentRow]:
        """Return every agent that was enrolled, sent a status or was sent a command, sorted by name."""
        with self.database.reading() as connection:
            return all_agents(connection, self._now())

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

    def due_agents(self) -> list[str]:
        """Return the names of the agents that must be sent commands or cancels now, in order."""
        with self.database.reading() as connection:
            return due_agents(connection)

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

    # -- messages of agents

    @despite_unreadable_rows
    @retry_conflicts
    def record_feedback(self, agent: str, feedbacks: Iterable[Feedback]) -> Recorded:
        """Record feedback of one agent in one commit; return the acks, which may be sent from then on.

        A command stays open, and its result is not acked, when only its message or its number was refused.
        """
        with self._transaction() as connection:
            return record_feedback(connection, agent, list(feedbacks), self._now())

    @retry_conflicts
    def keep_refused(self, message: UnstoredMessage) -> None:
        """Keep a message of an agent that the database refuses, for operators; few are kept."""
        with self._transaction() as connection:
            keep_refused(connection, message, self._now())

    @despite_unreadable_rows
    @retry_conflicts
    def record_status(
        self, *statuses: Status, repeated: Collection[str] = (), believed: bool = False
    ) -> RecordedStatuses:
        """Record statuses of agents in one commit, in order. What an agent had not accepted becomes due if it is back.

        One that is older than the one before changes nothing, and one that may be older only if it is `believed`.
        Groups in a status replace the ledger's if they differ from those in the status before. `repeated` are the
        agents whose status the broker may have delivered before: it is retained, or a duplicate.
        """
        now = self._now()
        recorded = RecordedStatuses([], [], [])
        with self._transaction() as connection:
            statuses = without_kept_of_unknown(connection, statuses, repeated)
            found = get_or_create_all(connection, [status.agent for status in statuses], now)  # locked in one order
            rows = {row.name: row for row in found}
            for status in statuses:
                row = rows.pop(status.agent, None) or get_or_create(connection, status.agent, now)
                is_repeat = status.agent in repeated
                known = status_in(row.status)
                standing = standing_of(row, known, status, is_repeat=is_repeat)
                if standing is Standing.NEW or (believed and standing is Standing.UNPROVEN):
                    recorded.new.append(status)
                    if record_status(connection, row, known, status, now, is_repeat=is_repeat):
                        recorded.conflicts.append(status.agent)
                elif standing is Standing.UNPROVEN:
                    recorded.requests.append((status.agent, request_report(connection, row)))
        return recorded


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
