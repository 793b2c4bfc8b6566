"""Removes what was completed long ago from the ledger, in small transactions, so that a server works in between.

Open commands are never touched. What an audit needs of a command stays: its id, number, digest and outcome, and the
hash of what was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.journal import command_sha256
from broker.ledger.completion import command_of
from broker.ledger.damage import readable_result
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import insert_missing
from broker.ledger.records import CommandRecord, read_all
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
    CommandState,
)

__all__ = [
    "LedgerPruning",
]


_COMMANDS_PER_TRANSACTION = 100
_PRUNED_PER_AGENT = 20_000  # more than an agent's journal names
_NO_BODY = "{}"
_COMPLETED_AT = sa.func.coalesce(COMMANDS.c.completed_at, COMMANDS.c.created_at)


@dataclass(frozen=True)
class LedgerPruning:
    """Removes what was completed before a time (UTC). Raises LedgerError if the database fails."""

    database: Database
    before: datetime

    def counts(self) -> Mapping[str, int]:
        """Return how much `run` would remove now, by kind."""
        with self.database.reading() as connection:
            kept = _operations_in_use(connection, self._before)
            by_operation = sa.select(COMMANDS.c.operation_id, sa.func.count()).where(*self._ended)
            rows = connection.execute(by_operation.group_by(COMMANDS.c.operation_id)).all()
            pruned = [(operation, count) for operation, count in rows if operation not in kept]
            operations = self._old_operations(connection, {operation for operation, _ in pruned if operation})
            return {
                "commands": sum(count for _, count in pruned),
                "operations": operations,
                "unmatched_results": _count(connection, STRAY_RESULTS, *self._old_results),
                "agents": _count(connection, AGENTS, AGENTS.c.forgotten_at < self._before, ~self._keeps_commands),
            }

    def run(self) -> Mapping[str, int]:
        """Remove it; return how much was removed, by kind."""
        with self.database.reading() as connection:
            kept = _operations_in_use(connection, self._before)
            agents = list(connection.scalars(sa.select(STRAY_RESULTS.c.agent).where(*self._old_results).distinct()))
        commands, last = 0, ""
        while True:
            removed, last = self._prune_commands(last, kept)
            commands += removed
            if not last:
                break
        return {
            "commands": commands,
            "operations": self._prune_operations(),
            "unmatched_results": sum(self._prune_results(agent) for agent in agents),
            "agents": self._prune_agents(),
        }

    @property
    def _before(self) -> float:
        return self.before.timestamp()

    @property
    def _ended(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (COMMANDS.c.state == CommandState.COMPLETED, self._before > _COMPLETED_AT)

    @property
    def _old_results(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (STRAY_RESULTS.c.received_at < self._before, STRAY_RESULTS.c.body != _NO_BODY)

    @property
    def _keeps_commands(self) -> sa.ColumnElement[bool]:
        """Whether an agent has commands that stay, for themselves or for their operations."""
        stays = sa.or_(_stays(self._before), COMMANDS.c.operation_id.in_(_in_use(self._before)))
        return AGENTS.c.name.in_(sa.select(COMMANDS.c.agent).where(stays))

    @retry_conflicts
    def _prune_commands(self, last: str, kept: frozenset[str]) -> tuple[int, str]:
        """Remove some of the commands after the id `last`; return how many, and the last id that was looked at."""
        batch = COMMANDS.select().where(COMMANDS.c.id > last, *self._ended).order_by(COMMANDS.c.id)
        with self.database.transaction() as connection:
            records = read_all(connection, batch.limit(_COMMANDS_PER_TRANSACTION), CommandRecord)
            removed = [record for record in records if record.operation_id not in kept]
            if removed:
                insert_missing(connection, PRUNED_COMMANDS, [_remains(record) for record in removed])
                ids = COMMANDS.c.id.in_([record.id for record in removed])
                connection.execute(COMMANDS.delete().where(ids, ~IS_OPEN))
        return len(removed), records[-1].id if records else ""

    @retry_conflicts
    def _prune_operations(self) -> int:
        without = OPERATIONS.c.id.not_in(sa.select(COMMANDS.c.operation_id).where(COMMANDS.c.operation_id.is_not(None)))
        with self.database.transaction() as connection:
            return connection.execute(
                OPERATIONS.delete().where(OPERATIONS.c.created_at < self._before, without)
            ).rowcount

    @retry_conflicts
    def _prune_results(self, agent: str) -> int:
        """Remove the texts of an agent's unmatched results: an audit needs their digests."""
        old = STRAY_RESULTS.update().where(STRAY_RESULTS.c.agent == agent, *self._old_results)
        with self.database.transaction() as connection:
            return connection.execute(old.values(body=_NO_BODY)).rowcount

    @retry_conflicts
    def _prune_agents(self) -> int:
        """Remove agents that were forgotten, once they have no commands, and what was kept of too many commands."""
        with self.database.transaction() as connection:
            _bound_pruned(connection)
            connection.execute(DAMAGED_ROWS.delete().where(DAMAGED_ROWS.c.found_at < self._before))
            connection.execute(REFUSED_MESSAGES.delete().where(REFUSED_MESSAGES.c.received_at < self._before))
            has_commands = AGENTS.c.name.in_(sa.select(COMMANDS.c.agent))
            gone = sa.select(AGENTS.c.name).where(AGENTS.c.forgotten_at < self._before, ~has_commands)
            names = list(connection.scalars(gone.with_for_update()))
            for table in (PRUNED_COMMANDS, STRAY_RESULTS, AUDITS):
                connection.execute(table.delete().where(table.c.agent.in_(names)))
            connection.execute(AGENTS.delete().where(AGENTS.c.name.in_(names)))
        return len(names)

    def _old_operations(self, connection: sa.Connection, pruned: set[str]) -> int:
        old = set(connection.scalars(sa.select(OPERATIONS.c.id).where(OPERATIONS.c.created_at < self._before)))
        used = sa.select(COMMANDS.c.operation_id).where(COMMANDS.c.operation_id.is_not(None)).distinct()
        return len(old - (set(connection.scalars(used)) - pruned))


def _operations_in_use(connection: sa.Connection, before: float) -> frozenset[str]:
    """Return the operations with a command that stays: their progress counts all their commands."""
    return frozenset(connection.scalars(_in_use(before)))


def _in_use(before: float) -> sa.Select[Any]:
    return sa.select(COMMANDS.c.operation_id).where(COMMANDS.c.operation_id.is_not(None), _stays(before)).distinct()


def _stays(before: float) -> sa.ColumnElement[bool]:
    return sa.or_(IS_OPEN, before <= _COMPLETED_AT)


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


def _bound_pruned(connection: sa.Connection) -> None:
    table = PRUNED_COMMANDS.c
    counts = sa.select(table.agent).group_by(table.agent).having(sa.func.count() > _PRUNED_PER_AGENT)
    for agent in connection.scalars(counts).all():
        newest = sa.select(table.id).where(table.agent == agent).order_by(table.epoch.desc(), table.number.desc())
        beyond = newest.offset(_PRUNED_PER_AGENT).limit(_PRUNED_PER_AGENT)
        connection.execute(PRUNED_COMMANDS.delete().where(table.id.in_(beyond)))
