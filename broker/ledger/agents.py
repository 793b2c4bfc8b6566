"""The agents as the ledger knows them: their rows, met within a transaction, and what is shown of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from broker.contract.messages import Status
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, moment, new_agent

__all__ = [
    "AgentRow",
    "all_agents",
    "get_or_create_all",
    "last_status",
    "meet",
    "names_of_agents",
    "status_in",
    "update_agent",
]


@dataclass(frozen=True)
class AgentRow:
    """One agent: its last status (None if it never spoke), when that came, and how many commands are not completed."""

    name: str
    status: Status | None
    seen_at: datetime | None
    open_commands: int


def all_agents(connection: sa.Connection) -> list[AgentRow]:
    """Return every agent that was enrolled, spoke or was sent a command, by name."""
    counts = sa.select(COMMANDS.c.agent, sa.func.count()).where(IS_OPEN).group_by(COMMANDS.c.agent)
    waiting: dict[str, int] = {row[0]: row[1] for row in connection.execute(counts)}
    rows = connection.execute(AGENTS.select().order_by(AGENTS.c.name)).all()
    return [AgentRow(row.name, status_in(row.status), moment(row.seen_at), waiting.get(row.name, 0)) for row in rows]


def names_of_agents(connection: sa.Connection) -> list[str]:
    """Return the names of the same, in order."""
    return list(connection.scalars(sa.select(AGENTS.c.name).order_by(AGENTS.c.name)))


def last_status(connection: sa.Connection, agent: str) -> Status | None:
    """Return what the agent said last of itself, if it ever spoke."""
    return status_in(connection.scalar(sa.select(AGENTS.c.status).where(AGENTS.c.name == agent)))


def status_in(text: str | None) -> Status | None:
    """Return the status in the column of that name, if there is one."""
    return None if text is None else msgspec.json.decode(text, type=Status)


def meet(connection: sa.Connection, agent: str, now: datetime) -> Any:
    """Return the agent's row, made when it is not there, locked until the commit."""
    found = AGENTS.select().where(AGENTS.c.name == agent).with_for_update()
    row = connection.execute(found).one_or_none()
    if row is None:
        connection.execute(AGENTS.insert().values(**new_agent(agent, now)))
        row = connection.execute(found).one()
    return row


def get_or_create_all(connection: sa.Connection, agents: Sequence[str], now: datetime) -> Sequence[Any]:
    """Return the rows of these agents, made where they are not there, locked until the commit."""
    found = AGENTS.select().where(AGENTS.c.name.in_(agents)).order_by(AGENTS.c.name).with_for_update()
    rows = connection.execute(found).all()
    new = sorted(set(agents) - {row.name for row in rows})
    if not new:
        return rows
    connection.execute(AGENTS.insert(), [new_agent(name, now) for name in new])
    return connection.execute(found).all()


def update_agent(connection: sa.Connection, agent: str, **values: Any) -> None:
    """Change columns of the agent's row."""
    connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(**values))
