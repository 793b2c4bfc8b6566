"""Reading commands from the ledger: by their ids, or the newest of some."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from broker.contract.messages import Command, JsonObject
from broker.contract.states import Outcome
from broker.contract.trace_context import TraceContext
from broker.errors import LedgerError
from broker.ledger.agents import is_of_groups
from broker.ledger.completion import command_of
from broker.ledger.damage import state_in
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.records import CommandRecord, read_all, read_one
from broker.ledger.stored_results import readable_result, readable_verdict
from broker.ledger.tables import COMMANDS, HAS_FAILED, IS_OPEN, PRUNED_COMMANDS, Cancel, CommandState, in_state, moment

__all__ = [
    "MAX_COUNTED",
    "Ahead",
    "AlreadyCompleted",
    "CommandQuery",
    "LedgerRow",
    "UnknownCommand",
    "ahead_of",
    "find_command",
    "find_commands",
    "newest_commands",
    "require_open",
]


MAX_COUNTED = 1000


class UnknownCommand(LedgerError):
    """The ledger has no command with this id."""

    code = "unknown_command"


class AlreadyCompleted(LedgerError):
    """A command that is to be cancelled or abandoned has its result already."""

    code = "already_completed"


@dataclass(frozen=True)
class LedgerRow:
    """One command in the ledger; `result` is the agent's final feedback once it is completed. Times are UTC.

    `verdict` is the result that the server itself had given before, when it no longer expected the agent's. `sent_at`
    is when the server first claimed it to publish it; `stored_at` and `running_at` are when it recorded that the agent
    has stored and begun it, None if it has not, or if its result came at the same time. `is_due`: it waits to be sent.
    `operation_id` is of the operation that it is part of, if any, and `trace` the context that it was created in.
    """

    command: Command
    agent: str
    state: CommandState
    cancel_requested: bool
    result: JsonObject | None
    completed_at: datetime | None
    verdict: JsonObject | None = None
    sent_at: datetime | None = None
    stored_at: datetime | None = None
    running_at: datetime | None = None
    is_due: bool = False
    operation_id: str | None = None
    trace: TraceContext | None = None


def require_open(row: LedgerRow) -> None:
    """Raise AlreadyCompleted if there is nothing to cancel."""
    if row.state is CommandState.COMPLETED:
        raise AlreadyCompleted(
            f"The command {row.command.id} is already completed: there is nothing to cancel. `acm show` has its result."
        )


@dataclass(frozen=True)
class CommandQuery:
    """Which commands: each member that is not None is a condition.

    `since` and `until` are about their creation, and `groups` about their agents.
    """

    agent: str | None = None
    command_type: str | None = None
    state: CommandState | None = None
    outcome: Outcome | None = None
    operation_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    groups: frozenset[str] | None = None

    @property
    def is_in_order_of_agent(self) -> bool:
        """Whether the commands are those of an agent, which have an order of their own: that of their numbers."""
        return self.agent is not None and self.operation_id is None and not self.is_open

    @property
    def is_open(self) -> bool:
        """Whether they are in a state of open commands, which have an index of their own."""
        return self.state not in (None, CommandState.COMPLETED)

    def conditions(self) -> Iterator[sa.ColumnElement[bool]]:
        """Yield the conditions in SQL.

        The commands of an agent or of an operation, or those that are open, are few. Then conditions that have an index
        of all commands are written such that it is not used: a database may prefer it, and read all of a type.
        """
        columns, are_few = COMMANDS.c, bool(self.agent or self.operation_id or self.is_open)
        if self.agent is not None:
            yield columns.agent == self.agent
        if self.operation_id is not None:
            yield columns.operation_id == self.operation_id
        if self.state is not None:
            yield in_state(self.state)
        if self.outcome is not None:
            fails = self.outcome is Outcome.ERROR and not are_few
            yield HAS_FAILED if fails else _without_index(columns.outcome) == self.outcome
            are_few |= fails
        if self.command_type is not None:
            yield (_without_index(columns.type) if are_few else columns.type) == self.command_type
        time: sa.ColumnElement[float] = columns.created_at + 0 if are_few else columns.created_at
        if self.since is not None:
            yield time >= self.since.timestamp()
        if self.until is not None:
            yield time < self.until.timestamp()
        if self.groups is not None:
            yield is_of_groups(columns.agent, self.groups)


def _without_index(column: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    return sa.func.coalesce(column, "")


def find_command(connection: sa.Connection, command_id: str) -> LedgerRow:
    """Return one command; raises UnknownCommand."""
    record = read_one(connection, COMMANDS.select().where(COMMANDS.c.id == command_id), CommandRecord)
    if record is None:
        pruned = PRUNED_COMMANDS.select().where(PRUNED_COMMANDS.c.id == command_id)
        if (row := connection.execute(pruned).one_or_none()) is not None:
            ended = f"{moment(row.completed_at):%Y-%m-%d}"
            raise UnknownCommand(
                f"The command {command_id} to {row.agent} ended with {row.outcome} on {ended}; `acm prune` has removed "
                "it.",
                code="pruned_command",
            )
        raise UnknownCommand(f"No command has the id {command_id[:128]!r}; `acm commands` lists them.")
    return _ledger_row(record)


def find_commands(connection: sa.Connection, command_ids: Collection[str]) -> dict[str, LedgerRow]:
    """Return those of these commands that the ledger has, by their ids."""
    query = COMMANDS.select().where(COMMANDS.c.id.in_(given_keys()))
    records = read_all(connection, query, CommandRecord, as_keys(command_ids))
    return {record.id: _ledger_row(record) for record in records}


@dataclass(frozen=True)
class Ahead:
    """What is ahead of a command on its agent: how many open commands with earlier numbers, and the one that runs.

    `count` is at most MAX_COUNTED.
    """

    count: int
    running: LedgerRow | None


def ahead_of(connection: sa.Connection, row: LedgerRow) -> Ahead:
    """Return what is ahead of an open command; reads no more than the open commands of its agent."""
    of_agent = COMMANDS.c.agent == row.agent
    first = COMMANDS.select().where(in_state(CommandState.RUNNING), of_agent, COMMANDS.c.id != row.command.id)
    running = read_all(connection, first.order_by(COMMANDS.c.created_at).limit(1), CommandRecord)
    return Ahead(_count_before(connection, row), _ledger_row(running[0]) if running else None)


def _count_before(connection: sa.Connection, row: LedgerRow) -> int:
    sequence = row.command.sequence
    if sequence is None:
        return 0
    # The sums hide the index by number, which has the ended commands, too.
    epoch, number = COMMANDS.c.epoch + 0, COMMANDS.c.number + 0
    is_before = sa.or_(epoch < sequence.epoch, sa.and_(epoch == sequence.epoch, number < sequence.number))
    some = sa.select(COMMANDS.c.id).where(IS_OPEN, COMMANDS.c.agent == row.agent, is_before).limit(MAX_COUNTED)
    return connection.scalar(sa.select(sa.func.count()).select_from(some.subquery())) or 0


def newest_commands(connection: sa.Connection, which: CommandQuery, limit: int | None) -> list[LedgerRow]:
    """Return the newest of these commands, newest first."""
    time: sa.ColumnElement[float] = COMMANDS.c.created_at
    order = [time.desc(), COMMANDS.c.number.desc()]
    if which.operation_id is not None:
        # The sum hides the index by time, on which PostgreSQL may look for an old operation from the newest command on.
        order = [(time + 0).desc(), *order]
    elif which.is_in_order_of_agent:
        order = [COMMANDS.c.epoch.desc(), COMMANDS.c.number.desc()]  # of its numbers, which have an index anyway
    query = COMMANDS.select().where(*which.conditions()).order_by(*order).limit(limit)
    return [_ledger_row(record) for record in read_all(connection, query, CommandRecord)]


def _ledger_row(record: CommandRecord) -> LedgerRow:
    return LedgerRow(
        command_of(record),
        record.agent,
        state_in(record.state),
        record.cancel != Cancel.NO,
        readable_result(record),
        moment(record.completed_at),
        readable_verdict(record),
        moment(record.sent_at),
        moment(record.stored_at),
        moment(record.running_at),
        bool(record.to_send),
        record.operation_id,
        TraceContext.of_text(record.trace),
    )
