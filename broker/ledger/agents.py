"""The ledger's agents: their rows, created on first use within a transaction, and their overview."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from broker.contract.messages import Status
from broker.contract.states import SILENT_AFTER_S, AgentState
from broker.ledger.damage import decoded, repair_agent, with_sound_columns
from broker.ledger.insert import insert_missing
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.records import AgentRecord, read_all, read_one
from broker.ledger.tables import AGENTS, COMMANDS, GROUP_MEMBERS, IS_OPEN, moment, new_agent

__all__ = [
    "AgentRow",
    "AgentState",
    "agent_named",
    "agents_after",
    "all_agents",
    "find_agent",
    "get_or_create",
    "get_or_create_all",
    "has_spoken",
    "is_of_groups",
    "is_silent",
    "known_among",
    "last_status",
    "lock_agents",
    "lock_agents_of",
    "lock_selected",
    "names_of_agents",
    "rows_of_agents",
    "state_of_agent",
    "status_in",
    "update_agent",
]


_IS_KNOWN = AGENTS.c.forgotten_at.is_(None)
_IS_GIVEN = AGENTS.c.name.in_(given_keys())
_GIVEN_AGENTS = AGENTS.select().where(_IS_GIVEN).order_by(AGENTS.c.name).with_for_update()
_KNOWN_OF_GIVEN = sa.select(AGENTS.c.name).where(_IS_GIVEN)
_LOCK_GIVEN = _KNOWN_OF_GIVEN.order_by(AGENTS.c.name).with_for_update()
_COUNTS = sa.select(COMMANDS.c.agent, sa.func.count()).where(IS_OPEN).group_by(COMMANDS.c.agent)
_COUNTS_OF_GIVEN = _COUNTS.where(COMMANDS.c.agent.in_(given_keys()))
_CLOCK_SKEW_S = 60.0  # of a machine that reads the ledger of another


@dataclass(frozen=True)
class AgentRow:
    """One agent: its last status and when that arrived (None before the first), and its number of open commands.

    `name_conflict` is whether two clients used its name within the last two status intervals. `resend_at` is when it is
    sent again what it has not confirmed by then.
    """

    name: str
    state: AgentState
    status: Status | None
    seen_at: datetime | None
    open_commands: int
    name_conflict: bool = False
    resend_at: datetime | None = None


def all_agents(connection: sa.Connection, now: datetime) -> list[AgentRow]:
    """Return every agent that was enrolled, sent a status or was sent a command, by name."""
    agents = read_all(connection, AGENTS.select().where(_IS_KNOWN).order_by(AGENTS.c.name), AgentRecord)
    return _agent_rows(agents, connection.execute(_COUNTS), now)


def agents_after(
    connection: sa.Connection,
    name: str,
    limit: int,
    group: str | None,
    groups: frozenset[str] | None,
    now: datetime,
) -> list[AgentRow]:
    """Return at most `limit` of these agents, whose names follow this one, if they are in these groups."""
    query = AGENTS.select().where(_IS_KNOWN, AGENTS.c.name > name)
    for some in (None if group is None else frozenset({group}), groups):
        query = query if some is None else query.where(is_of_groups(AGENTS.c.name, some))
    return rows_of_agents(connection, query.order_by(AGENTS.c.name).limit(limit), now)


def agent_named(connection: sa.Connection, name: str, groups: frozenset[str] | None, now: datetime) -> AgentRow | None:
    """Return one of these agents, or None; with `groups`, only if it is in one of them."""
    query = AGENTS.select().where(_IS_KNOWN, AGENTS.c.name == name)
    query = query if groups is None else query.where(is_of_groups(AGENTS.c.name, groups))
    return next(iter(rows_of_agents(connection, query, now)), None)


def is_of_groups(agent: sa.ColumnElement[str], groups: frozenset[str]) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that this agent is in one of the groups."""
    member = sa.select(GROUP_MEMBERS.c.agent).where(GROUP_MEMBERS.c.agent == agent)
    return member.where(GROUP_MEMBERS.c.group.in_(sorted(groups))).exists()


def rows_of_agents(connection: sa.Connection, query: sa.Select[Any], now: datetime) -> list[AgentRow]:
    """Return the agents of a query on AGENTS, in its order."""
    agents = read_all(connection, query, AgentRecord)
    return _agent_rows(agents, connection.execute(_COUNTS_OF_GIVEN, as_keys(it.name for it in agents)), now)


