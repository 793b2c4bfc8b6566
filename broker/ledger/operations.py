"""Operations: one command sent to many agents, and the progress of its commands."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from broker.contract.states import Outcome
from broker.errors import LedgerError
from broker.ledger.agents import is_of_groups
from broker.ledger.cursors import cursor_of, place_at
from broker.ledger.damage import decoded, state_in
from broker.ledger.ids import ids_beginning_with
from broker.ledger.records import OperationRecord, read_all, read_one
from broker.ledger.tables import COMMANDS, OPERATIONS, CommandState, utc

__all__ = [
    "Operation",
    "OperationPage",
    "OperationStore",
    "Progress",
    "UnknownOperation",
    "insert_operation",
]


class UnknownOperation(LedgerError):
    """The ledger has no operation with this id."""

    code = "unknown_operation"


@dataclass(frozen=True)
class Operation:
    """One operation: its command type, its target as the user wrote it, and the number of agents."""

    id: str
    command_type: str
    target: str
    size: int
    created_at: datetime


@dataclass(frozen=True)
class OperationPage:
    """Some operations, and the cursor from which on to look for more; None at the end."""

    operations: list[Operation]
    cursor: str | None


@dataclass(frozen=True)
class Progress:
    """How many of an operation's commands are in each state; completed ones are counted by outcome.

    `unwritten` commands are not in the ledger: the sender was stopped before it had written all.
    """

    open: dict[CommandState, int] = field(default_factory=dict)
    succeeded: int = 0
    failed: int = 0
    unwritten: int = 0

    @property
    def completed(self) -> int:
        """How many commands have a result."""
        return self.succeeded + self.failed

    @property
    def done(self) -> bool:
        """Whether every written command has a result."""
        return not self.open

    def counts(self) -> dict[str, int]:
        """Return the counts by name, in the order of a command's life; zeros are left out."""
        counts = {str(state): self.open.get(state, 0) for state in CommandState}
        counts |= {"success": self.succeeded, "error": self.failed, "unwritten": self.unwritten}
        return {name: count for name, count in counts.items() if count}

    def summary(self) -> str:
        """Return these counts as text, such as "2 queued, 1 success"."""
        return ", ".join(f"{count} {name}" for name, count in self.counts().items())


