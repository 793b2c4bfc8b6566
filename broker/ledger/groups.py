"""Groups: their members and their configurations, in the ledger's database."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.topics import AGENT_NAME, check_name
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.event_types import EventType
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import insert_missing, replace_row
from broker.ledger.many_rows import as_keys, given_keys
from broker.ledger.noted_events import note_all
from broker.ledger.tables import GROUP_CONFIGURATIONS, GROUP_MEMBERS

__all__ = [
    "GroupStore",
    "check_group_name",
    "configuration_for",
    "set_groups",
]


_MEMBERSHIPS = sa.select(GROUP_MEMBERS.c.agent, GROUP_MEMBERS.c.group)
_OF_GIVEN = _MEMBERSHIPS.where(GROUP_MEMBERS.c.agent.in_(given_keys()))


def check_group_name(name: str) -> str:
    """Return `name` unchanged; raise InvalidName if it is not a group name."""
    return check_name(name, "a group name")


class GroupStore:
    """The groups. Every method is one transaction, and raises LedgerError if that fails."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._now = now
        self._transaction = database.transaction
        self._reading = database.reading

    def all(self) -> dict[str, list[str]]:
        """Return the members of every group; groups and members sorted by name."""
        query = sa.select(GROUP_MEMBERS.c.group, GROUP_MEMBERS.c.agent)
        groups: dict[str, list[str]] = {}
        with self._reading() as connection:
            for group, agent in connection.execute(query.order_by(GROUP_MEMBERS.c.group, GROUP_MEMBERS.c.agent)):
                groups.setdefault(group, []).append(agent)
        return groups

    def sizes(self) -> dict[str, int]:
        """Return how many members every group has, sorted by name."""
        query = sa.select(GROUP_MEMBERS.c.group, sa.func.count()).group_by(GROUP_MEMBERS.c.group)
        with self._reading() as connection:
            return {row[0]: row[1] for row in connection.execute(query.order_by(GROUP_MEMBERS.c.group))}

    def of(self, agents: Iterable[str]) -> dict[str, list[str]]:
        """Return the groups of each of these agents that is in any, sorted by name."""
        query = sa.select(GROUP_MEMBERS.c.agent, GROUP_MEMBERS.c.group).where(GROUP_MEMBERS.c.agent.in_(given_keys()))
        groups: dict[str, list[str]] = {}
        with self._reading() as connection:
            for agent, group in connection.execute(query.order_by(GROUP_MEMBERS.c.group), as_keys(agents)):
                groups.setdefault(agent, []).append(group)
        return groups

    def members(self, group: str) -> list[str]:
        """Return the agents in a group, sorted by name; empty if it has none."""
        with self._reading() as connection:
            return _members(connection, group)

    def of_agents(self, agents: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Return the groups of those of these agents that are in any."""
        groups: defaultdict[str, set[str]] = defaultdict(set)
        with self._reading() as connection:
            for agent, group in connection.execute(_OF_GIVEN, as_keys(agents)):
                groups[agent].add(group)
        return {agent: frozenset(its) for agent, its in groups.items()}

    def is_configured(self, group: str) -> bool:
        """Return whether the group has a configuration, with or without members."""
        query = sa.select(GROUP_CONFIGURATIONS.c.group).where(GROUP_CONFIGURATIONS.c.group == group)
        with self._reading() as connection:
            return connection.scalar(query) is not None

    @retry_conflicts
    def add(self, group: str, agents: Iterable[str], also: Also[list[str]] = nothing_else) -> None:
        """Add agents to a group, which exists from its first member on. Raises InvalidName for a bad group name.

        `also` is given the members of the group then, and writes what belongs to it in the same transaction.
        """
        check_group_name(group)
        with self._transaction() as connection:
            new = sorted({*agents}.difference(_members(connection, group)))
            insert_missing(connection, GROUP_MEMBERS, [{"group": group, "agent": agent} for agent in new])
            self._note(connection, EventType.AGENT_JOINED_GROUP, group, new)
            also(connection, _members(connection, group))

    @retry_conflicts
    def remove(self, group: str, agents: Iterable[str], also: Also[list[str]] = nothing_else) -> None:
        """Remove agents from a group; those that are not in it are ignored. `also` is as in `add`."""
        with self._transaction() as connection:
            old = sorted({*agents}.intersection(_members(connection, group)))
            members = GROUP_MEMBERS.delete().where(GROUP_MEMBERS.c.group == group)
            connection.execute(members.where(GROUP_MEMBERS.c.agent.in_(given_keys())), as_keys(old))
            self._note(connection, EventType.AGENT_LEFT_GROUP, group, old)
            also(connection, _members(connection, group))

    def _note(self, connection: sa.Connection, event_type: EventType, group: str, agents: Iterable[str]) -> None:
        note_all(connection, event_type, [(agent, None, group) for agent in agents], now=self._now())

    @retry_conflicts
    def configure(self, group: str, artifact: Artifact) -> None:
        """Make a stored blob the configuration of a group. Raises InvalidName for a bad group name."""
        values = {"group": check_group_name(group), "sha256": artifact.sha256, "size": artifact.size}
        with self._transaction() as connection:
            replace_row(connection, GROUP_CONFIGURATIONS, values)


def _members(connection: sa.Connection, group: str) -> list[str]:
    query = sa.select(GROUP_MEMBERS.c.agent).where(GROUP_MEMBERS.c.group == group)
    return list(connection.scalars(query.order_by(GROUP_MEMBERS.c.agent)))


def configuration_for(connection: sa.Connection, agent: str) -> tuple[str, Artifact] | None:
    """Within a transaction, return the agent's first group that has a configuration, and that configuration."""
    table = GROUP_CONFIGURATIONS.c
    query = sa.select(table.group, table.sha256, table.size).join(GROUP_MEMBERS, GROUP_MEMBERS.c.group == table.group)
    row = connection.execute(query.where(GROUP_MEMBERS.c.agent == agent).order_by(table.group).limit(1)).one_or_none()
    if row is None:
        return None
    group, sha256, size = row
    return group, Artifact(blob_url(sha256), sha256, size)


def set_groups(connection: sa.Connection, agent: str, groups: Iterable[str]) -> None:
    """Within a transaction, make the agent a member of exactly these groups; invalid names are skipped."""
    connection.execute(GROUP_MEMBERS.delete().where(GROUP_MEMBERS.c.agent == agent))
    named = sorted(group for group in set(groups) if AGENT_NAME.fullmatch(group))
    insert_missing(connection, GROUP_MEMBERS, [{"group": group, "agent": agent} for group in named])