def _agent_rows(agents: Sequence[AgentRecord], counts: Iterable[Any], now: datetime) -> list[AgentRow]:
    waiting: dict[str, int] = {row[0]: row[1] for row in counts}
    return [_agent_row(with_sound_columns(it, now), waiting.get(it.name, 0), now.timestamp()) for it in agents]


def find_agent(connection: sa.Connection, name: str, now: datetime) -> AgentRow:
    """Return one agent, also one that was forgotten or never seen."""
    record = read_one(connection, AGENTS.select().where(AGENTS.c.name == name), AgentRecord)
    if record is None:
        return AgentRow(name, AgentState.UNKNOWN, None, None, 0)
    count = sa.select(sa.func.count()).where(IS_OPEN, COMMANDS.c.agent == name)
    return _agent_row(with_sound_columns(record, now), connection.scalar(count) or 0, now.timestamp())


def _agent_row(record: AgentRecord, open_commands: int, now: float) -> AgentRow:
    status = status_in(record.status)
    if status is None:
        state = AgentState.UNKNOWN
    elif not record.online:
        state = AgentState.OFFLINE
    else:
        state = AgentState.ONLINE if _is_recent(record.seen_at, now) else AgentState.SILENT
    conflict = _is_recent(record.name_conflict_at, now)
    resend_at = moment(record.resend_at)
    return AgentRow(record.name, state, status, moment(record.seen_at), open_commands, conflict, resend_at)


def _is_recent(seconds: float | None, now: float) -> bool:
    return seconds is not None and -_CLOCK_SKEW_S <= now - seconds <= SILENT_AFTER_S


def has_spoken(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that an agent's last status is recent, as it is of one that is online."""
    return AGENTS.c.seen_at.between(now.timestamp() - SILENT_AFTER_S, now.timestamp() + _CLOCK_SKEW_S)


def state_of_agent(now: datetime) -> sa.ColumnElement[str]:
    """Return the state of an agent in SQL, as in its AgentRow."""
    return sa.case(
        (AGENTS.c.status.is_(None), AgentState.UNKNOWN),
        (AGENTS.c.online.is_(False), AgentState.OFFLINE),
        (has_spoken(now), AgentState.ONLINE),
        else_=AgentState.SILENT,
    )


def is_silent(now: datetime) -> sa.ColumnElement[bool]:
    """Return the condition in SQL that an agent's last status is too old for one that is online."""
    return AGENTS.c.seen_at < now.timestamp() - SILENT_AFTER_S


def names_of_agents(connection: sa.Connection) -> list[str]:
    """Return the names of these agents, in order."""
    return list(connection.scalars(sa.select(AGENTS.c.name).where(_IS_KNOWN).order_by(AGENTS.c.name)))


def known_among(connection: sa.Connection, agents: Collection[str]) -> set[str]:
    """Return those of these agents that have a row."""
    return set(connection.scalars(_KNOWN_OF_GIVEN, as_keys(agents)))


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
    names = as_keys(agents)
    found = [repair_agent(connection, it, now) for it in read_all(connection, _GIVEN_AGENTS, AgentRecord, names)]
    new = sorted(set(agents) - {agent.name for agent in found})
    if not new:
        return found
    insert_missing(connection, AGENTS, [new_agent(name, now) for name in new])
    return read_all(connection, _GIVEN_AGENTS, AgentRecord, names)


def lock_agents(connection: sa.Connection, agents: Sequence[str]) -> None:
    """Lock the rows of these agents until the commit, in order of name."""
    if connection.dialect.name != "sqlite":  # where a transaction that writes has the only lock
        connection.execute(_LOCK_GIVEN, as_keys(agents)).all()


def lock_agents_of(connection: sa.Connection, *commands: sa.ColumnElement[bool]) -> None:
    """Lock the rows of the agents of these commands until the commit, in order of name."""
    # design.md: "Agents are locked before their commands, in order of name."
    names = sa.select(COMMANDS.c.agent).where(*commands)
    lock_selected(connection, sa.select(AGENTS.c.name).where(AGENTS.c.name.in_(names)))


def lock_selected(connection: sa.Connection, names: sa.Select[Any]) -> None:
    """Lock the rows of AGENTS that this statement selects until the commit, in order of name."""
    if connection.dialect.name != "sqlite":  # where a transaction that writes has the only lock
        connection.execute(names.order_by(AGENTS.c.name).with_for_update()).all()


def update_agent(connection: sa.Connection, agent: str, **values: Any) -> None:
    """Change columns of the agent's row."""
    connection.execute(AGENTS.update().where(AGENTS.c.name == agent).values(**values))
