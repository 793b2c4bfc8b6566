"""Groups: their members and their configurations, in the ledger's database."""

from collections.abc import Iterable

import sqlalchemy as sa

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.topics import AGENT_NAME, check_name
from broker.ledger.database import Database
from broker.ledger.failures import retry_conflicts
from broker.ledger.insert import insert_missing, replace_row
from broker.ledger.tables import GROUP_CONFIGURATIONS, GROUP_MEMBERS

__all__ = [
    "GroupStore",
    "check_group_name",
    "configuration_for",
    "set_groups",
]


def check_group_name(name: str) -> str:
    """Return `name` unchanged; raise InvalidName if it is not a group name."""
    return check_name(name, "a group name")


class GroupStore:
    """The groups. Every method is one transaction, and raises LedgerError if that fails."""

    def __init__(self, database: Database) -> None:
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

    def members(self, group: str) -> list[str]:
        """Return the agents in a group, sorted by name; empty if it has none."""
        query = sa.select(GROUP_MEMBERS.c.agent).where(GROUP_MEMBERS.c.group == group)
        with self._reading() as connection:
            return list(connection.scalars(query.order_by(GROUP_MEMBERS.c.agent)))

    def is_configured(self, group: str) -> bool:
        """Return whether the group has a configuration, with or without members."""
        query = sa.select(GROUP_CONFIGURATIONS.c.group).where(GROUP_CONFIGURATIONS.c.group == group)
        with self._reading() as connection:
            return connection.scalar(query) is not None

    @retry_conflicts
    def add(self, group: str, agents: Iterable[str]) -> None:
        """Add agents to a group, which exists from its first member on. Raises InvalidName for a bad group name."""
        check_group_name(group)
        with self._transaction() as connection:
            insert_missing(connection, GROUP_MEMBERS, [{"group": group, "agent": agent} for agent in sorted(agents)])

    @retry_conflicts
    def remove(self, group: str, agents: Iterable[str]) -> None:
        """Remove agents from a group; those that are not in it are ignored."""
        with self._transaction() as connection:
            members = GROUP_MEMBERS.delete().where(GROUP_MEMBERS.c.group == group)
            connection.execute(members.where(GROUP_MEMBERS.c.agent.in_(list(agents))))

    @retry_conflicts
    def configure(self, group: str, artifact: Artifact) -> None:
        """Make a stored blob the configuration of a group. Raises InvalidName for a bad group name."""
        values = {"group": check_group_name(group), "sha256": artifact.sha256, "size": artifact.size}
        with self._transaction() as connection:
            replace_row(connection, GROUP_CONFIGURATIONS, values)


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
