"""Lists of agents that are searched, filtered and sorted by the database, however many there are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from broker.contract.states import AgentState
from broker.ledger.agents import AgentRow, is_of_groups, rows_of_agents, state_of_agent
from broker.ledger.database import Database
from broker.ledger.tables import AGENTS, COMMANDS, IS_OPEN

__all__ = [
    "AgentListing",
    "AgentOrder",
    "listed_agents",
]


class AgentOrder(StrEnum):
    """What agents are sorted by; those that are equal in it, by name."""

    NAME = "name"
    STATE = "state"
    SEEN = "seen"
    OPEN = "open"


@dataclass(frozen=True)
class AgentListing:
    """Which agents to list: those whose names have a text in them, in a state, in a group and with a version."""

    text: str = ""
    state: AgentState | None = None
    group: str | None = None
    version: str | None = None
    order: AgentOrder = AgentOrder.NAME
    descending: bool = False


def listed_agents(
    database: Database,
    which: AgentListing,
    groups: frozenset[str] | None,
    now: datetime,
    *,
    skip: int,
    limit: int,
    is_served: bool,
) -> tuple[list[AgentRow], int]:
    """Return at most `limit` of these agents, after the first `skip`, and how many there are. Raises LedgerError.

    With `groups`, only agents in one of them. Unless the ledger `is_served`, those that were online are unknown.
    """
    state = state_of_agent(now)
    if not is_served:
        state = sa.case((state == AgentState.ONLINE, AgentState.UNKNOWN), else_=state)
    conditions = _conditions(which, groups, state)
    count = sa.select(sa.func.count()).select_from(AGENTS).where(*conditions)
    query = AGENTS.select().where(*conditions).limit(limit).offset(skip)
    key = _key(which.order, state)
    query = query.order_by(key.desc() if which.descending else key, AGENTS.c.name)
    with database.reading() as connection:
        return rows_of_agents(connection, query, now), connection.scalar(count) or 0


def _conditions(
    which: AgentListing, groups: frozenset[str] | None, state: sa.ColumnElement[str]
) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [AGENTS.c.forgotten_at.is_(None)]
    if which.text:
        conditions.append(AGENTS.c.name.contains(which.text.lower(), autoescape=True))
    if which.state is not None:
        conditions.append(state == which.state)
    if which.version is not None:
        conditions.append(_has_version(which.version))
    for some in (None if which.group is None else frozenset({which.group}), groups):
        if some is not None:
            conditions.append(is_of_groups(AGENTS.c.name, some))
    return conditions


def _has_version(version: str) -> sa.ColumnElement[bool]:
    """Return whether a status has this version, by its text; in a text within it, quotation marks are escaped."""
    if not version:
        return AGENTS.c.status.is_(None)
    return AGENTS.c.status.contains(f'"version":"{version}"', autoescape=True)


def _key(order: AgentOrder, state: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
    if order is AgentOrder.STATE:
        return state
    if order is AgentOrder.SEEN:
        return sa.func.coalesce(AGENTS.c.seen_at, 0)
    if order is AgentOrder.OPEN:
        waiting = sa.select(sa.func.count()).where(IS_OPEN, COMMANDS.c.agent == AGENTS.c.name)
        return waiting.scalar_subquery()
    return AGENTS.c.name
