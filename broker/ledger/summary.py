"""How many agents and commands there are in each state, without reading them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from broker.contract.states import AgentState, CommandState
from broker.ledger.agents import is_of_groups, state_of_agent
from broker.ledger.damage import state_in
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN, in_state

__all__ = [
    "LedgerSummary",
    "ledger_summary",
]


@dataclass(frozen=True)
class LedgerSummary:
    """How many agents and open commands are in each state, zeros left out; the id of the oldest that was never sent."""

    agents: Mapping[AgentState, int]
    open_commands: Mapping[CommandState, int]
    oldest_queued: str | None


def ledger_summary(connection: sa.Connection, groups: frozenset[str] | None, now: datetime) -> LedgerSummary:
    """Return the summary of a ledger; with `groups`, of the agents in one of them and their commands."""
    return LedgerSummary(
        _count_agents(connection, groups, now),
        _count_open_commands(connection, groups),
        _oldest_queued(connection, groups),
    )


def _count_agents(connection: sa.Connection, groups: frozenset[str] | None, now: datetime) -> dict[AgentState, int]:
    state = state_of_agent(now)
    query = sa.select(state, sa.func.count()).where(AGENTS.c.forgotten_at.is_(None)).group_by(state)
    query = query if groups is None else query.where(is_of_groups(AGENTS.c.name, groups))
    return {AgentState(name): count for name, count in connection.execute(query)}


def _count_open_commands(connection: sa.Connection, groups: frozenset[str] | None) -> dict[CommandState, int]:
    query = sa.select(COMMANDS.c.state, sa.func.count()).where(IS_OPEN, *_of(groups)).group_by(COMMANDS.c.state)
    return {state_in(name): count for name, count in connection.execute(query)}


def _oldest_queued(connection: sa.Connection, groups: frozenset[str] | None) -> str | None:
    query = sa.select(COMMANDS.c.id).where(in_state(CommandState.QUEUED), *_of(groups))
    found: str | None = connection.scalar(query.order_by(COMMANDS.c.created_at).limit(1))
    return found


def _of(groups: frozenset[str] | None) -> Iterator[sa.ColumnElement[bool]]:
    if groups is not None:
        yield is_of_groups(COMMANDS.c.agent, groups)
