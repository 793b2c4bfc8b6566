"""The outbox: commands and cancels that are due to be published, claimed once, and again when they go unanswered.

A claim marks its rows as sent before anything is published, and `resend_at` is the end of the visibility timeout.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from broker.contract.topics import AGENT_NAME
from broker.ledger.agents import get_or_create_all, is_silent, lock_agents_of
from broker.ledger.completion import command_of, complete_by_server
from broker.ledger.damage import damage_in_command
from broker.ledger.enqueue import MAX_COMMAND_BYTES
from broker.ledger.records import CommandRecord
from broker.ledger.shares import share_out
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, Cancel, CommandState
from broker.system.retry import LONGEST_WAIT_S, growing_wait

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
_MAX_CLAIMED_CHARACTERS = 4 << 20
_ROWS_PER_FETCH = 20
_AGENTS_PER_REQUEUE = 500
_NOT_OFFLINE = sa.select(AGENTS.c.name).where(sa.or_(AGENTS.c.online.is_(True), AGENTS.c.status.is_(None)))
_COMMANDS_DUE = COMMANDS.c.to_send.is_(True)
_CANCELS_DUE = COMMANDS.c.cancel == Cancel.TO_SEND


@dataclass(frozen=True)
class Claimed:
    """What must be published now, all of it marked as sent: (agent, command id to cancel), (agent, command)."""

    cancels: list[tuple[str, str]]
    commands: list[tuple[str, Command]]


def due_agents(connection: sa.Connection) -> list[str]:
    """Return the names of the agents that have commands or cancels due, in order."""
    commands = sa.select(COMMANDS.c.agent).where(_COMMANDS_DUE)
    cancels = sa.select(COMMANDS.c.agent).where(_CANCELS_DUE)
    return sorted(connection.scalars(commands.union(cancels)))


def claim_due(connection: sa.Connection, limit: int, among: Sequence[str] | None, now: datetime) -> Claimed:
    """Claim at most `limit` cancels and as many commands that are due, of these agents only unless `among` is None.

    Each agent gets a share of both, the first ones of `among` first. Commands are in sequence for each agent, and have
    some 4 MiB at most together. One that is too long for a signed frame (added before commands were signed) is
    completed with an error: all commands after it would wait forever.
    """
    of_agents = () if among is None else (COMMANDS.c.agent.in_(among),)
    lock_agents_of(connection, sa.or_(_COMMANDS_DUE, _CANCELS_DUE), *of_agents)
    cancels = _claim_cancels(connection, limit, among)
    commands = _claim_commands(connection, limit, among, now)
    agents = {agent for agent, _ in cancels} | {record.agent for record in commands}
    if agents:
        _schedule(connection, agents, now)
    return Claimed(cancels, [(record.agent, command_of(record)) for record in commands])


def _claim_commands(
    connection: sa.Connection, limit: int, among: Sequence[str] | None, now: datetime
) -> list[CommandRecord]:
    found = _read_within(_due_commands(connection, limit, among), _MAX_CLAIMED_CHARACTERS)
    claimed = [record for record in found if not _completed_as_unfit(connection, record, now)]
    if claimed:
        ids = COMMANDS.c.id.in_([record.id for record in claimed])
        connection.execute(COMMANDS.update().where(ids).values(to_send=False))
        queued = COMMANDS.update().where(ids, COMMANDS.c.state == CommandState.QUEUED)
        connection.execute(queued.values(state=CommandState.SENT))
    return claimed


def _due_commands(connection: sa.Connection, limit: int, among: Sequence[str] | None) -> Iterator[CommandRecord]:
    for agents, most in share_out(_count_due(connection, _COMMANDS_DUE, among), limit):
        due = COMMANDS.select().where(_COMMANDS_DUE, COMMANDS.c.agent.in_(agents))
        due = due.order_by(COMMANDS.c.agent, COMMANDS.c.epoch, COMMANDS.c.number).limit(most)
        with connection.execute(due, execution_options={"yield_per": _ROWS_PER_FETCH}) as rows:
            for row in rows.mappings():
                yield CommandRecord(**row)


def _read_within(records: Iterator[CommandRecord], characters: int) -> list[CommandRecord]:
    """Return the first records, until they have this many characters together."""
    taken = []
    for record in records:
        taken.append(record)
        characters -= len(record.body or "")
        if characters <= 0:
            break
    return taken


def _claim_cancels(connection: sa.Connection, limit: int, among: Sequence[str] | None) -> list[tuple[str, str]]:
    claimed: list[tuple[str, str]] = []
    for agents, most in share_out(_count_due(connection, _CANCELS_DUE, among), limit):
        due = sa.select(COMMANDS.c.agent, COMMANDS.c.id).where(_CANCELS_DUE, COMMANDS.c.agent.in_(agents))
        rows = connection.execute(due.order_by(COMMANDS.c.agent, COMMANDS.c.created_at).limit(most))
        claimed += [(agent, command_id) for agent, command_id in rows if AGENT_NAME.fullmatch(agent)]
    if claimed:
        sent = COMMANDS.update().where(COMMANDS.c.id.in_([command_id for _, command_id in claimed]))
        connection.execute(sent.values(cancel=Cancel.SENT))
    return claimed


def _count_due(
    connection: sa.Connection, is_due: sa.ColumnElement[bool], among: Sequence[str] | None
) -> dict[str, int]:
    """Return how much is due for each agent that has any, in the order of `among`, else by name."""
    counts = sa.select(COMMANDS.c.agent, sa.func.count()).where(is_due).group_by(COMMANDS.c.agent)
    if among is not None:
        counts = counts.where(COMMANDS.c.agent.in_(among))
    found = {row[0]: row[1] for row in connection.execute(counts)}
    return {agent: found[agent] for agent in (sorted(found) if among is None else among) if agent in found}


def any_overdue(connection: sa.Connection, now: datetime) -> bool:
    """Whether an online agent has not answered in time, so that `requeue_overdue` would write anything."""
    return connection.execute(_overdue(now).limit(1)).one_or_none() is not None


def requeue_overdue(connection: sa.Connection, now: datetime) -> None:
    """Make due again what some online agents have not answered in time, with a longer timeout than before."""
    names = list(connection.scalars(_overdue(now).order_by(AGENTS.c.name).limit(_AGENTS_PER_REQUEUE)))
    agents = get_or_create_all(connection, names, now)
    requeue(connection, names)
    due = {*_count_due(connection, _COMMANDS_DUE, names), *_count_due(connection, _CANCELS_DUE, names)}
    later = [
        {"agent": it.name, "resend_at": now.timestamp() + growing_wait(it.attempts + 1), "attempts": it.attempts + 1}
        if it.name in due
        else {"agent": it.name, "resend_at": None, "attempts": 0}
        for it in agents
    ]
    if later:
        connection.execute(AGENTS.update().where(AGENTS.c.name == sa.bindparam("agent")), later)


def requeue_all(connection: sa.Connection) -> None:
    """Make due again what agents have not answered, unless they are offline: those get it when they come back."""
    connection.execute(_NOT_OFFLINE.order_by(AGENTS.c.name).with_for_update()).all()
    requeue(connection, _NOT_OFFLINE)
    connection.execute(AGENTS.update().where(AGENTS.c.attempts > 0).values(attempts=0))


def requeue(connection: sa.Connection, agents: Sequence[str] | sa.Select[Any]) -> None:
    """Make these agents' unaccepted commands and unanswered cancels due."""
    of_agents = COMMANDS.c.agent.in_(agents)
    unaccepted = COMMANDS.update().where(of_agents, COMMANDS.c.state == CommandState.SENT)
    connection.execute(unaccepted.where(COMMANDS.c.to_send.is_(False)).values(to_send=True))
    unanswered = COMMANDS.update().where(of_agents, IS_OPEN, COMMANDS.c.cancel == Cancel.SENT)
    connection.execute(unanswered.values(cancel=Cancel.TO_SEND))


