"""The ledger's agents: their rows, created on first use within a transaction, and their overview."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from broker.contract.messages import Status
from broker.contract.states import SILENT_AFTER_S
from broker.ledger.damage import decoded, repair_agent, with_sound_columns
from broker.ledger.insert import insert_missing
from broker.ledger.records import AgentRecord, read_all
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, moment, new_agent

__all__ = [
    "AgentRow",
    "AgentState",
    "all_agents",
    "get_or_create",
    "get_or_create_all",
    "is_silent",
    "last_status",
    "lock_agents_of",
    "names_of_agents",
    "status_in",
    "update_agent",
]


_IS_KNOWN = AGENTS.c.forgotten_at.is_(None)
_CLOCK_SKEW_S = 60.0  # of a machine that reads the ledger of another


class AgentState(StrEnum):
    """What the last status of an agent shows, as docs/glossary.md defines it. `unknown`: it has sent none.

    While no server runs, `acm agents` shows `unknown` instead of `online`.
    """

    ONLINE = "online"
    SILENT = "silent"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AgentRow:
    """One agent: its last status and when that arrived (None before the first), and its number of open commands.

    `name_conflict` is whether two clients used its name within the last two status intervals.
    """

    name: str
    state: AgentState
    status: Status | None
    seen_at: datetime | None
    open_commands: int
    name_conflict: bool = False


def all_agents(connection: sa.Connection, now: datetime) -> list[AgentRow]:
    """Return every agent that was enrolled, sent a status or was sent a command, by name."""
    counts = sa.select(COMMANDS.c.agent, sa.func.count()).where(IS_OPEN).group_by(COMMANDS.c.agent)
    waiting: dict[str, int] = {row[0]: row[1] for row in connection.execute(counts)}
    agents = read_all(connection, AGENTS.select().where(_IS_KNOWN).order_by(AGENTS.c.name), AgentRecord)
    return [_agent_row(with_sound_columns(it, now), waiting.get(it.name, 0), now.timestamp()) for it in agents]


def _agent_row(record: AgentRecord, open_commands: int, now: float) -> AgentRow:
    status = status_in(record.status)
    if status is None:
        state = AgentState.UNKNOWN
    elif not record.online:
        state = AgentState.OFFLINE
    else:
        state = AgentState.ONLINE if _is_recent(record.seen_at, now) else AgentState.SILENT
    conflict = _is_recent(record.name_conflict_at, now)
    return AgentRow(record.name, state, status, moment(record.seen_at), open_commands, conflict)


def _is_recent(seconds: float | None, now: float) -> bool:
    return seconds is not None and -_CLOCK_SKEW_S <= now - seconds <= SILENT_AFTER_S


def is_silent(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that an agent's last status is too old for one that is online."""
    return AGENTS.c.seen_at < now.timestamp() - SILENT_AFTER_S


def names_of_agents(connection: sa.Connection) -> list[str]:
    """Return the names of these agents, in order."""
    return list(connection.scalars(sa.select(AGENTS.c.name).where(_IS_KNOWN).order_by(AGENTS.c.name)))


def last_status(connection: sa.Connection, agent: str) -> Status | None:
    """Return the agent's last status, or None if it never sent one."""
    return status_in(connection.scalar(sa.select(AGENTS.c.status).where(AGENTS.c.name == agent)))


def status_in(text: str | None) -> Status | None:
    """Return the status in the column of that name, or None if there is none or it is damaged."""
    return decoded(text, Status)


def get_or_create(connection: sa.Connection, agent: str, now: datetime) -> AgentRecord:
    """Get or create the agent's row, locked until the commit (SELECT … FOR UPDATE)."""
    (found,) = get_or_create_all(connection, [agent], now)
    return found


def get_or_create_all(connection: sa.Connection, agents: Sequence[str], now: datetime) -> list[AgentRecord]:
    """Get or create the rows of these agents, in order of name, locked until the commit."""
    query = AGENTS.select().where(AGENTS.c.name.in_(agents)).order_by(AGENTS.c.name).with_for_update()
    found = [repair_agent(connection, it, now) for it in read_all(connection, query, AgentRecord)]
    new = sorted(set(agents) - {agent.name for agent in found})
    if not new:
        return found
    insert_missing(connection, AGENTS, [new_agent(name, now) for name in new])
    return read_all(connection, query, AgentRecord)


def lock_agents_of(connection: sa.Connection, *commands: sa.ColumnElement[bool]) -> None:
    """Lock the rows of the agents of these commands until the commit, in order of name."""
    # design.md: "Agents are locked before their commands, in order of name."
    if connection.dialect.name == "sqlite":
        return  # a transaction that writes has the only lock
    names = sa.select(COMMANDS.c.agent).where(*commands)
    locked = sa.select(AGENTS.c.name).where(AGENTS.c.name.in_(names)).order_by(AGENTS.c.name).with_for_update()
    connection.execute(locked).all()


def update_agent(connection: sa.Connection, agent: str, **values: Any) -> None:
    """Change columns of the agent's row."""
    connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(**values))
