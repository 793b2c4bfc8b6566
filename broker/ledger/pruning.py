"""Removes what was completed long ago from the ledger, in small transactions, so that a server works in between.

Open commands are never touched. What an audit needs of a command stays: its id, number, digest and outcome, and the
hash of what was sent.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.journal import command_sha256
from broker.ledger.completion import command_of
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import insert_missing
from broker.ledger.records import CommandRecord, read_all
from broker.ledger.stored_results import readable_result
from broker.ledger.tables import (
    AGENTS,
    AUDITS,
    COMMANDS,
    DAMAGED_ROWS,
    IS_OPEN,
    OPERATIONS,
    PRUNED_COMMANDS,
    REFUSED_MESSAGES,
    STRAY_RESULTS,
)

__all__ = [
    "LedgerPruning",
]


_COMMANDS_PER_TRANSACTION = 100
_PRUNED_PER_AGENT = 20_000  # more than an agent's journal names
_NO_BODY = "{}"
_COMPLETED_AT = sa.func.coalesce(COMMANDS.c.completed_at, COMMANDS.c.created_at)
_IS_SINGLE = COMMANDS.c.operation_id.is_(None)


@dataclass(frozen=True)
class LedgerPruning:
    """Removes what was completed before a time (UTC). Raises LedgerError if the database fails.

    It reads what was created before that time, not the whole ledger.
    """

    database: Database
    before: datetime

    def counts(self) -> Mapping[str, int]:
        """Return how much `run` would remove now, by kind."""
        in_operations = COMMANDS.c.operation_id.in_(self._old_operations)
        with self.database.reading() as connection:
            return {
                "commands": _count(connection, COMMANDS, *self._old_singles)
                + _count(connection, COMMANDS, in_operations),
                "operations": _count(connection, OPERATIONS, *self._are_old_operations),
                "unmatched_results": _count(connection, STRAY_RESULTS, *self._old_results),
                "agents": _count(connection, AGENTS, AGENTS.c.forgotten_at < self._before, ~self._keeps_commands),
            }

    def run(self) -> Mapping[str, int]:
        """Remove it; return how much was removed, by kind."""
        with self.database.reading() as connection:
            agents = set(connection.scalars(sa.select(STRAY_RESULTS.c.agent).where(*self._old_results)))
            operations = list(connection.scalars(self._old_operations))
        removed = self._prune_singles()
        for operation in operations:
            removed += self._prune_operation(operation)
        for agent in self._with_too_many_pruned(removed):
            self._bound_pruned(agent)
        return {
            "commands": removed.total(),
            "operations": len(operations),
            "unmatched_results": sum(self._prune_results(agent) for agent in sorted(agents)),
            "agents": self._prune_agents(),
        }

    @property
    def _before(self) -> float:
        return self.before.timestamp()

    @property
    def _old_singles(self) -> tuple[sa.ColumnElement[bool], ...]:
        """The condition of the commands without an operation that are removed, the one that finds them first."""
        return (COMMANDS.c.created_at < self._before, self._before > _COMPLETED_AT, _IS_SINGLE, ~IS_OPEN)

    @property
    def _are_old_operations(self) -> tuple[sa.ColumnElement[bool], ...]:
        """The condition of the operations that are removed: none of their commands stays."""
        stays = sa.or_(IS_OPEN, self._before <= _COMPLETED_AT)
        of_operation = sa.select(COMMANDS.c.id).where(COMMANDS.c.operation_id == OPERATIONS.c.id, stays)
        return (OPERATIONS.c.created_at < self._before, ~of_operation.exists())

    @property
    def _old_operations(self) -> sa.Select[Any]:
        return sa.select(OPERATIONS.c.id).where(*self._are_old_operations)

    @property
    def _old_results(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (STRAY_RESULTS.c.received_at < self._before, STRAY_RESULTS.c.body != _NO_BODY)

    @property
    def _keeps_commands(self) -> sa.ColumnElement[bool]:
        """Whether an agent has commands that stay, for themselves or for their operations."""
        of_old_operation = sa.and_(~_IS_SINGLE, COMMANDS.c.operation_id.in_(self._old_operations))  # NULL is not false
        is_old = sa.or_(sa.and_(*self._old_singles), of_old_operation)
        return sa.select(COMMANDS.c.id).where(COMMANDS.c.agent == AGENTS.c.name, ~is_old).exists()

    def _prune_singles(self) -> Counter[str]:
        """Remove the commands without an operation; return how many of each agent."""
        removed: Counter[str] = Counter()
        last = (0.0, "")
        while True:
            some, last = self._prune_some_singles(*last)
            removed += some
            if not some:
                return removed

    @retry_conflicts
    def _prune_some_singles(self, time: float, command_id: str) -> tuple[Counter[str], tuple[float, str]]:
        """Remove some of those that were created after this one; return the last one, too."""
        created_at = COMMANDS.c.created_at
        follows = (created_at >= time, sa.or_(created_at > time, COMMANDS.c.id > command_id))
        query = COMMANDS.select().where(*follows, *self._old_singles).order_by(created_at, COMMANDS.c.id)
        with self.database.transaction() as connection:
            records = _remove(connection, query)
        return Counter(it.agent for it in records), (records[-1].created_at, records[-1].id) if records else (0.0, "")

    def _prune_operation(self, operation: str) -> Counter[str]:
        """Remove an operation and its commands; return how many of each agent."""
        removed: Counter[str] = Counter()
        while some := self._prune_some_of(operation):
            removed += some
        return removed

    @retry_conflicts
    def _prune_some_of(self, operation: str) -> Counter[str]:
        query = COMMANDS.select().where(COMMANDS.c.operation_id == operation, ~IS_OPEN)
        with self.database.transaction() as connection:
            records = _remove(connection, query)
            if len(records) < _COMMANDS_PER_TRANSACTION:
                connection.execute(OPERATIONS.delete().where(OPERATIONS.c.id == operation))
        return Counter(it.agent for it in records)

    def _with_too_many_pruned(self, agents: Iterable[str]) -> list[str]:
        """Return the agents of which more is kept than an audit needs; reading waits for no lock."""
        with self.database.reading() as connection:
            return [agent for agent in agents if connection.scalar(_beyond(agent, 1)) is not None]

    @retry_conflicts
    def _bound_pruned(self, agent: str) -> None:
        with self.database.transaction() as connection:
            beyond = PRUNED_COMMANDS.c.id.in_(_beyond(agent, _PRUNED_PER_AGENT))
            connection.execute(PRUNED_COMMANDS.delete().where(beyond))

    @retry_conflicts
    def _prune_results(self, agent: str) -> int:
        """Remove the texts of an agent's unmatched results: an audit needs their digests."""
        old = STRAY_RESULTS.update().where(STRAY_RESULTS.c.agent == agent, *self._old_results)
        with self.database.transaction() as connection:
            return connection.execute(old.values(body=_NO_BODY)).rowcount

    @retry_conflicts
    def _prune_agents(self) -> int:
        """Remove agents that were forgotten, once they have no commands."""
        with self.database.transaction() as connection:
            connection.execute(DAMAGED_ROWS.delete().where(DAMAGED_ROWS.c.found_at < self._before))
            connection.execute(REFUSED_MESSAGES.delete().where(REFUSED_MESSAGES.c.received_at < self._before))
            has_commands = sa.select(COMMANDS.c.id).where(COMMANDS.c.agent == AGENTS.c.name).exists()
            gone = sa.select(AGENTS.c.name).where(AGENTS.c.forgotten_at < self._before, ~has_commands)
            names = list(connection.scalars(gone.with_for_update()))
            for table in (PRUNED_COMMANDS, STRAY_RESULTS, AUDITS):
                connection.execute(table.delete().where(table.c.agent.in_(names)))
            connection.execute(AGENTS.delete().where(AGENTS.c.name.in_(names)))
        return len(names)


