"""The outbox: commands and cancels that are due to be published, claimed once, and again when they go unanswered.

A claim marks its rows as sent before anything is published, and `resend_at` is the end of the visibility timeout.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from broker.ledger.agents import get_or_create_all, update_agent
from broker.ledger.completion import command_of, complete_by_server
from broker.ledger.enqueue import MAX_COMMAND_BYTES
from broker.ledger.records import CommandRecord, read_all
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, Cancel, CommandState
from broker.system.retry import growing_wait

__all__ = [
    "Claimed",
    "any_overdue",
    "claim_due",
    "due_agents",
    "requeue",
    "requeue_all",
    "requeue_overdue",
]


_TOO_LONG = "The command is too long to be signed and was not sent; send a shorter one, or a file with --file."


@dataclass(frozen=True)
class Claimed:
    """What must be published now, all of it marked as sent: (agent, command id to cancel), (agent, command)."""

    cancels: list[tuple[str, str]]
    commands: list[tuple[str, Command]]


def due_agents(connection: sa.Connection) -> list[str]:
    """Return the names of the agents that have commands or cancels due, in order."""
    commands = sa.select(COMMANDS.c.agent).where(COMMANDS.c.to_send.is_(True))
    cancels = sa.select(COMMANDS.c.agent).where(COMMANDS.c.cancel == Cancel.TO_SEND)
    return sorted(connection.scalars(commands.union(cancels)))


def claim_due(connection: sa.Connection, limit: int, among: Sequence[str] | None, now: datetime) -> Claimed:
    """Claim at most `limit` cancels and as many commands that are due, of these agents only unless `among` is None.

    Commands are in sequence for each agent. One that is too long for a signed frame (added before commands were signed)
    is completed with an error: all commands after it would wait forever.
    """
    cancels = _claim_cancels(connection, limit, among)
    commands = _claim_commands(connection, limit, among, now)
    agents = {agent for agent, _ in cancels} | {record.agent for record in commands}
    if agents:
        _schedule(connection, agents, now)
    return Claimed(cancels, [(record.agent, command_of(record)) for record in commands])


def _claim_commands(
    connection: sa.Connection, limit: int, among: Sequence[str] | None, now: datetime
) -> list[CommandRecord]:
    due = COMMANDS.select().where(COMMANDS.c.to_send.is_(True), *_of(among))
    due = due.order_by(COMMANDS.c.agent, COMMANDS.c.epoch, COMMANDS.c.number).limit(limit)
    found = read_all(connection, due, CommandRecord)
    claimed = [record for record in found if not _completed_as_too_long(connection, record, now)]
    if claimed:
        ids = COMMANDS.c.id.in_([record.id for record in claimed])
        connection.execute(COMMANDS.update().where(ids).values(to_send=False))
        queued = COMMANDS.update().where(ids, COMMANDS.c.state == CommandState.QUEUED)
        connection.execute(queued.values(state=CommandState.SENT))
    return claimed


def _claim_cancels(connection: sa.Connection, limit: int, among: Sequence[str] | None) -> list[tuple[str, str]]:
    due = sa.select(COMMANDS.c.agent, COMMANDS.c.id).where(COMMANDS.c.cancel == Cancel.TO_SEND, *_of(among))
    rows = connection.execute(due.order_by(COMMANDS.c.created_at).limit(limit))
    claimed = [(agent, command_id) for agent, command_id in rows]
    if claimed:
        sent = COMMANDS.update().where(COMMANDS.c.id.in_([command_id for _, command_id in claimed]))
        connection.execute(sent.values(cancel=Cancel.SENT))
    return claimed


def any_overdue(connection: sa.Connection, now: datetime) -> bool:
    """Whether an online agent has not answered in time, so that `requeue_overdue` would write anything."""
    return connection.execute(_overdue(now).limit(1)).one_or_none() is not None


def requeue_overdue(connection: sa.Connection, now: datetime) -> None:
    """Make due again what an online agent has not answered in time, with a longer timeout than before."""
    for name, attempts in connection.execute(_overdue(now)).all():
        again = requeue(connection, name)
        later = now.timestamp() + growing_wait(attempts + 1) if again else None
        update_agent(connection, name, resend_at=later, attempts=attempts + 1 if again else 0)


def requeue_all(connection: sa.Connection) -> None:
    """Make due again whatever any agent has not answered."""
    for name in connection.scalars(sa.select(AGENTS.c.name)).all():
        requeue(connection, name)
        update_agent(connection, name, attempts=0)


def requeue(connection: sa.Connection, agent: str) -> bool:
    """Make the agent's unaccepted commands and unanswered cancels due; return whether there are any."""
    unaccepted = COMMANDS.update().where(COMMANDS.c.agent == agent, COMMANDS.c.state == CommandState.SENT)
    unanswered = COMMANDS.update().where(COMMANDS.c.agent == agent, IS_OPEN, COMMANDS.c.cancel == Cancel.SENT)
    commands = connection.execute(unaccepted.values(to_send=True)).rowcount
    cancels = connection.execute(unanswered.values(cancel=Cancel.TO_SEND)).rowcount
    return commands + cancels > 0


def _overdue(now: datetime) -> sa.Select[Any]:
    overdue = (AGENTS.c.resend_at <= now.timestamp(), AGENTS.c.online.is_(True))
    return sa.select(AGENTS.c.name, AGENTS.c.attempts).where(*overdue)


def _of(agents: Sequence[str] | None) -> list[sa.ColumnElement[bool]]:
    return [] if agents is None else [COMMANDS.c.agent.in_(agents)]


def _completed_as_too_long(connection: sa.Connection, record: CommandRecord, now: datetime) -> bool:
    too_long = len(record.body.encode()) > MAX_COMMAND_BYTES
    if too_long:
        complete_by_server(connection, record, ErrorCode.INVALID, _TOO_LONG, now)
    return too_long


def _schedule(connection: sa.Connection, agents: Iterable[str], now: datetime) -> None:
    due = [
        {"agent": record.name, "resend_at": now.timestamp() + growing_wait(record.attempts)}
        for record in get_or_create_all(connection, sorted(agents), now)
    ]
    connection.execute(AGENTS.update().where(AGENTS.c.name == sa.bindparam("agent")), due)
