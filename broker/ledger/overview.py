"""The fleet at a glance: agents by group and by version, and how commands have ended lately."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
import sqlalchemy as sa

from broker.ledger.agents import has_spoken, is_of_groups
from broker.ledger.database import Database
from broker.ledger.tables import AGENTS, COMMANDS, GROUP_MEMBERS, HAS_FAILED

__all__ = [
    "LedgerOverview",
    "Share",
    "ledger_overview",
]


_IS_KNOWN = AGENTS.c.forgotten_at.is_(None)


@dataclass(frozen=True)
class Share:
    """Some agents of the fleet: those in a group, or with a version. `online` of them were there just now."""

    name: str
    agents: int
    online: int


@dataclass(frozen=True)
class LedgerOverview:
    """The agents by group and by version, most agents first; and how many commands have failed since a time.

    The version is empty for agents that have sent no status.
    """

    groups: tuple[Share, ...]
    versions: tuple[Share, ...]
    failed: int


class _Version(msgspec.Struct):
    version: str = ""


_decoder = msgspec.json.Decoder(_Version)


def ledger_overview(
    database: Database, groups: frozenset[str] | None, now: datetime, failed_since: datetime
) -> LedgerOverview:
    """Return the overview of a ledger; with `groups`, of the agents in one of them. Raises LedgerError."""
    with database.reading() as connection:
        return LedgerOverview(
            tuple(_groups(connection, groups, now)),
            tuple(_versions(connection, groups, now)),
            _count_failed(connection, groups, failed_since),
        )


def _groups(connection: sa.Connection, groups: frozenset[str] | None, now: datetime) -> Iterator[Share]:
    count, online = sa.func.count().label("agents"), sa.func.sum(_is_online(now))
    query = sa.select(GROUP_MEMBERS.c.group, count, online)
    query = query.select_from(GROUP_MEMBERS.join(AGENTS, AGENTS.c.name == GROUP_MEMBERS.c.agent)).where(_IS_KNOWN)
    query = query if groups is None else query.where(GROUP_MEMBERS.c.group.in_(sorted(groups)))
    for row in connection.execute(query.group_by(GROUP_MEMBERS.c.group).order_by(count.desc(), GROUP_MEMBERS.c.group)):
        yield Share(row[0], row[1], int(row[2]))


def _versions(connection: sa.Connection, groups: frozenset[str] | None, now: datetime) -> Iterator[Share]:
    """Read the version from each status here: the two databases read JSON in two ways, and a damaged one not at all."""
    query = sa.select(AGENTS.c.status, _is_online(now)).where(_IS_KNOWN)
    query = query if groups is None else query.where(is_of_groups(AGENTS.c.name, groups))
    agents, online = Counter[str](), Counter[str]()
    for status, is_online in connection.execute(query):
        version = _version_in(status)
        agents[version] += 1
        online[version] += is_online
    for version, count in agents.most_common():
        yield Share(version, count, online[version])


def _version_in(status: str | None) -> str:
    try:
        return "" if status is None else _decoder.decode(status).version
    except msgspec.MsgspecError:
        return ""


def _is_online(now: datetime) -> sa.ColumnElement[int]:
    return sa.case((sa.and_(AGENTS.c.status.is_not(None), AGENTS.c.online.is_(True), has_spoken(now)), 1), else_=0)


def _count_failed(connection: sa.Connection, groups: frozenset[str] | None, since: datetime) -> int:
    query = sa.select(sa.func.count()).where(HAS_FAILED, COMMANDS.c.created_at >= since.timestamp())
    query = query if groups is None else query.where(is_of_groups(COMMANDS.c.agent, groups))
    return connection.scalar(query) or 0