def _remove(connection: sa.Connection, query: sa.Select[Any]) -> list[CommandRecord]:
    """Within a transaction, remove the first completed commands of a query; return them."""
    records = read_all(connection, query.limit(_COMMANDS_PER_TRANSACTION), CommandRecord)
    if records:
        insert_missing(connection, PRUNED_COMMANDS, [_remains(record) for record in records])
        ids = COMMANDS.c.id.in_([record.id for record in records])
        connection.execute(COMMANDS.delete().where(ids, ~IS_OPEN))
    return records


def _beyond(agent: str, limit: int) -> sa.Select[Any]:
    """Select the ids of commands of an agent that were pruned before the newest ones."""
    table = PRUNED_COMMANDS.c
    newest = sa.select(table.id).where(table.agent == agent).order_by(table.epoch.desc(), table.number.desc())
    return newest.offset(_PRUNED_PER_AGENT).limit(limit)


def _count(connection: sa.Connection, table: sa.Table, *conditions: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(table).where(*conditions)) or 0


def _remains(record: CommandRecord) -> dict[str, Any]:
    """Return what is kept of a completed command."""
    result = readable_result(record) or {}
    return {
        "id": record.id,
        "agent": record.agent,
        "epoch": record.epoch,
        "number": record.number,
        "completed_at": record.completed_at or record.created_at,
        "digest": record.digest,
        "outcome": record.outcome or result.get("outcome"),
        "code": result.get("code"),
        "sha256": command_sha256(command_of(record)),
    }