class OperationStore:
    """Reads the operations, without blocking on writers. Every method raises LedgerError if the database fails."""

    def __init__(self, reading: Callable[[], AbstractContextManager[sa.Connection]]) -> None:
        self._reading = reading

    def get(self, operation_id: str) -> Operation:
        """Return one operation; raises UnknownOperation."""
        with self._reading() as connection:
            return _operation(_find(connection, operation_id))

    def ids_beginning_with(self, beginning: str, groups: frozenset[str] | None = None) -> list[str]:
        """Return the ids of operations that begin with a text, at most three.

        With `groups`, only of those with a command for an agent in one of them.
        """
        conditions = [] if groups is None else [_command_for(OPERATIONS.c.id, groups).exists()]
        with self._reading() as connection:
            return ids_beginning_with(connection, OPERATIONS.c.id, beginning, *conditions)

    def newest(self, limit: int) -> list[Operation]:
        """Return the newest operations, newest first."""
        query = OPERATIONS.select().order_by(OPERATIONS.c.created_at.desc()).limit(limit)
        with self._reading() as connection:
            return [_operation(record) for record in read_all(connection, query, OperationRecord)]

    def page(self, cursor: str | None, limit: int, groups: frozenset[str] | None = None) -> OperationPage:
        """Return at most `limit` operations, newest first, and the cursor for more.

        With `groups`, only those with a command for an agent in one of them; then a page may have fewer, also none,
        while there is a cursor. Raises InvalidArgument for a cursor of another list.
        """
        order = (OPERATIONS.c.created_at, OPERATIONS.c.id)
        query = OPERATIONS.select().order_by(*(it.desc() for it in order)).limit(limit)
        if cursor is not None:
            query = query.where(sa.tuple_(*order) < sa.tuple_(*place_at(cursor, tuple[float, str])))
        with self._reading() as connection:
            records = read_all(connection, query, OperationRecord)
            visible = [it for it in records if groups is None or _is_for(connection, it.id, groups)]
        last = records[-1] if len(records) == limit else None
        end = None if last is None else cursor_of((last.created_at, last.id))
        return OperationPage([_operation(record) for record in visible], end)

    def concerns(self, operation_id: str, groups: frozenset[str]) -> bool:
        """Return whether an operation has a command for an agent in one of the groups."""
        with self._reading() as connection:
            return _is_for(connection, operation_id, groups)

    def progress(self, operation_id: str, groups: frozenset[str] | None = None) -> Progress:
        """Count an operation's commands by state; raises UnknownOperation.

        With `groups`, only those for agents in one of them; how many were not written is then unknown.
        """
        state, outcome = COMMANDS.c.state, COMMANDS.c.outcome
        query = sa.select(state, outcome, sa.func.count()).where(COMMANDS.c.operation_id == operation_id)
        if groups is not None:
            query = query.where(is_of_groups(COMMANDS.c.agent, groups))
        with self._reading() as connection:
            size = _find(connection, operation_id).size
            rows = connection.execute(query.group_by(state, outcome))
            counts: Counter[tuple[CommandState, str | None]] = Counter()
            for stored_state, stored_outcome, count in rows:
                counts[state_in(stored_state), stored_outcome] += count
            if counts.pop((CommandState.COMPLETED, None), 0):
                missing = _outcomes_in_results(connection, operation_id)
                counts.update((CommandState.COMPLETED, outcome) for outcome in missing)
        by_state: Counter[CommandState] = Counter()
        for (command_state, _), count in counts.items():
            by_state[command_state] += count
        completed, succeeded = by_state.pop(CommandState.COMPLETED, 0), counts[CommandState.COMPLETED, Outcome.SUCCESS]
        return Progress(
            open=dict(by_state),
            succeeded=succeeded,
            failed=completed - succeeded,
            unwritten=size - counts.total() if groups is None else 0,
        )


def _is_for(connection: sa.Connection, operation_id: str, groups: frozenset[str]) -> bool:
    """Whether the operation has a command for an agent in one of the groups."""
    return connection.scalar(_command_for(operation_id, groups).limit(1)) is not None


def _command_for(operation_id: str | sa.ColumnElement[str], groups: frozenset[str]) -> sa.Select[tuple[str]]:
    """Return the query for the commands of an operation for agents in one of the groups."""
    command = sa.select(COMMANDS.c.id).where(COMMANDS.c.operation_id == operation_id)
    return command.where(is_of_groups(COMMANDS.c.agent, groups))


def insert_operation(connection: sa.Connection, operation: Operation) -> None:
    """Within a transaction, write an operation without its commands."""
    values = {
        "id": operation.id,
        "type": operation.command_type,
        "target": operation.target,
        "size": operation.size,
        "created_at": operation.created_at.timestamp(),
    }
    connection.execute(OPERATIONS.insert().values(**values))


def _outcomes_in_results(connection: sa.Connection, operation_id: str) -> list[str]:
    """Return the outcomes that a running server of an earlier version has written to the results only."""
    done = (COMMANDS.c.operation_id == operation_id, COMMANDS.c.result.is_not(None), COMMANDS.c.outcome.is_(None))
    return [
        (decoded(result, dict) or {}).get("outcome", Outcome.ERROR)
        for result in connection.scalars(sa.select(COMMANDS.c.result).where(*done))
    ]


def _find(connection: sa.Connection, operation_id: str) -> OperationRecord:
    record = read_one(connection, OPERATIONS.select().where(OPERATIONS.c.id == operation_id), OperationRecord)
    if record is None:
        raise UnknownOperation(f"No operation has the id {operation_id[:128]!r}; `acm operation list` lists them.")
    return record


def _operation(record: OperationRecord) -> Operation:
    created_at = utc(record.created_at)
    return Operation(record.id, record.type, record.target, record.size, created_at)