def _overdue(now: datetime) -> sa.Select[Any]:
    """Select the names of the online agents whose timeout is over; a silent one gets it with its next status.

    A time further ahead than any timeout was written before the clock was set back, and is over as well.
    """
    time, resend_at = now.timestamp(), AGENTS.c.resend_at
    is_over = sa.or_(resend_at <= time, resend_at > time + LONGEST_WAIT_S)
    return sa.select(AGENTS.c.name).where(is_over, AGENTS.c.online.is_(True), sa.not_(is_silent(now)))


def _completed_as_unfit(connection: sa.Connection, record: CommandRecord, now: datetime) -> bool:
    """Complete a command that is damaged or too long; return whether it was."""
    unfit = damage_in_command(record) is not None or len(record.body.encode()) > MAX_COMMAND_BYTES
    if unfit:
        complete_by_server(connection, record, ErrorCode.INVALID, _TOO_LONG, now)
    return unfit


def _schedule(connection: sa.Connection, agents: Iterable[str], now: datetime) -> None:
    due = [
        {"agent": record.name, "resend_at": now.timestamp() + growing_wait(record.attempts)}
        for record in get_or_create_all(connection, sorted(agents), now)
    ]
    connection.execute(AGENTS.update().where(AGENTS.c.name == sa.bindparam("agent")), due)
